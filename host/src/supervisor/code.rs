//! Native code: made by a compile process from the bytes that were verified, kept in a cache under a MAC of this host.
//!
//! The MAC is made and checked by the identity process, whose key nobody else holds, over (component digest, engine
//! fingerprint, BLAKE3 of the code). An entry that does not check is deleted and made again. Whatever the source, the code
//! ends in a sealed memory file, and that file is what the runtime maps.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use portcullis_signing::{ComponentBytes, Digest};

use super::identity::Identity;
use crate::limits;
use crate::process::Role;
use crate::process::child::{Spawner, borrow};
use crate::roles::compile::{Boot, Outcome};
use crate::state::write_atomically;

/// Native code in a sealed memory file.
#[derive(Debug)]
pub struct Code {
    /// The sealed file.
    pub fd: OwnedFd,
    /// BLAKE3 of its bytes.
    pub hash: [u8; 32],
    /// Their number.
    pub size: u64,
    /// Whether it came from the cache.
    pub cached: bool,
}

/// Why there is no native code.
#[derive(Debug, thiserror::Error)]
pub enum CodeError {
    /// The component does not compile: its own fault.
    #[error("the component does not compile: {0}")]
    Rejected(String),
    /// The compile process died or ran over its limits: the component's fault as far as can be told.
    #[error("the compile process ended without code: {0}")]
    Died(String),
    /// Our fault, or the machine's.
    #[error("native code could not be made or kept: {0}")]
    Io(#[from] io::Error),
}

/// Makes and keeps native code.
#[derive(Debug)]
pub struct CodeStore {
    folder: PathBuf,
    engine: String,
    spawner: Spawner,
}

impl CodeStore {
    /// A store in `folder` for engines with the fingerprint `engine`.
    pub fn new(folder: PathBuf, engine: String, spawner: Spawner) -> Self {
        Self { folder, engine, spawner }
    }

    /// The code of a component that was verified: from the cache, or made now.
    pub async fn code(&self, component: &ComponentBytes, identity: &Identity) -> Result<Code, CodeError> {
        match self.cached(component.digest(), identity).await {
            Ok(Some(code)) => return Ok(code),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, digest = %component.digest(), "a cache entry cannot be used and is made again");
                let _ = std::fs::remove_file(self.entry(component.digest()));
            }
        }
        let code = self.compile(component).await?;
        if let Err(error) = self.keep(component.digest(), &code, identity).await {
            tracing::warn!(%error, "native code could not be cached; it is made again at the next start");
        }
        Ok(code)
    }

    async fn cached(&self, digest: &Digest, identity: &Identity) -> io::Result<Option<Code>> {
        let path = self.entry(digest);
        let opened = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(&path);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let meta = file.metadata()?;
        if !meta.is_file() || meta.uid() != rustix::process::getuid().as_raw() || meta.mode() & 0o077 != 0 {
            return Err(io::Error::other("not an owner-only file"));
        }
        let mut tag = [0_u8; TAG];
        file.read_exact(&mut tag)?;
        let memory = portcullis_native::memory_file("native")?;
        io::copy(&mut file.take(limits::NATIVE_BYTES), &mut File::from(memory.try_clone()?))?;
        portcullis_native::seal(&memory)?;
        let (hash, size) = portcullis_native::hash(&memory, limits::NATIVE_BYTES)?;
        let expected = identity.mac(PURPOSE, &self.named(digest, &hash)).await.map_err(io::Error::other)?;
        if !same(&expected, &tag) {
            return Err(io::Error::other("its MAC does not check"));
        }
        Ok(Some(Code { fd: memory, hash, size, cached: true }))
    }

    async fn keep(&self, digest: &Digest, code: &Code, identity: &Identity) -> io::Result<()> {
        let tag = identity.mac(PURPOSE, &self.named(digest, &code.hash)).await.map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(usize::try_from(code.size).unwrap_or(0).saturating_add(TAG));
        bytes.write_all(&tag)?;
        let file = File::from(code.fd.try_clone()?);
        let mut body = vec![0; usize::try_from(code.size).map_err(io::Error::other)?];
        file.read_exact_at(&mut body, 0)?;
        bytes.extend_from_slice(&body);
        write_atomically(&self.entry(digest), &bytes)
    }

    async fn compile(&self, component: &ComponentBytes) -> Result<Code, CodeError> {
        let bytes = portcullis_native::memory_file("component")?;
        File::from(bytes.try_clone()?).write_all(component.bytes())?;
        portcullis_native::seal(&bytes)?;
        let (input, code, outcome) =
            (reopen(&bytes)?, portcullis_native::memory_file("native")?, portcullis_native::memory_file("outcome")?);
        let child = self.spawner.spawn(Role::Compile, None).await?;
        let boot = serde_json::to_value(Boot { digest: component.digest().to_string() }).map_err(io::Error::other)?;
        child.boot(boot, &borrow([&input, &code, &outcome]))?;
        let how = match tokio::time::timeout(limits::COMPILE_DEADLINE, child.ended()).await {
            Ok(how) => how,
            Err(_) => {
                child.kill();
                return Err(CodeError::Died(format!("it ran longer than {:?}", limits::COMPILE_DEADLINE)));
            }
        };
        let said = outcome_of(&outcome).ok_or(CodeError::Died(how))?;
        if !said.error.is_empty() {
            return Err(CodeError::Rejected(said.error.chars().take(1024).collect()));
        }
        if said.engine != self.engine {
            return Err(CodeError::Died("it compiled for another engine".to_owned()));
        }
        portcullis_native::seal(&code)?;
        let (hash, size) = portcullis_native::hash(&code, limits::NATIVE_BYTES)?;
        Ok(Code { fd: code, hash, size, cached: false })
    }

    fn entry(&self, digest: &Digest) -> PathBuf {
        self.folder.join(format!("{}-{}.native", digest.hex(), self.engine))
    }

    /// What the MAC is over. Every part has a fixed length or an end.
    fn named(&self, digest: &Digest, hash: &[u8; 32]) -> Vec<u8> {
        let mut named = digest.as_bytes().to_vec();
        named.extend_from_slice(hash);
        named.extend_from_slice(self.engine.as_bytes());
        named
    }
}

/// The same memory file with a read position of its own.
fn reopen(fd: &OwnedFd) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    Ok(File::open(Path::new(&format!("/proc/self/fd/{}", fd.as_raw_fd())))?.into())
}

fn outcome_of(fd: &OwnedFd) -> Option<Outcome> {
    let file = File::from(fd.try_clone().ok()?);
    let mut bytes = vec![0; OUTCOME_BYTES];
    let read = file.read_at(&mut bytes, 0).ok()?;
    serde_json::from_slice(bytes.get(..read)?).ok()
}

/// Compares without telling by its time where the difference is.
fn same(a: &[u8; TAG], b: &[u8; TAG]) -> bool {
    a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// What the MAC is for; separates it from every other use of the key.
const PURPOSE: &str = "native-code/v1";
const TAG: usize = 32;
const OUTCOME_BYTES: usize = 64 << 10;
