//! The hash chain: checked from the first line, without trusting whoever wrote the file.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};

use serde::Deserialize;

use super::record::{RECORD_BYTES, hash};

/// The kind of the first record.
pub(super) const GENESIS: &str = "genesis";
/// The kind of the first record of every further part.
pub(super) const CONTINUED: &str = "continued";

/// What a log holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// The number of the first record: 0, unless earlier parts are kept elsewhere.
    pub first: u64,
    /// Number of records.
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

/// Checks the parts of a log, the oldest first.
#[derive(Debug, Default)]
pub struct Verifier {
    summary: Summary,
}

impl Verifier {
    /// Checks the next part from its first line to its last.
    pub fn part(&mut self, reader: impl BufRead) -> Result<(), ChainError> {
        self.part_with(reader, false, |_| ()).map(|_| ())
    }

    /// The same, handing on each line once it is known to be in its place. `may_tear`: a last line without an end, as a crash or a
    /// host that is just writing leaves it, is not read, and how long it is comes back.
    pub fn part_with(
        &mut self,
        reader: impl BufRead,
        may_tear: bool,
        mut each: impl FnMut(&[u8]),
    ) -> Result<usize, ChainError> {
        for (index, line) in lines(reader).enumerate() {
            let number = u64::try_from(index).unwrap_or(u64::MAX).saturating_add(1);
            let at = |why: String| ChainError { line: number, why };
            let (line, whole) = line.map_err(|error| at(format!("cannot be read: {error}")))?;
            if may_tear && !whole && line.len() < TORN_BYTES {
                return Ok(line.len());
            }
            let (links, hash) = read(&line).map_err(at)?;
            self.record(links, hash, index == 0).map_err(at)?;
            each(&line);
        }
        Ok(0)
    }

    /// What was in them; none, or only empty ones, are no log.
    pub fn finish(self) -> Result<Summary, ChainError> {
        match self.summary.records {
            0 => Err(ChainError { line: 1, why: "the log is empty".to_owned() }),
            _ => Ok(self.summary),
        }
    }

    fn record(&mut self, links: Links, hash: String, begins: bool) -> Result<(), String> {
        let summary = &mut self.summary;
        if begins != (links.kind == GENESIS || links.kind == CONTINUED) {
            return Err("is not where it belongs: only the first line of a part begins one".to_owned());
        }
        match (summary.records, &links.log) {
            (0, Some(log)) if links.kind == GENESIS && links.prev == genesis(log) => {}
            // Earlier parts are elsewhere: what the first one here follows on is for the reader to compare.
            (0, None) if links.kind == CONTINUED => summary.first = links.seq,
            (0, _) => return Err("is not the beginning of a log".to_owned()),
            _ if links.prev != summary.last_hash => {
                return Err("does not follow the line before: one was changed, removed or moved".to_owned());
            }
            _ => {}
        }
        let expected = summary.first.saturating_add(summary.records);
        if links.seq != expected {
            return Err(format!("has number {}, must be {expected}", links.seq));
        }
        summary.records += 1;
        *summary.by_kind.entry(links.kind).or_default() += 1;
        summary.last_hash = hash;
        Ok(())
    }
}

/// Checks a log of one part.
pub fn verify(reader: impl BufRead) -> Result<Summary, ChainError> {
    let mut verifier = Verifier::default();
    verifier.part(reader)?;
    verifier.finish()
}

/// Lines without their end, and whether they had one. One that is longer than any record comes cut, and then its hash does not fit.
fn lines(mut reader: impl BufRead) -> impl Iterator<Item = io::Result<(Vec<u8>, bool)>> {
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        match reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => {
                let whole = line.pop_if(|last| *last == b'\n').is_some();
                Some(Ok((line, whole)))
            }
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
const LINE_BYTES: u64 = TORN_BYTES as u64;
/// What has no end and is as long as this is no line that was torn.
const TORN_BYTES: usize = 2 * RECORD_BYTES;

/// Length of `,"hash":"<64 hex>"}`.
const HASH_MEMBER: usize = 9 + 64 + 2;
