//! Secret files: read once, at the start, and only where nobody else can read them.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use super::service::CalloutError;

/// The text of a secret file: a regular file of this user, mode 0600 or narrower, of at most [`SECRET_BYTES`].
pub fn read(path: &Path) -> Result<Zeroizing<String>, CalloutError> {
    let problem = |why: String, hint: &'static str| CalloutError::file(path, why, hint);
    let mut file =
        File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path).map_err(|error| {
            problem(format!("cannot be read: {error}"), "is the path right, relative to callout.toml?")
        })?;
    let meta = file.metadata().map_err(|error| problem(error.to_string(), ""))?;
    if !meta.is_file() {
        return Err(problem("is not a regular file".to_owned(), "name the file itself"));
    }
    if meta.mode() & 0o077 != 0 {
        let why = format!("has mode {:04o}: others can read the secret in it", meta.mode() & 0o7777);
        return Err(problem(why, "chmod 600 it, and take the secret for known"));
    }
    let own = rustix::process::geteuid().as_raw();
    if meta.uid() != own && meta.uid() != 0 {
        return Err(problem("belongs to another user".to_owned(), "chown it to the user that runs the callout"));
    }
    if meta.len() == 0 || meta.len() > SECRET_BYTES {
        return Err(problem(
            format!("has not 1 to {SECRET_BYTES} bytes"),
            "it holds one seed, or one credentials file",
        ));
    }
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(meta.len()).unwrap_or_default() + 1));
    let read = file.by_ref().take(SECRET_BYTES + 1).read_to_string(&mut text);
    read.map_err(|_| problem("is not text".to_owned(), "it holds one seed, or one credentials file"))?;
    Ok(text)
}

const SECRET_BYTES: u64 = 16 << 10;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_that_others_can_read_is_refused_and_never_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed");
        std::fs::write(&path, "SECRET").unwrap();
        for (mode, is_taken) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o644, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let read = read(&path);
            assert_eq!(read.is_ok(), is_taken, "{mode:o}");
            assert!(read.err().is_none_or(|error| !error.to_string().contains("SECRET")));
        }
        assert!(read(dir.path()).is_err() && read(&dir.path().join("none")).is_err());
    }

    #[test]
    fn a_secret_has_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed");
        let size = usize::try_from(SECRET_BYTES).unwrap();
        for (bytes, is_taken) in [(0, false), (1, true), (size, true), (size + 1, false)] {
            std::fs::write(&path, "x".repeat(bytes)).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert_eq!(read(&path).is_ok(), is_taken, "{bytes}");
        }
    }
}
