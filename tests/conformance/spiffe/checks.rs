//! The checks behind the checklist, a file for each document of the standard.

pub mod api;
pub mod bundle;
pub mod endpoint;
pub mod id;
pub mod jwt;
pub mod x509;
