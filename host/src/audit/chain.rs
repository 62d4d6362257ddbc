//! The hash chain: checked from the first line, without trusting whoever wrote the file.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};

use serde::Deserialize;

use super::record::{RECORD_BYTES, hash};

/// The kind of the first record.
pub(super) const GENESIS: &str = "genesis";

/// What a whole log holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Number of records, the first included.
    pub records: u64,
    /// How many of each kind.
    pub by_kind: BTreeMap<String, u64>,
    /// The hash of the last one: keep it elsewhere to find out a log that was cut off.
    pub last_hash: String,
}

/// Where a chain is broken.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct ChainError {
    /// The line, from 1.
    pub line: u64,
    /// What is wrong there.
    pub why: String,
}

#[derive(Deserialize)]
struct Links {
    v: u32,
    seq: u64,
    kind: String,
    prev: String,
    #[serde(default)]
    log: Option<String>,
}

/// Checks a log from its first line to its last.
pub fn verify(reader: impl BufRead) -> Result<Summary, ChainError> {
    let mut summary = Summary::default();
    for (index, line) in lines(reader).enumerate() {
        let number = u64::try_from(index).unwrap_or(u64::MAX).saturating_add(1);
        let at = |why: String| ChainError { line: number, why };
        let line = line.map_err(|error| at(format!("cannot be read: {error}")))?;
        let (links, hash) = read(&line).map_err(at)?;
        let expected = match (summary.records, &links.log) {
            (0, Some(log)) if links.kind == GENESIS => genesis(log),
            (0, _) => return Err(at("is not the beginning of a log".to_owned())),
            (_, _) => summary.last_hash.clone(),
        };
        if links.prev != expected {
            return Err(at("does not follow the line before: one was changed, removed or moved".to_owned()));
        }
        if links.seq != summary.records {
            return Err(at(format!("has number {}, must be {}", links.seq, summary.records)));
        }
        summary.records += 1;
        *summary.by_kind.entry(links.kind).or_default() += 1;
        summary.last_hash = hash;
    }
    if summary.records == 0 {
        return Err(ChainError { line: 1, why: "the log is empty".to_owned() });
    }
    Ok(summary)
}

/// Lines without their end. One that is longer than any record comes cut, and then its hash does not fit.
fn lines(mut reader: impl BufRead) -> impl Iterator<Item = io::Result<Vec<u8>>> {
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        match reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => Some(Ok(line.strip_suffix(b"\n").map(<[u8]>::to_vec).unwrap_or(line))),
            Err(error) => Some(Err(error)),
        }
    })
}

/// Number and hash of the last line of a file's end, which must end with a line end.
pub(super) fn last(tail: &[u8]) -> Result<(u64, String), String> {
    let line = tail.strip_suffix(b"\n").ok_or("the last line has no end")?;
    let start = line.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let (links, hash) = read(line.get(start..).unwrap_or_default())?;
    Ok((links.seq, hash))
}

/// What the `prev` of the first record must be.
pub(super) fn genesis(log: &str) -> String {
    hash(format!("portcullis audit log v1\n{log}").as_bytes())
}

fn read(line: &[u8]) -> Result<(Links, String), String> {
    let split = line.len().checked_sub(HASH_MEMBER).ok_or("is too short for a record")?;
    let (body, member) = line.split_at_checked(split).ok_or("is too short for a record")?;
    let said = member
        .strip_prefix(br#","hash":""#)
        .and_then(|rest| rest.strip_suffix(br#""}"#))
        .and_then(|hex| std::str::from_utf8(hex).ok())
        .ok_or("does not end with its hash")?;
    let mut body = body.to_vec();
    body.push(b'}');
    let hash = hash(&body);
    if hash != said {
        return Err("was changed: its hash does not fit".to_owned());
    }
    let links: Links = serde_json::from_slice(&body).map_err(|error| format!("is not a record: {error}"))?;
    if links.v != 1 {
        return Err(format!("has version {}, this build reads 1", links.v));
    }
    Ok((links, hash))
}

/// Longest line that is read: a record with room for its hashes.
const LINE_BYTES: u64 = 2 * RECORD_BYTES as u64;

/// Length of `,"hash":"<64 hex>"}`.
const HASH_MEMBER: usize = 9 + 64 + 2;
