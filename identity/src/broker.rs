//! The SPIFFE Broker API (Incubating; revision 665a28f of the specifications), both ways.
//!
//! As a server it gives identities of this host's own components to brokers that the operator listed: mutual TLS with
//! X.509-SVIDs, and a documented type of reference, [`ComponentReference`](component_reference::ComponentReference). As a client
//! it is one more source of identities. A reference proves nothing: what is known of a component comes from its admission.

mod allowed;
mod brokered;
mod client;
mod follow;
mod reference;
mod refusal;
mod serve;
mod service;

pub use crate::protocols::{broker as pb, component_reference};
pub use allowed::{AllowList, AllowListError, AllowedBroker};
pub use brokered::Brokered;
pub use client::{BrokerUpstream, broker};
pub use reference::{COMPONENT_REFERENCE, Named, packed, read_reference};
pub use refusal::BrokerRefusal;
pub use serve::{BrokerServer, serve};
