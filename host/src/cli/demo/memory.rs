//! Scans another process's memory for private keys, without ever holding one: the identity process does the comparing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_stream::Stream;

use crate::limits::SCAN_CHUNK;
use crate::rpc::control::ScanChunk;

/// What a scan found.
#[derive(Debug, Clone, Copy)]
pub struct Scan {
    /// Private keys.
    pub keys: u64,
    /// Bytes looked at.
    pub bytes: u64,
    /// Whether a text that must be in that memory was seen: the scan really read it.
    pub marker: bool,
}

/// The readable memory of a process, in chunks.
pub struct Memory {
    file: File,
    regions: Vec<(u64, u64)>,
    marker: Vec<u8>,
    seen: Arc<AtomicBool>,
}

impl Memory {
    /// Opens the memory of `pid`; the kernel may refuse.
    pub fn open(pid: u32, marker: &str) -> io::Result<Self> {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let file = File::open(format!("/proc/{pid}/mem"))?;
        let regions = maps.lines().filter_map(region).collect();
        Ok(Self { file, regions, marker: marker.as_bytes().to_vec(), seen: Arc::new(AtomicBool::new(false)) })
    }

    /// Set once the marker was seen.
    pub fn seen(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.seen)
    }

    /// All of it, chunk by chunk; what cannot be read is left out.
    pub fn chunks(self) -> impl Stream<Item = ScanChunk> {
        let (sender, receiver) = tokio::sync::mpsc::channel(2);
        std::thread::spawn(move || {
            for (start, end) in &self.regions {
                let (mut at, mut continues) = (*start, false);
                while at < *end {
                    let size = usize::try_from(end - at).unwrap_or(SCAN_CHUNK).min(SCAN_CHUNK);
                    let mut data = vec![0; size];
                    match self.file.read_at(&mut data, at) {
                        Ok(read) if read > 0 => {
                            data.truncate(read);
                            at += read as u64;
                            if data.iter().all(|byte| *byte == 0) {
                                continues = false;
                                continue;
                            }
                            self.look(&data);
                            if sender.blocking_send(ScanChunk { data, continues }).is_err() {
                                return;
                            }
                            continues = true;
                        }
                        _ => (at, continues) = (at + PAGE, false),
                    }
                }
            }
        });
        futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
    }

    fn look(&self, data: &[u8]) {
        if data.windows(self.marker.len()).any(|window| window == self.marker) {
            self.seen.store(true, Ordering::Relaxed);
        }
    }
}

/// A readable region of `/proc/PID/maps` that the process could have put something in; files mapped read-only are left out.
fn region(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split_whitespace();
    let (range, rights) = (words.next()?, words.next()?);
    let path = words.nth(3).unwrap_or_default();
    let ours = rights.starts_with("rw") || (rights.starts_with('r') && !path.starts_with('/'));
    if !ours || path.starts_with("[vvar") || path.starts_with("[vsyscall") {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
}

const PAGE: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::region;

    #[test]
    fn only_private_writable_memory_is_scanned() {
        assert_eq!(region("1000-2000 rw-p 00000000 00:00 0 [heap]"), Some((0x1000, 0x2000)));
        assert_eq!(region("1000-2000 r-xp 00000000 08:01 5 /bin/x"), None);
        assert_eq!(region("1000-2000 rw-p 00000000 00:00 0 [vvar]"), None);
        assert_eq!(region("nonsense"), None);
    }
}
