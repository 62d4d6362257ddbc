//! The audit log of the callout: one thread writes, many wait. Records that come while the disk is busy go out together, so that a
//! storm of connections does not wait for one flush each.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, oneshot};

use crate::audit::{AuditLog, Durability, Record};
use crate::limits::{AUDIT_BATCH, CALLOUT_JOURNAL};

/// A way into the log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {
    sender: mpsc::Sender<Entry>,
    broken: Arc<AtomicBool>,
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
        let flag = Arc::clone(&broken);
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || write(log, receiver, &flag))?;
        Ok(Self { sender, broken })
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

fn write(mut log: AuditLog, mut receiver: mpsc::Receiver<Entry>, broken: &AtomicBool) {
    let mut entries = Vec::new();
    while receiver.blocking_recv_many(&mut entries, AUDIT_BATCH) > 0 {
        let durability = match entries.iter().any(|entry| entry.done.is_some()) {
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
