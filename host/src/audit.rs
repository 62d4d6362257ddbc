//! The audit log: JSON lines in a hash chain, written by the supervisor alone.
//!
//! A line is one JSON object whose last member is `hash`:
//! `{"v":1,"seq":N,"ts":"...","kind":"...","ref":"...",..., "prev":"<64 hex>","hash":"<64 hex>"}`. `hash` is the SHA-256 of the
//! exact bytes of the line with `,"hash":"<64 hex>"` taken out; `prev` is the hash of the line before. The first record has the
//! kind `genesis` and a random `log` id; its `prev` is the SHA-256 of `portcullis audit log v1\n` and that id.
//!
//! It finds out a changed, removed or moved line, and a truncation inside a line. A log cut off after a whole line is only
//! found out by comparing its last hash with one kept elsewhere. A line torn by a crash is moved aside, never dropped.

mod chain;
mod record;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use ring::rand::SecureRandom;
use serde_json::Value;
use time::OffsetDateTime;

pub use chain::verify;
#[cfg(test)]
pub use chain::{ChainError, Summary};
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
    file: File,
    length: u64,
    next: u64,
    last: String,
    broken: bool,
}

impl AuditLog {
    /// Opens a log and continues its chain, or begins one.
    pub fn open(path: &Path, now: OffsetDateTime) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() || meta.mode() & 0o077 != 0 || meta.uid() != rustix::process::getuid().as_raw() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not an owner-only file of this user"));
        }
        let mut log = Self { file, length: meta.len(), next: 0, last: String::new(), broken: false };
        let torn = log.set_aside_torn(path)?;
        if log.length == 0 {
            log.begin(now)?;
        } else {
            let (seq, hash) =
                chain::last(&log.tail()?).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
            (log.next, log.last) = (seq + 1, hash);
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
        Ok(Receipt { seq: next.saturating_sub(1), hash: self.last.clone() })
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
    fn set_aside_torn(&mut self, path: &Path) -> io::Result<u64> {
        let tail = self.tail()?;
        let whole = tail.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let torn = tail.get(whole..).unwrap_or_default();
        if torn.is_empty() {
            return Ok(0);
        }
        let mut name = path.as_os_str().to_owned();
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
        let start = self.length.saturating_sub(u64::try_from(record::RECORD_BYTES * 2).unwrap_or(0));
        let mut tail = vec![0; usize::try_from(self.length - start).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut tail, start)?;
        Ok(tail)
    }
}

/// The first record with a reference, from the log at `path`.
pub fn find(path: &Path, reference: &str) -> io::Result<Option<serde_json::Map<String, Value>>> {
    if reference.len() != REFERENCE_CHARS || !reference.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(None);
    }
    let needle = format!("\"ref\":\"{reference}\"");
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(0))?;
    for line in BufReader::new(file.take(u64::MAX)).lines() {
        let line = line?;
        if line.contains(&needle)
            && let Ok(Value::Object(record)) = serde_json::from_str(&line)
            && record.get("ref").and_then(Value::as_str) == Some(reference)
        {
            // The first one: a later record cannot put itself in its place.
            return Ok(Some(record));
        }
    }
    Ok(None)
}

const REFERENCE_CHARS: usize = 26;

#[cfg(test)]
mod tests;
