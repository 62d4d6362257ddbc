//! The runtime process: engine, gateway, gate. It runs code that may be hostile and is written as if it were.
//!
//! It decides nothing about who a component is: instances, identities and links come from the supervisor, SVIDs and
//! signatures from the identity process. It holds no long-lived secret. It re-checks every use against policy.

pub mod asserted;
pub mod body;
pub mod budget;
pub mod component;
pub mod context;
pub mod dial;
pub mod egress;
pub mod engine;
pub mod events;
pub mod gateway;
pub mod guest;
pub mod handshake;
pub mod identity;
pub mod lines;
pub mod linking;
pub mod live;
pub mod messaging;
pub mod request;
pub mod resolve;
pub mod routes;
pub mod serving;
pub mod slow;
pub mod standing;
pub mod stdio;
pub mod wit;
