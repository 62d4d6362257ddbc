//! Loads native code that Portcullis made itself into wasmtime: the one place with unsafe code.
//!
//! `Component::deserialize` runs whatever machine code it is given, so this crate takes nothing but a memory file that can
//! no longer change (sealed against writing, growing, shrinking and unsealing) and whose BLAKE3 is the one that the
//! supervisor vouched for, after it checked the host's own MAC over it or had just compiled it. It refuses everything else.
//! Nothing that came from a registry, a user or a component gets here.
//!
//! [`peer_pidfd`] asks the kernel which process is at the other end of a Unix socket.

mod peer;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags};
use wasmtime::Engine;
use wasmtime::component::Component;

pub use peer::peer_pidfd;

const SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::GROW).union(SealFlags::SHRINK).union(SealFlags::SEAL);

/// Native code in a sealed memory file whose hash was checked.
#[derive(Debug)]
pub struct NativeCode {
    file: File,
    hash: [u8; 32],
}

/// Why native code was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NativeError {
    /// The operating system refused something.
    #[error("native code cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The file can still change under us.
    #[error("native code is not in a sealed memory file")]
    NotSealed,
    /// These are not the bytes that the supervisor vouched for.
    #[error("native code is not what the supervisor vouched for")]
    OtherBytes,
    /// wasmtime does not take it: other version, settings or processor.
    #[error("native code does not fit this engine: {0}")]
    Engine(String),
}

/// A memory file for a child to write native code into, not sealed yet.
pub fn memory_file(name: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?)
}

/// Forbids every further change to a memory file. Fails while anyone holds a writable mapping of it.
pub fn seal(fd: &OwnedFd) -> io::Result<()> {
    Ok(rustix::fs::fcntl_add_seals(fd, SEALS)?)
}

/// BLAKE3 and size of a file's bytes, read from its start whatever its position is.
pub fn hash(fd: &OwnedFd, most: u64) -> io::Result<([u8; 32], u64)> {
    hash_file(&File::from(fd.try_clone()?), most)
}

impl NativeCode {
    /// Takes a sealed memory file whose bytes hash to `expected`.
    pub fn check(fd: OwnedFd, expected: &[u8; 32], most: u64) -> Result<Self, NativeError> {
        let seals = rustix::fs::fcntl_get_seals(fd.as_fd()).map_err(|_| NativeError::NotSealed)?;
        if !seals.contains(SEALS) {
            return Err(NativeError::NotSealed);
        }
        let file = File::from(fd);
        let (hash, _) = hash_file(&file, most)?;
        if hash != *expected {
            return Err(NativeError::OtherBytes);
        }
        Ok(Self { file, hash })
    }

    /// BLAKE3 of the code.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// Maps the code into `engine`.
    pub fn load(&self, engine: &Engine) -> Result<Component, NativeError> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        // SAFETY: wasmtime asks that the file is the output of `Engine::precompile_component`, unmodified, and stays so
        // while mapped. `check` saw that the memory file is sealed against every change, which the kernel never lifts, and
        // that its bytes are those whose hash the supervisor gave; the supervisor takes them from our compile process or
        // from the cache after checking the MAC that it put there. The path names the very file that was checked.
        #[expect(unsafe_code, reason = "wasmtime has no safe way to load precompiled code")]
        let component = unsafe { Component::deserialize_file(engine, path) };
        component.map_err(|error| NativeError::Engine(format!("{error:#}")))
    }
}

fn hash_file(file: &File, most: u64) -> io::Result<([u8; 32], u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0_u8; 256 << 10];
    let mut at = 0_u64;
    loop {
        let read = file.read_at(&mut buffer, at)?;
        if read == 0 {
            return Ok((*hasher.finalize().as_bytes(), at));
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
        at = at.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        if at > most {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("native code is larger than {most} bytes"),
            ));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::io::Write;

    const MOST: u64 = 64 << 20;

    fn compiled(engine: &Engine) -> Vec<u8> {
        engine.precompile_component(b"\0asm\x0d\0\x01\0").unwrap()
    }

    fn file_with(bytes: &[u8]) -> OwnedFd {
        let fd = memory_file("test").unwrap();
        File::from(fd.try_clone().unwrap()).write_all(bytes).unwrap();
        fd
    }

    #[test]
    fn our_own_sealed_code_loads() {
        let engine = Engine::default();
        let fd = file_with(&compiled(&engine));
        let (expected, _) = hash(&fd, MOST).unwrap();
        seal(&fd).unwrap();
        NativeCode::check(fd, &expected, MOST).unwrap().load(&engine).unwrap();
    }

    #[test]
    fn code_that_can_still_change_is_refused() {
        let engine = Engine::default();
        let fd = file_with(&compiled(&engine));
        let (expected, _) = hash(&fd, MOST).unwrap();
        assert!(matches!(NativeCode::check(fd, &expected, MOST), Err(NativeError::NotSealed)));
        let path = tempfile();
        let (expected, _) = hash(&path, MOST).unwrap();
        assert!(matches!(NativeCode::check(path, &expected, MOST), Err(NativeError::NotSealed)));
    }

    #[test]
    fn other_bytes_than_those_vouched_for_are_refused() {
        let fd = file_with(b"something else");
        seal(&fd).unwrap();
        assert!(matches!(NativeCode::check(fd, &[0; 32], MOST), Err(NativeError::OtherBytes)));
    }

    #[test]
    fn bytes_over_the_limit_are_refused() {
        let fd = file_with(&[0; 1000]);
        seal(&fd).unwrap();
        assert!(matches!(NativeCode::check(fd, &[0; 32], 999), Err(NativeError::Io(_))));
    }

    #[test]
    fn a_sealed_file_cannot_be_written_any_more() {
        let fd = file_with(b"x");
        seal(&fd).unwrap();
        assert!(File::from(fd).write_all(b"y").is_err());
    }

    fn tempfile() -> OwnedFd {
        let path = std::env::temp_dir().join(format!("portcullis-native-{}", std::process::id()));
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file.into()
    }
}
