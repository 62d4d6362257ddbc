//! The audit log of the callout: one thread writes, many wait. Records that come while the disk is busy go out together, and while
//! more is being decided the thread waits a moment for it, so that a storm of connections does not take one flush each. A request
//! that is alone waits for nobody.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::{mpsc, oneshot};

use crate::audit::{AuditLog, Durability, Record};
use crate::limits::{AUDIT_BATCH, CALLOUT_GATHER, CALLOUT_JOURNAL};

/// A way into the log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {
    sender: mpsc::Sender<Entry>,
    broken: Arc<AtomicBool>,
    at_work: Arc<AtomicUsize>,
}

/// A request that is being decided, and may have a record for the disk.
#[derive(Debug)]
pub struct AtWork(Arc<AtomicUsize>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Entry {
    record: Record,
    /// Whoever waits for it to be on the disk.
    done: Option<oneshot::Sender<bool>>,
}

impl Journal {
    /// Opens the log and starts its thread, which ends when the last way in is gone.
    pub fn open(path: &Path) -> io::Result<Self> {
        let log = AuditLog::open(path, crate::audit::Parts::default(), crate::clock::now())?;
        let (sender, receiver) = mpsc::channel(CALLOUT_JOURNAL);
        let broken = Arc::new(AtomicBool::new(false));
        let at_work = Arc::new(AtomicUsize::new(0));
        let (flag, others) = (Arc::clone(&broken), Arc::clone(&at_work));
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || write(log, receiver, &flag, &others))?;
        Ok(Self { sender, broken, at_work })
    }

    /// Says that a request is at work until what this gives is dropped.
    pub fn at_work(&self) -> AtWork {
        self.at_work.fetch_add(1, Ordering::Relaxed);
        AtWork(Arc::clone(&self.at_work))
    }

    /// Hands a record over; the receiver says whether it is on the disk. `None` where there is no room: then it will not be.
    pub fn begin(&self, record: Record) -> Option<oneshot::Receiver<bool>> {
        let (done, waiting) = oneshot::channel();
        self.sender.try_send(Entry { record, done: Some(done) }).ok().map(|()| waiting)
    }

    /// Hands a record over and does not wait for the disk. Whether there was room.
    pub fn note(&self, record: Record) -> bool {
        self.sender.try_send(Entry { record, done: None }).is_ok()
    }

    /// Hands a record over and waits until it is on the disk.
    pub async fn durable(&self, record: Record) -> bool {
        match self.begin(record) {
            Some(done) => done.await.unwrap_or(false),
            None => false,
        }
    }

    /// Whether a record could not be written. Then nobody is let in any more.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}

fn write(mut log: AuditLog, mut receiver: mpsc::Receiver<Entry>, broken: &AtomicBool, at_work: &AtomicUsize) {
    let mut entries = Vec::new();
    while receiver.blocking_recv_many(&mut entries, AUDIT_BATCH) > 0 {
        let waiting = entries.iter().filter(|entry| entry.done.is_some()).count();
        // Whoever waits for this flush is at work still: more than those have theirs to come.
        if waiting > 0 && waiting < at_work.load(Ordering::Relaxed) {
            std::thread::sleep(CALLOUT_GATHER);
            let room = AUDIT_BATCH.saturating_sub(entries.len());
            entries.extend(std::iter::from_fn(|| receiver.try_recv().ok()).take(room));
        }
        let durability = match waiting > 0 {
            true => Durability::Durable,
            false => Durability::Buffered,
        };
        let (records, waiting): (Vec<Record>, Vec<_>) =
            entries.drain(..).map(|entry| (entry.record, entry.done)).unzip();
        let written = log.append_many(crate::clock::now(), &records, durability);
        if let Err(error) = &written
            && !broken.swap(true, Ordering::Relaxed)
        {
            tracing::error!(%error, "the audit log cannot be written: nobody is let in any more");
        }
        for done in waiting.into_iter().flatten() {
            let _ = done.send(written.is_ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_is_at_work_and_has_no_record_holds_up_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let journal = Journal::open(&path).unwrap();
        let _denied_later = journal.at_work();
        for round in 0..3 {
            let at_work: Vec<_> = (0..10).map(|_| journal.at_work()).collect();
            let told: Vec<_> = at_work.iter().map(|_| journal.begin(Record::new("test")).unwrap()).collect();
            for done in told {
                assert!(done.await.unwrap(), "round {round}");
            }
            drop(at_work);
            assert_eq!(journal.at_work.load(Ordering::Relaxed), 1, "those that ended are not waited for");
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().filter(|line| line.contains("\"test\"")).count(), 30, "told means written: {text}");
    }
}
