//! Clients of a SPIRE agent: its Delegated Identity API for components, its Workload API for the host itself.
//!
//! The agent attests the process that connects; for the Delegated Identity API it must find it among its
//! `authorized_delegates`. It then believes the selectors that this host sends, so they are made of nothing but what the
//! supervisor verified: see [`selectors`].

mod delegated;
mod dial;
mod workload;

use std::sync::Arc;

pub use delegated::selectors;
pub use dial::{Dial, SocketPath};
pub(crate) use workload::WorkloadApi;

use crate::trust_domain::TrustDomain;
use crate::upstream::{Clock, Upstream};

/// The Delegated Identity API behind this socket as a source. Must be called within a tokio runtime.
pub fn delegated(dial: Arc<dyn Dial>, trust_domain: TrustDomain, clock: Clock) -> Upstream {
    Upstream::start(Box::new(delegated::Delegated::new(dial)), trust_domain, clock)
}

/// The Workload API behind this socket as a source of the host's own identity: the only instance to be admitted there is the host.
pub fn workload_api(dial: Arc<dyn Dial>, trust_domain: TrustDomain, clock: Clock) -> Upstream {
    Upstream::start(Box::new(WorkloadApi::new(dial)), trust_domain, clock)
}
