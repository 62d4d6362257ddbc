//! SHA-256 of executables, kept by the state of the file: hashed once, and again after any change.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Mutex;

use ring::digest::{Context, SHA256};

use super::process::{FileState, Process, ProcessError};
use crate::limits::{WORKLOAD_DIGESTS, WORKLOAD_EXECUTABLE_BYTES};

/// The digests that are known.
#[derive(Debug, Default)]
pub struct Digests(Mutex<VecDeque<(FileState, String)>>);

impl Digests {
    /// The digest of the executable that a process runs. Reads the whole file where it is not known.
    pub fn of(&self, process: &Process) -> Result<String, ProcessError> {
        let (file, state) = process.executable()?;
        if let Some(known) = self.known(&state) {
            return Ok(known);
        }
        if state.size() > WORKLOAD_EXECUTABLE_BYTES {
            return Err(io::Error::other("the executable is too large to be hashed").into());
        }
        let digest = hash(file, WORKLOAD_EXECUTABLE_BYTES)?;
        // What was hashed is what runs, unless it changed meanwhile.
        if process.executable()?.1 != state {
            return Err(ProcessError::Changed);
        }
        self.keep(state, digest.clone());
        Ok(digest)
    }

    fn keep(&self, state: FileState, digest: String) {
        if let Ok(mut known) = self.0.lock() {
            known.truncate(WORKLOAD_DIGESTS - 1);
            known.push_front((state, digest));
        }
    }

    fn known(&self, state: &FileState) -> Option<String> {
        let known = self.0.lock().ok()?;
        known.iter().find(|(other, _)| other == state).map(|(_, digest)| digest.clone())
    }
}

fn hash(mut file: File, most: u64) -> io::Result<String> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 256 << 10];
    let mut left = most;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        left = left
            .checked_sub(u64::try_from(read).unwrap_or(u64::MAX))
            .ok_or_else(|| io::Error::other("the executable is too large to be hashed"))?;
        context.update(buffer.get(..read).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn the_digest_is_that_of_the_whole_file_and_files_over_the_limit_are_not_read() {
        let file = tempfile::tempfile().unwrap();
        let bytes = vec![7; 700 << 10];
        file.write_all_at(&bytes, 0).unwrap();
        let wanted = ring::digest::digest(&SHA256, &bytes);
        let wanted: String = wanted.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash(file.try_clone().unwrap(), WORKLOAD_EXECUTABLE_BYTES).unwrap(), wanted);
        std::io::Seek::rewind(&mut &file).unwrap();
        assert!(hash(file, 600 << 10).is_err());
    }

    #[tokio::test]
    async fn an_executable_is_hashed_once_and_the_oldest_digest_makes_room() {
        let (_client, server) = tokio::net::UnixStream::pair().unwrap();
        let process = Process::connected(&server).unwrap();
        let digests = Digests::default();
        let first = digests.of(&process).unwrap();
        assert_eq!(digests.of(&process).unwrap(), first);
        assert_eq!(digests.0.lock().unwrap().len(), 1);
        let (_, state) = process.executable().unwrap();
        {
            let mut known = digests.0.lock().unwrap();
            known.clear();
            known.push_front((state, "kept".to_owned()));
        }
        assert_eq!(digests.of(&process).unwrap(), "kept", "what is known is not read again");
        let meta = rustix::fs::stat("/dev/null").unwrap();
        for _ in 0..2 * WORKLOAD_DIGESTS {
            digests.keep(FileState::of(&meta), "other".to_owned());
        }
        assert_eq!(digests.0.lock().unwrap().len(), WORKLOAD_DIGESTS);
    }
}
