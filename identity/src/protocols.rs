//! Messages and stubs of protocols that others define: SPIRE's Delegated Identity API, the SPIFFE Broker API, gRPC's error details;
//! and the one message of ours that travels in them. Generated from `proto/` and checked in, see [`crate::rpc`] for how. Nothing
//! is decided here. Messages that carry a key or a token get their `Debug` below, without it.

#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    dead_code,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

use std::fmt;

/// `spiffe.broker`: the SPIFFE Broker API.
pub mod broker {
    include!("generated/spiffe.broker.rs");
}

/// `portcullis.broker.v1`: how a component is referred to.
pub mod component_reference {
    include!("generated/portcullis.broker.v1.rs");
}

/// `google.rpc`: error details.
pub mod google_rpc {
    include!("generated/google.rpc.rs");
}

/// `spire.api`: what an agent of SPIRE serves to its delegates.
pub(crate) mod spire {
    pub mod api {
        pub mod agent {
            pub mod delegatedidentity {
                pub mod v1 {
                    include!("generated/spire.api.agent.delegatedidentity.v1.rs");
                }
            }
        }
        pub mod types {
            include!("generated/spire.api.types.rs");
        }
    }
}

impl fmt::Debug for broker::X509svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509svid").field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}

impl fmt::Debug for broker::Jwtsvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwtsvid").field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}

impl fmt::Debug for spire::api::agent::delegatedidentity::v1::X509svidWithKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509svidWithKey").finish_non_exhaustive()
    }
}

impl fmt::Debug for spire::api::types::Jwtsvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwtsvid").field("id", &self.id).finish_non_exhaustive()
    }
}
