//! The files behind a connection, for the process that may read them: read anew each time, refused where others can read them.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use portcullis_identity::statement::SvidKey;
use portcullis_identity::{NatsCredentials, NatsKey, NatsSeed};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::credentials::ConnectSecrets;
use crate::config::nats::NatsAuth;
use crate::limits::NATS_FILE_BYTES;

/// The secrets of one connection.
#[derive(Debug)]
pub struct Secrets {
    auth: NatsAuth,
}

impl Secrets {
    /// Those that the configuration names.
    pub fn new(auth: NatsAuth) -> Self {
        Self { auth }
    }

    /// What the configuration says.
    pub fn auth(&self) -> &NatsAuth {
        &self.auth
    }

    /// What CONNECT says; `token` is the JWT-SVID where one is shown.
    pub fn credential(
        &self,
        nonce: &[u8],
        token: Option<Zeroizing<String>>,
        now: OffsetDateTime,
    ) -> Result<ConnectSecrets, String> {
        let auth = &self.auth;
        let mut shown = ConnectSecrets::default();
        if let Some(path) = &auth.credentials {
            let file = text(path)?;
            let credentials = NatsCredentials::parse(&file).and_then(|file| file.check(now).map(|()| file));
            let credentials = credentials.map_err(|error| said(path, &error, error.hint()))?;
            shown.jwt = Some(Zeroizing::new(credentials.token().to_owned()));
            shown.signature =
                Some(credentials.seed().sign(nonce).map_err(|error| format!("{error}; hint: {}", error.hint()))?);
        }
        if let Some(path) = &auth.nkey {
            let seed = NatsSeed::parse(&text(path)?).map_err(|error| said(path, &error, error.hint()))?;
            shown.signature = Some(seed.sign(nonce).map_err(|error| format!("{error}; hint: {}", error.hint()))?);
            shown.nkey = Some(seed.public().to_owned());
        }
        if auth.jwt_audience.is_some() {
            shown.token = Some(token.ok_or("there is no JWT-SVID here")?);
        }
        if let Some(path) = &auth.password {
            shown.user.clone_from(&auth.user);
            shown.password = Some(line(path)?);
        }
        if let Some(path) = &auth.token {
            shown.token = Some(line(path)?);
        }
        Ok(shown)
    }

    /// The public key of the nkey, where there is one: what a JWT-SVID beside it is bound to.
    pub fn nkey(&self) -> Result<Option<String>, String> {
        let Some(path) = &self.auth.nkey else { return Ok(None) };
        let seed = NatsSeed::parse(&text(path)?).map_err(|error| said(path, &error, error.hint()))?;
        Ok(Some(seed.public().to_owned()))
    }

    /// Whom a server that lets this in takes it for, as far as it says so itself: the public half of its nkey, its user's name, the SPIFFE
    /// ID of its certificate.
    pub fn says(&self) -> Option<String> {
        let NatsAuth { credentials, certificate, key, .. } = &self.auth;
        if let Some(path) = credentials {
            return Some(NatsCredentials::parse(&text(path).ok()?).ok()?.seed().public().to_owned());
        }
        if let Some(nkey) = self.nkey().ok()? {
            return Some(nkey);
        }
        if let Some(user) = &self.auth.user {
            return Some(user.clone());
        }
        let (chain, secret) = (read(certificate.as_deref()?, false).ok()?, read(key.as_deref()?, true).ok()?);
        Some(SvidKey::parse(&chain, &secret).ok()?.svid().spiffe_id.to_string())
    }

    /// The certificate and its key, from files.
    pub fn certificate(&self, now: OffsetDateTime) -> Result<NatsKey, String> {
        let (Some(certificate), Some(key)) = (&self.auth.certificate, &self.auth.key) else {
            return Err("no certificate is configured".to_owned());
        };
        let (chain, secret) = (read(certificate, false)?, read(key, true)?);
        let pair = NatsKey::from_pem(&chain, &secret).and_then(|pair| pair.check(now).map(|()| pair));
        pair.map_err(|error| said(certificate, &error, error.hint()))
    }

    /// Whether everything that comes from files can be used now.
    pub fn usable(&self, now: OffsetDateTime) -> Result<(), String> {
        let placeholder = self.auth.jwt_audience.as_ref().map(|_| Zeroizing::new(String::new()));
        self.credential(ANY_NONCE, placeholder, now)?;
        if self.auth.certificate.is_some() {
            self.certificate(now)?;
        }
        Ok(())
    }

