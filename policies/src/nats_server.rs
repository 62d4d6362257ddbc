//! The configuration of a NATS server, read as the server reads it, and what in it would undo an auth callout.
//!
//! Decides: whether a configuration leaves a way in beside the callout, lets its requests be forged, or lets a credential cross
//! the network in the clear. Reads syntax strictly (what the server would refuse, or take for something else than it looks,
//! is refused here) and keys tolerantly: servers know more keys than matter. Pure: files that are included are asked for.

mod findings;
mod preload;
mod reader;
mod value;

pub use findings::{Context, Finding, Level, check};
pub use reader::{Loaded, Loader, ReadError, read};
pub use value::{Entry, Map, Value};
