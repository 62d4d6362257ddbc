//! Names of files, buckets and secrets, canonical: parsed once, compared whole, members of what contains them.
//!
//! Decides: which texts name the same thing. Refuses every text that could name another thing to another program: relative
//! parts, doubled separators, characters that file systems, object stores or shells read in their own ways.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::limits::{BUCKET_BYTES, PATH_BYTES, PATH_SEGMENTS, SECRET_BYTES};

/// An absolute path within what a component was given, such as `/data/orders.csv`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilePath(String);

/// A bucket of an object or key-value store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bucket(String);

/// A secret: scopes between slashes, then its name, such as `shop/pay/api-key`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretName(String);

/// Why text is no such name. Whoever wrote it erred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, nothing between two slashes, or a slash at the end.
    #[error("a part of it is empty")]
    Empty,
    /// `.` or `..`.
    #[error("`.` and `..` are not taken: they name something else than they say")]
    Relative,
    /// Does not begin with a slash.
    #[error("it is not absolute")]
    NotAbsolute,
    /// A character that such a name does not have.
    #[error("a character that such a name does not have")]
    Character,
    /// Over its limit.
    #[error("it is too long")]
    TooLong,
}

impl NameError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "write paths as /data/orders.csv, buckets as orders-eu, secrets as shop/pay/api-key"
    }
}

impl FilePath {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folders that it lies in, the nearest first, up to `/`.
    pub fn parents(&self) -> impl Iterator<Item = &str> {
        let at = |(at, _): (usize, &str)| self.0.get(..at.max(1));
        self.0.match_indices('/').rev().filter_map(at).filter(|parent| *parent != self.0)
    }

    /// Whether it is this folder or lies below it.
    pub fn is_within(&self, folder: &Self) -> bool {
        self == folder || self.parents().any(|parent| parent == folder.0)
    }
}

impl Bucket {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SecretName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The scopes that it lies in, the nearest first.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').rev().filter_map(|(at, _)| self.0.get(..at))
    }
}

impl FromStr for FilePath {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > PATH_BYTES {
            return Err(NameError::TooLong);
        }
        let rest =
            text.strip_prefix('/').ok_or(if text.is_empty() { NameError::Empty } else { NameError::NotAbsolute })?;
        if rest.is_empty() {
            return Ok(Self(text.to_owned()));
        }
        if rest.split('/').count() > PATH_SEGMENTS {
            return Err(NameError::TooLong);
        }
        for part in rest.split('/') {
            // Spaces are part of many a file's name; what ends lines, what quotes and what escapes is not.
            check_part(part, |b| b == b' ' || (b.is_ascii_graphic() && !b"\\:*?\"<>|%".contains(&b)))?;
            if part.starts_with(' ') || part.ends_with([' ', '.']) {
                return Err(NameError::Character);
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Bucket {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > BUCKET_BYTES {
            return Err(NameError::TooLong);
        }
        check_part(text, |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))?;
        match text.starts_with(['-', '_', '.']) || text.ends_with(['-', '_', '.']) || text.contains("..") {
            true => Err(NameError::Character),
            false => Ok(Self(text.to_owned())),
        }
    }
}

impl FromStr for SecretName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > SECRET_BYTES || text.split('/').count() > PATH_SEGMENTS {
            return Err(NameError::TooLong);
        }
        for part in text.split('/') {
            check_part(part, |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))?;
        }
        Ok(Self(text.to_owned()))
    }
}

fn check_part(part: &str, allowed: impl Fn(u8) -> bool) -> Result<(), NameError> {
    match part {
        "" => Err(NameError::Empty),
        "." | ".." => Err(NameError::Relative),
        _ if part.bytes().all(allowed) => Ok(()),
        _ => Err(NameError::Character),
    }
}

macro_rules! texts {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    )*};
}

texts!(FilePath, Bucket, SecretName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_could_be_read_in_two_ways_are_refused() {
        for (text, why) in [
            ("", NameError::Empty),
            ("data", NameError::NotAbsolute),
            ("./data", NameError::NotAbsolute),
            ("/data/", NameError::Empty),
            ("//data", NameError::Empty),
            ("/data//x", NameError::Empty),
            ("/data/../etc", NameError::Relative),
            ("/data/.", NameError::Relative),
            ("/data/a\\b", NameError::Character),
            ("/data/%2e%2e", NameError::Character),
            ("/data/a\nb", NameError::Character),
            ("/data/a\0", NameError::Character),
            ("/data/ü", NameError::Character),
            ("/data/x:stream", NameError::Character),
            ("/data/x.", NameError::Character),
            ("/data/x ", NameError::Character),
        ] {
            assert_eq!(text.parse::<FilePath>(), Err(why), "{text:?}");
        }
        assert!("/data/orders of may.csv".parse::<FilePath>().is_ok());
    }

    #[test]
    fn a_path_lies_in_its_folders_and_not_in_what_only_begins_like_it() {
        let path: FilePath = "/data/eu/orders.csv".parse().unwrap();
        assert_eq!(path.parents().collect::<Vec<_>>(), ["/data/eu", "/data", "/"]);
        for (folder, within) in
            [("/data", true), ("/", true), ("/data/eu/orders.csv", true), ("/dat", false), ("/data/e", false)]
        {
            assert_eq!(path.is_within(&folder.parse().unwrap()), within, "{folder}");
        }
        let root: FilePath = "/".parse().unwrap();
        assert_eq!(root.parents().count(), 0);
    }

    #[test]
    fn buckets_and_secrets_have_plain_names() {
        for text in ["orders", "orders-eu.v2", "o_1"] {
            assert!(text.parse::<Bucket>().is_ok(), "{text}");
        }
        for text in ["", "Orders", "a/b", "-a", "a.", "a..b", ".", "ü", "a b"] {
            assert!(text.parse::<Bucket>().is_err(), "{text}");
        }
        let key: SecretName = "shop/pay/api-key".parse().unwrap();
        assert_eq!(key.scopes().collect::<Vec<_>>(), ["shop/pay", "shop"]);
        for text in ["", "/a", "a/", "a//b", "a/../b", "A", "a b"] {
            assert!(text.parse::<SecretName>().is_err(), "{text}");
        }
    }

    #[test]
    fn limits_of_names_hold() {
        let path = |n: usize| format!("/{}", "a".repeat(n - 1)).parse::<FilePath>();
        assert!(path(PATH_BYTES).is_ok() && path(PATH_BYTES + 1) == Err(NameError::TooLong));
        let deep = |n: usize| "/a".repeat(n).parse::<FilePath>();
        assert!(deep(PATH_SEGMENTS).is_ok() && deep(PATH_SEGMENTS + 1) == Err(NameError::TooLong));
        let bucket = |n: usize| "a".repeat(n).parse::<Bucket>();
        assert!(bucket(BUCKET_BYTES).is_ok() && bucket(BUCKET_BYTES + 1) == Err(NameError::TooLong));
        let secret = |n: usize| "a".repeat(n).parse::<SecretName>();
        assert!(secret(SECRET_BYTES).is_ok() && secret(SECRET_BYTES + 1) == Err(NameError::TooLong));
    }
}