    /// Tells one content of the files from another without reading them.
    pub fn fingerprint(&self) -> u64 {
        use std::hash::{Hash as _, Hasher as _};
        let mut hasher = std::hash::DefaultHasher::new();
        for path in self.auth.files() {
            match std::fs::metadata(path) {
                Ok(meta) => {
                    (meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec(), meta.mode(), meta.uid())
                        .hash(&mut hasher);
                }
                Err(_) => 0_u8.hash(&mut hasher),
            }
        }
        hasher.finish()
    }
}

fn said(path: &Path, error: &dyn std::fmt::Display, hint: &str) -> String {
    format!("{}: {error}; hint: {hint}", path.display())
}

/// A secret of one line: without its end, and without anything that CONNECT could not carry.
fn line(path: &Path) -> Result<Zeroizing<String>, String> {
    let text = text(path)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.contains(char::is_control) {
        return Err(format!("{}: it must hold one line; hint: write the secret and nothing else", path.display()));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

/// The text of a file that nobody else can read.
pub fn text(path: &Path) -> Result<Zeroizing<String>, String> {
    let bytes = read(path, true)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| format!("{}: it is no text", path.display()))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn read(path: &Path, private: bool) -> Result<Zeroizing<Vec<u8>>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    let ours = meta.uid() == rustix::process::geteuid().as_raw() || meta.uid() == 0;
    if !meta.is_file() {
        return Err(format!("{}: it is no file", path.display()));
    }
    if private && (meta.mode() & 0o077 != 0 || !ours) {
        let mode = meta.mode() & 0o7777;
        return Err(format!("{}: others can read it (mode {mode:04o}); hint: chmod 600 it", path.display()));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(NATS_FILE_BYTES + 1));
    file.take(NATS_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > NATS_FILE_BYTES {
        return Err(format!("{}: it is larger than {NATS_FILE_BYTES} bytes", path.display()));
    }
    Ok(bytes)
}

/// Signed to see whether a key can be used; no server sends it.
const ANY_NONCE: &[u8] = b"-";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::*;

    fn write(dir: &Path, name: &str, content: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_secret_is_one_line_of_a_file_that_nobody_else_can_read() {
        let dir = tempfile::tempdir().unwrap();
        for (content, taken) in [("secret\n", Some("secret")), ("a b\r\n", Some("a b")), ("\n", None), ("a\nb\n", None)]
        {
            let path = write(dir.path(), "token", content, 0o600);
            assert_eq!(line(&path).ok().as_deref().map(String::as_str), taken, "{content:?}");
        }
        for mode in [0o640, 0o604, 0o660] {
            let path = write(dir.path(), "token", "secret", mode);
            assert!(line(&path).unwrap_err().contains("others can read it"), "{mode:o}");
        }
        assert!(line(dir.path()).unwrap_err().contains("no file"));
        assert!(line(&dir.path().join("absent")).is_err());
    }

    #[test]
    fn the_largest_file_is_read_and_a_larger_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), "token", vec![b'a'; NATS_FILE_BYTES], 0o600);
        assert_eq!(line(&path).unwrap().len(), NATS_FILE_BYTES);
        let path = write(dir.path(), "token", vec![b'a'; NATS_FILE_BYTES + 1], 0o600);
        assert!(line(&path).unwrap_err().contains("larger"));
    }

    #[test]
    fn a_replaced_file_has_another_fingerprint() {
        let dir = tempfile::tempdir().unwrap();
        let token = Some(write(dir.path(), "token", "one", 0o600));
        let secrets = Secrets::new(NatsAuth { token, ..NatsAuth::default() });
        let before = secrets.fingerprint();
        assert_eq!(secrets.fingerprint(), before);
        let new = write(dir.path(), "new", "two", 0o600);
        std::fs::rename(new, dir.path().join("token")).unwrap();
        assert_ne!(secrets.fingerprint(), before);
        assert!(secrets.usable(OffsetDateTime::UNIX_EPOCH).is_ok());
        std::fs::remove_file(dir.path().join("token")).unwrap();
        assert!(secrets.usable(OffsetDateTime::UNIX_EPOCH).is_err());
    }
}
