//! The audit log: JSON lines in a hash chain, written by the supervisor alone.
//!
//! A line is one JSON object whose last member is `hash`:
//! `{"v":1,"seq":N,"ts":"...","kind":"...","ref":"...",..., "prev":"<64 hex>","hash":"<64 hex>"}`. `hash` is the SHA-256 of the
//! exact bytes of the line with `,"hash":"<64 hex>"` taken out; `prev` is the hash of the line before. The first record has the
//! kind `genesis` and a random `log` id; its `prev` is the SHA-256 of `portcullis audit log v1\n` and that id.
//!
//! A log that grew over its limit goes on in a new file: what was `audit.jsonl` becomes `audit-<number of its last record>.jsonl`,
//! and the next file begins with a record of the kind `continued`, in the same chain. Parts may be carried away; where the
//! operator says how many are kept, the oldest is removed after that is recorded.
//!
//! It finds out a changed, removed or moved line, and a truncation inside a line. A log cut off after a whole line is only
//! found out by comparing its last hash with one kept elsewhere. A line torn by a crash is moved aside, never dropped.

mod chain;
mod parts;
mod record;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ring::rand::SecureRandom;
use serde_json::Value;
use time::OffsetDateTime;

#[cfg(test)]
pub use chain::Summary;
pub use chain::{ChainError, Verifier, verify};
pub use parts::{Parts, all as all_parts};
pub use record::{Record, hash as sha256};

/// Whether a record must be on the disk when `append` returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On the disk: admission, issuance, control.
    Durable,
    /// In the file; the system writes it out in its own time.
    Buffered,
}

/// Proof that a record was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Its number.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
}

/// An open log.
#[derive(Debug)]
pub struct AuditLog {
    path: PathBuf,
    parts: Parts,
    file: File,
    length: u64,
    next: u64,
    last: String,
    broken: bool,
}

impl AuditLog {
    /// Opens a log and continues its chain, or begins one.
    pub fn open(path: &Path, parts: Parts, now: OffsetDateTime) -> io::Result<Self> {
        let file = parts::open(path)?;
        let length = file.metadata()?.len();
        let path = path.to_path_buf();
        let mut log = Self { path, parts, file, length, next: 0, last: String::new(), broken: false };
        let torn = log.set_aside_torn()?;
        let whole = match log.length {
            0 => log.parts.last(&log.path)?,
            _ => Some(log.tail()?),
        };
        match whole {
            Some(tail) => {
                let (seq, hash) = chain::last(&tail).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
                (log.next, log.last) = (seq + 1, hash);
            }
            None => log.begin(now)?,
        }
        // The host ended between the two steps of going on in a new file.
        if log.length == 0 {
            log.append(now, Record::new(chain::CONTINUED), Durability::Durable)?;
        }
        if torn > 0 {
            log.append(now, Record::new("torn").field("bytes", torn), Durability::Durable)?;
        }
        Ok(log)
    }

    /// Appends one record. After a failed write the log is put back to its last whole line, or refuses all further ones.
    pub fn append(&mut self, now: OffsetDateTime, record: Record, durability: Durability) -> io::Result<Receipt> {
        self.append_many(now, std::slice::from_ref(&record), durability)
    }

