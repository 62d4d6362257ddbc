//! The policies behind one allow, and what they demand together: which peer, how long a token may live.

use std::sync::Arc;

use crate::decide::Meta;
use crate::limits::JWT_TTL_DEFAULT;
use crate::workload::WorkloadId;

/// Policies that allowed something together.
#[derive(Debug)]
pub(crate) struct Allowed {
    metas: Vec<Arc<Meta>>,
    jwt_ttl: u64,
    peer: Demand,
}

/// The peer that is demanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Demand {
    /// None.
    Nobody,
    /// This one.
    Peer(WorkloadId),
    /// Different ones: nobody can be all of them.
    Contradiction,
}

impl Allowed {
    pub(crate) fn new(metas: Vec<Arc<Meta>>) -> Self {
        let jwt_ttl = metas.iter().map(|meta| meta.max_ttl.unwrap_or(JWT_TTL_DEFAULT)).max().unwrap_or(0);
        let mut peers = metas.iter().filter_map(|meta| meta.peer.as_ref());
        let peer = match peers.next() {
            None => Demand::Nobody,
            Some(first) if peers.all(|other| other == first) => Demand::Peer(first.clone()),
            Some(_) => Demand::Contradiction,
        };
        Self { metas, jwt_ttl, peer }
    }

    /// The policies and grants.
    pub(crate) fn metas(&self) -> &[Arc<Meta>] {
        &self.metas
    }

    /// The longest life that one of them gives a JWT-SVID, in seconds.
    pub(crate) fn jwt_ttl(&self) -> u64 {
        self.jwt_ttl
    }

    /// The peer that they demand.
    pub(crate) fn peer(&self) -> &Demand {
        &self.peer
    }
}
