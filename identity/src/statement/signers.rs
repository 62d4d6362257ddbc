//! Who may sign statements at all. What a signer may do is decided elsewhere, by policy.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use time::OffsetDateTime;

use super::error::StatementError;
use super::user_key::UserKey;
use crate::excerpt::Excerpt;
use crate::leaf::Leaf;
use crate::limits::MAX_CHAIN_CERTIFICATES;
use crate::mtls::{PeerError, Svid};
use crate::spiffe_id::SpiffeId;
use crate::trust_bundle::TrustBundle;

/// Who signed, proven.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signer {
    /// Whoever holds an X.509-SVID.
    Svid(SpiffeId),
    /// Whoever holds an nkey that was pinned.
    Nkey(UserKey),
}

/// The keys and bundles that statements are checked with.
#[derive(Debug, Clone, Default)]
pub struct Signers {
    keys: BTreeSet<UserKey>,
    bundles: Arc<TrustBundle>,
}

impl Signers {
    /// X.509-SVIDs of the trust domains in these bundles, and these nkeys.
    pub fn new(bundles: Arc<TrustBundle>, keys: impl IntoIterator<Item = UserKey>) -> Self {
        Self { keys: keys.into_iter().collect(), bundles }
    }

    /// The key, if it is pinned.
    pub(super) fn key(&self, text: &str) -> Result<UserKey, StatementError> {
        let unknown = || StatementError::UnknownKey(Excerpt::new(text));
        let key: UserKey = text.parse().map_err(|_| unknown())?;
        self.keys.contains(&key).then_some(key).ok_or_else(unknown)
    }

    /// Whom a chain names and its key, if it leads to an authority of the trust domain that it names, now.
    pub(super) fn chain(&self, chain: Vec<Vec<u8>>, now: OffsetDateTime) -> Result<Leaf, StatementError> {
        let first = chain.first().ok_or(PeerError::NoChain)?;
        if chain.len() > MAX_CHAIN_CERTIFICATES {
            return Err(PeerError::LongChain.into());
        }
        let leaf = Leaf::parse(first).map_err(PeerError::Leaf)?;
        let svid = Svid { spiffe_id: leaf.spiffe_id.clone(), chain, key_id: String::new(), not_after: leaf.not_after };
        svid.check(&self.bundles, now)?;
        Ok(leaf)
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Svid(id) => fmt::Display::fmt(id, f),
            Self::Nkey(key) => fmt::Display::fmt(key, f),
        }
    }
}
