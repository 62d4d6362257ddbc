//! What the guests share: reading a request, answering it, and calling out, on plain `wasi:http`.
//!
//! Decides nothing. Nothing here panics: a guest fails only where its behaviour is to fail.

pub mod answer;
pub mod error_name;
pub mod fetch;
pub mod target;

pub use answer::{Answer, begin, write_all};
pub use error_name::error_name;
pub use fetch::{FetchError, Fetched, fetch, read_body};
pub use target::{Target, percent_decoded};
