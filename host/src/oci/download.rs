//! One blob, whole: asked for by digest, taken up again where it broke off, hashed at the end.
//!
//! Nothing is handed on before the digest is right. Where a file to resume from is given, what came so far is kept in it.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use portcullis_signing::oci::Descriptor;
use portcullis_signing::{ComponentBytes, Excerpt};
use reqwest::StatusCode;

use super::RegistryError;
use super::error::reason;
use super::reader::Reader;
use crate::limits::{BLOB_PAUSE, BLOB_TRIES, REGISTRY_CALL, REGISTRY_IDLE};

/// Where an unfinished download is kept.
#[derive(Debug)]
pub struct Resume(PathBuf);

impl Resume {
    /// A hidden file in `folder`, named by the digest.
    pub fn in_folder(folder: &Path, blob: &Descriptor) -> Self {
        Self(folder.join(format!(".portcullis-{}.part", blob.digest().hex())))
    }

    /// What is there already.
    fn read(&self, max: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let read = self.open(false).and_then(|file| file.take(max.saturating_add(1)).read_to_end(&mut bytes));
        if read.is_ok() { bytes } else { Vec::new() }
    }

    /// Never through a link: somebody else may have put one there.
    fn open(&self, truncate: bool) -> std::io::Result<File> {
        let mut options = File::options();
        options.read(true).append(!truncate).write(true).truncate(truncate).create(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600).custom_flags(libc::O_NOFOLLOW);
        }
        options.open(&self.0)
    }

    fn clear(&self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Fetches a blob of at most `max` bytes.
pub(super) async fn blob(
    reader: &Reader,
    blob: &Descriptor,
    max: u64,
    what: &str,
    resume: Option<&Resume>,
    bar: &ProgressBar,
) -> Result<ComponentBytes, RegistryError> {
    if blob.size() > max {
        return Err(RegistryError::TooLarge { what: what.to_owned(), max });
    }
    let mut bytes = resume.map(|resume| resume.read(blob.size())).unwrap_or_default();
    let resumed = !bytes.is_empty();
    let found = whole(reader, blob, bytes, resume, bar).await?;
    if found.digest() == blob.digest() {
        return Ok(found);
    }
    if resumed {
        // What lay there may have been something else: once more from the start.
        if let Some(resume) = resume {
            resume.clear();
        }
        bytes = Vec::new();
        let found = whole(reader, blob, bytes, resume, bar).await?;
        if found.digest() == blob.digest() {
            return Ok(found);
        }
    }
    if let Some(resume) = resume {
        resume.clear();
    }
    Err(RegistryError::OtherBytes { wanted: *blob.digest(), found: *found.digest() })
}

/// Removes what was kept of a download that is finished.
pub(super) fn finished(resume: Option<&Resume>) {
    if let Some(resume) = resume {
        resume.clear();
    }
}

async fn whole(
    reader: &Reader,
    blob: &Descriptor,
    mut bytes: Vec<u8>,
    resume: Option<&Resume>,
    bar: &ProgressBar,
) -> Result<ComponentBytes, RegistryError> {
    let registry = reader.registry();
    if bytes.len() as u64 > blob.size() {
        bytes.clear();
    }
    let mut file = match resume {
        None => None,
        Some(resume) => Some(resume.open(bytes.is_empty()).map_err(|error| local(&resume.0, &error))?),
    };
    let mut tries = 0;
    while (bytes.len() as u64) < blob.size() {
        bar.set_position(bytes.len() as u64);
        let before = bytes.len();
        let failure = match part(reader, blob, &mut bytes, bar).await {
            Ok(()) if bytes.len() as u64 == blob.size() => None,
            Ok(()) => Some(RegistryError::Unreachable {
                registry: registry.to_owned(),
                why: "the connection broke off".to_owned(),
            }),
            Err(error) => Some(error),
        };
        if let (Some(file), Some(resume)) = (&mut file, resume) {
            // The registry may have begun again at the start.
            let new = if bytes.len() < before { None } else { bytes.get(before..) };
            let kept = match new {
                Some(new) => file.write_all(new),
                None => resume.open(true).and_then(|mut file| file.write_all(&bytes)),
            };
            kept.map_err(|error| local(&resume.0, &error))?;
        }
        match failure {
            None => break,
            // An answer stays what it is; a broken connection is tried again.
            Some(error @ RegistryError::Unreachable { .. }) => {
                tries = if bytes.len() > before { 1 } else { tries + 1 };
                if tries >= BLOB_TRIES {
                    return Err(error);
                }
                tokio::time::sleep(BLOB_PAUSE * tries).await;
            }
            Some(error) => return Err(error),
        }
    }
    bar.set_position(bytes.len() as u64);
    Ok(ComponentBytes::from_vec(bytes))
}

/// One request: appends what comes to `bytes`, never more than the blob has.
async fn part(reader: &Reader, blob: &Descriptor, bytes: &mut Vec<u8>, bar: &ProgressBar) -> Result<(), RegistryError> {
    let registry = reader.registry();
    let broken = |why: String| RegistryError::Unreachable { registry: registry.to_owned(), why };
    let asked = tokio::time::timeout(REGISTRY_CALL, reader.blob(blob.digest(), bytes.len() as u64)).await;
    let mut answer =
        asked.map_err(|_| broken("no answer in time".to_owned()))?.map_err(|error| broken(reason(&error)))?;
    match answer.status() {
        StatusCode::PARTIAL_CONTENT if !bytes.is_empty() => {}
        // From the start, whatever was asked for.
        StatusCode::OK => bytes.clear(),
        status => return Err(refused(registry, status, answer).await),
    }
    loop {
        let next = tokio::time::timeout(REGISTRY_IDLE, answer.chunk())
            .await
            .map_err(|_| broken("no more data in time".to_owned()))?;
        match next {
            Ok(None) => return Ok(()),
            // The digest is checked over all of it, afterwards.
            Err(_) if bytes.len() as u64 == blob.size() => return Ok(()),
            Err(error) => return Err(broken(reason(&error))),
            Ok(Some(chunk)) => {
                if (bytes.len() + chunk.len()) as u64 > blob.size() {
                    let what = format!("what the registry gives for {}", blob.digest());
                    return Err(RegistryError::TooLarge { what, max: blob.size() });
                }
                bytes.extend_from_slice(&chunk);
                bar.set_position(bytes.len() as u64);
            }
        }
    }
}

/// What is said with a refusal is shown, as far as it came at once.
async fn refused(registry: &str, status: StatusCode, mut answer: reqwest::Response) -> RegistryError {
    let registry = registry.to_owned();
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return RegistryError::Unauthorized { registry, what: "read a blob" };
    }
    let said = tokio::time::timeout(REGISTRY_CALL, answer.chunk()).await.ok().and_then(Result::ok).flatten();
    let said = String::from_utf8_lossy(said.as_deref().unwrap_or_default()).into_owned();
    let status = format!("{} ({})", status.as_u16(), Excerpt(said.trim()));
    RegistryError::Answer { registry, status, what: "read a blob".to_owned() }
}

fn local(path: &Path, error: &std::io::Error) -> RegistryError {
    RegistryError::Local(format!("{} cannot be written: {error}", path.display()))
}
