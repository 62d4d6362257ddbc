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
        let digest = hash(file)?;
        // What was hashed is what runs, unless it changed meanwhile.
        if process.executable()?.1 != state {
            return Err(ProcessError::Changed);
        }
        if let Ok(mut known) = self.0.lock() {
            known.truncate(WORKLOAD_DIGESTS - 1);
            known.push_front((state, digest.clone()));
        }
        Ok(digest)
    }

    fn known(&self, state: &FileState) -> Option<String> {
        let known = self.0.lock().ok()?;
        known.iter().find(|(other, _)| other == state).map(|(_, digest)| digest.clone())
    }
}

fn hash(mut file: File) -> io::Result<String> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 256 << 10];
    let mut left = WORKLOAD_EXECUTABLE_BYTES;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        left = left
            .checked_sub(u64::try_from(read).unwrap_or(u64::MAX))
            .ok_or_else(|| io::Error::other("the executable grows while it is hashed"))?;
        context.update(buffer.get(..read).unwrap_or_default());
    }
}
