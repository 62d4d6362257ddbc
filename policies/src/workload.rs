//! SPIFFE IDs of workloads, as grants and callers name them: parsed once, compared whole, never matched by pattern.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::limits::{SPIFFE_ID_BYTES, TRUST_DOMAIN_BYTES};

/// A workload's SPIFFE ID: a trust domain and a path that is not empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadId {
    text: String,
    domain_end: usize,
}

/// The text is no SPIFFE ID of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a SPIFFE ID of a workload, such as spiffe://prod.example/ns/shop/sa/orders")]
pub struct WorkloadIdError;

impl WorkloadId {
    /// The whole.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain's name.
    pub fn trust_domain(&self) -> &str {
        self.text.get(SCHEME.len()..self.domain_end).unwrap_or_default()
    }

    /// The path, with its first slash.
    pub fn path(&self) -> &str {
        self.text.get(self.domain_end..).unwrap_or_default()
    }
}

impl FromStr for WorkloadId {
    type Err = WorkloadIdError;

    /// SPIFFE ID section 2: exact scheme, lower-case trust domain, segments of letters, digits, dots, dashes, underscores.
    fn from_str(text: &str) -> Result<Self, WorkloadIdError> {
        if text.len() > SPIFFE_ID_BYTES {
            return Err(WorkloadIdError);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(WorkloadIdError)?;
        let (domain, path) = rest.split_once('/').ok_or(WorkloadIdError)?;
        let domain_bytes = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        let path_bytes = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let segment = |s: &str| !matches!(s, "" | "." | "..") && s.bytes().all(path_bytes);
        let domain_is_valid =
            !domain.is_empty() && domain.len() <= TRUST_DOMAIN_BYTES && domain.bytes().all(domain_bytes);
        match domain_is_valid && path.split('/').all(segment) {
            true => Ok(Self { text: text.to_owned(), domain_end: SCHEME.len() + domain.len() }),
            false => Err(WorkloadIdError),
        }
    }
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for WorkloadId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

const SCHEME: &str = "spiffe://";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spiffe_id_is_taken_apart() {
        let id: WorkloadId = "spiffe://prod.example/ns/shop/sa/Orders_2".parse().unwrap();
        assert_eq!((id.trust_domain(), id.path()), ("prod.example", "/ns/shop/sa/Orders_2"));
    }

    #[test]
    fn what_is_no_workload_id_is_refused() {
        for text in [
            "",
            "spiffe://",
            "spiffe://prod.example",
            "spiffe://prod.example/",
            "spiffe:///a",
            "SPIFFE://prod.example/a",
            "spiffe://Prod.example/a",
            "spiffe://prod.example:80/a",
            "spiffe://user@prod.example/a",
            "spiffe://prod.example/a/",
            "spiffe://prod.example//a",
            "spiffe://prod.example/../a",
            "spiffe://prod.example/./a",
            "spiffe://prod.example/a%2fb",
            "spiffe://prod.example/a?b",
            "spiffe://prod.example/a#b",
            "spiffe://prod.example/ü",
            "spiffe://prod.example/*",
            " spiffe://prod.example/a",
            "https://prod.example/a",
        ] {
            assert!(text.parse::<WorkloadId>().is_err(), "{text}");
        }
    }

    #[test]
    fn limits_of_length_hold() {
        let id = |domain: usize, path: usize| format!("spiffe://{}/{}", "a".repeat(domain), "b".repeat(path));
        assert!(id(255, 1).parse::<WorkloadId>().is_ok());
        assert!(id(256, 1).parse::<WorkloadId>().is_err());
        assert!(id(1, 2048 - 11).parse::<WorkloadId>().is_ok());
        assert!(id(1, 2048 - 10).parse::<WorkloadId>().is_err());
    }
}