    /// Appends records in one write and, if asked, one flush to the disk: all of them, or none. Returns the last one's receipt.
    pub fn append_many(
        &mut self,
        now: OffsetDateTime,
        records: &[Record],
        durability: Durability,
    ) -> io::Result<Receipt> {
        if self.broken {
            return Err(io::Error::other("an earlier record could not be written"));
        }
        if records.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no records"));
        }
        let (mut lines, mut next, mut last) = (Vec::new(), self.next, self.last.clone());
        for record in records {
            let (line, hash) = record.line(next, now, &last)?;
            lines.extend_from_slice(&line);
            (next, last) = (next + 1, hash);
        }
        if let Err(error) = self.file.write_all(&lines) {
            self.broken = self.file.set_len(self.length).is_err();
            return Err(error);
        }
        if durability == Durability::Durable
            && let Err(error) = self.file.sync_data()
        {
            // What the system failed to write out it may have forgotten: later records would follow on nothing.
            self.broken = true;
            return Err(error);
        }
        self.length = self.length.saturating_add(u64::try_from(lines.len()).unwrap_or(u64::MAX));
        (self.next, self.last) = (next, last);
        let receipt = Receipt { seq: next.saturating_sub(1), hash: self.last.clone() };
        if self.length >= self.parts.bytes
            && let Err(error) = self.turn(now)
        {
            // The records are where they were to be. The next ones go there, too, and it is tried again.
            tracing::error!(%error, "the audit log does not go on in a new file");
        }
        Ok(receipt)
    }

    /// Goes on in a new file.
    fn turn(&mut self, now: OffsetDateTime) -> io::Result<()> {
        self.file.sync_all()?;
        let part = parts::name(&self.path, self.next.saturating_sub(1));
        std::fs::rename(&self.path, &part)?;
        let file = match parts::open(&self.path) {
            Ok(file) => file,
            Err(error) => {
                // What is appended still goes to the file that was moved: it gets its name back.
                self.broken = std::fs::rename(&part, &self.path).is_err();
                return Err(error);
            }
        };
        parts::sync_folder(&self.path)?;
        (self.file, self.length) = (file, 0);
        // INVARIANT: a part is never empty, so this does not come here again.
        self.append(now, Record::new(chain::CONTINUED), Durability::Durable)?;
        for old in self.parts.surplus(&self.path)? {
            let name = old.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.append(now, Record::new("part-removed").field("part", name), Durability::Durable)?;
            std::fs::remove_file(&old)?;
        }
        Ok(())
    }

    fn begin(&mut self, now: OffsetDateTime) -> io::Result<()> {
        let mut id = [0_u8; 16];
        ring::rand::SystemRandom::new().fill(&mut id).map_err(|_| io::Error::other("no randomness"))?;
        let id = record::hex(&id);
        self.last = chain::genesis(&id);
        self.append(now, Record::new(chain::GENESIS).field("log", id), Durability::Durable)?;
        Ok(())
    }

    /// Moves what follows the last line end into `<name>.torn`; returns its length.
    fn set_aside_torn(&mut self) -> io::Result<u64> {
        let tail = self.tail()?;
        let whole = tail.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let torn = tail.get(whole..).unwrap_or_default();
        if torn.is_empty() {
            return Ok(0);
        }
        let mut name = self.path.as_os_str().to_owned();
        name.push(".torn");
        let mut aside =
            File::options().append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(name)?;
        aside.write_all(torn)?;
        aside.write_all(b"\n")?;
        aside.sync_all()?;
        let bytes = u64::try_from(torn.len()).unwrap_or(u64::MAX);
        self.length = self.length.saturating_sub(bytes);
        self.file.set_len(self.length)?;
        self.file.sync_all()?;
        Ok(bytes)
    }

    /// The end of the file: at least one whole line where there is one.
    fn tail(&self) -> io::Result<Vec<u8>> {
        parts::tail(&self.file, self.length)
    }
}

/// The first record with a reference, from all parts of the log at `path`.
pub fn find(path: &Path, reference: &str) -> io::Result<Option<serde_json::Map<String, Value>>> {
    if reference.len() != REFERENCE_CHARS || !reference.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(None);
    }
    let needle = format!("\"ref\":\"{reference}\"");
    for part in all_parts(path)? {
        for line in BufReader::new(File::open(part)?).lines() {
            let line = line?;
            if line.contains(&needle)
                && let Ok(Value::Object(record)) = serde_json::from_str(&line)
                && record.get("ref").and_then(Value::as_str) == Some(reference)
            {
                // The first one: a later record cannot put itself in its place.
                return Ok(Some(record));
            }
        }
    }
    Ok(None)
}

const REFERENCE_CHARS: usize = 26;

#[cfg(test)]
mod tests;
