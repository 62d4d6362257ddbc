//! The certificate and key of an endpoint, as files of the operator, read again when they change.
//!
//! A key that others can read is refused. A pair that cannot be used leaves the one before in place, loudly.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use portcullis_identity::federation::WebCertificate;
use portcullis_identity::limits::MAX_WEB_CERTIFICATE_BYTES;
use zeroize::Zeroizing;

use crate::limits::CERTIFICATE_POLL;

/// A certificate file and its key file.
pub(super) struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    looked: Option<Instant>,
    stamp: Option<[Stamp; 2]>,
    current: Option<WebCertificate>,
}

/// Tells one content of a file from another without reading it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl CertificateFiles {
    /// Reads these files.
    pub(super) fn new(certificate: &Path, key: &Path) -> Self {
        let files =
            Self { certificate: certificate.to_owned(), key: key.to_owned(), state: Mutex::new(State::default()) };
        files.current();
        files
    }

    /// The pair of now; `None`: there never was one that can be used.
    pub(super) fn current(&self) -> Option<WebCertificate> {
        let mut state = self.state.lock().ok()?;
        if state.looked.is_none_or(|at| at.elapsed() >= CERTIFICATE_POLL) {
            state.looked = Some(Instant::now());
            self.look(&mut state);
        }
        state.current.clone()
    }

    fn look(&self, state: &mut State) {
        let stamps = stamp(&self.certificate).and_then(|one| Ok([one, stamp(&self.key)?]));
        if stamps.as_ref().is_ok_and(|stamps| state.stamp == Some(*stamps)) {
            return;
        }
        let read = stamps.and_then(|stamps| {
            state.stamp = Some(stamps);
            let chain = read(&self.certificate, false)?;
            let key = read(&self.key, true)?;
            WebCertificate::from_pem(&chain, &key).map_err(|error| format!("{error}; hint: {}", error.hint()))
        });
        match read {
            Ok(certificate) => {
                tracing::info!(certificate = %self.certificate.display(), "an endpoint's certificate was read");
                state.current = Some(certificate);
            }
            Err(why) => {
                let held = state.current.is_some();
                tracing::error!(certificate = %self.certificate.display(), why, held, "an endpoint's certificate cannot be used");
            }
        }
    }
}

fn stamp(path: &Path) -> Result<Stamp, String> {
    let meta = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Stamp { inode: meta.ino(), size: meta.len(), seconds: meta.mtime(), nanoseconds: meta.mtime_nsec() })
}

fn read(path: &Path, private: bool) -> Result<Zeroizing<Vec<u8>>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    let ours = meta.uid() == rustix::process::geteuid().as_raw() || meta.uid() == 0;
    if private && (meta.mode() & 0o077 != 0 || !ours) {
        let mode = meta.mode() & 0o7777;
        return Err(format!("{}: others can read it (mode {mode:04o}); hint: chmod 600 it", path.display()));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_WEB_CERTIFICATE_BYTES + 1));
    file.take(MAX_WEB_CERTIFICATE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn write(path: &Path, bytes: &[u8], mode: u32) {
        std::fs::write(path, bytes).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        for mode in [0o640, 0o604, 0o660] {
            write(&path, b"x", mode);
            assert!(read(&path, true).unwrap_err().contains("others can read"), "{mode:o}");
        }
        write(&path, b"x", 0o600);
        assert_eq!(read(&path, true).unwrap().as_slice(), b"x");
        assert!(CertificateFiles::new(&path, &path).current().is_none(), "text that is no PEM");
    }
}
