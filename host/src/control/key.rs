//! Who an operator is: the X.509-SVID or the user's nkey of an operator file, read from its files. A key that others can read is
//! refused; it may have been read already.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use portcullis_identity::SpiffeId;
use portcullis_identity::statement::{Draft, Jti, SvidKey, UserSeed};
use zeroize::Zeroizing;

use crate::cli::error::{CliError, exit};
use crate::cli::files;
use crate::config::operator::OperatorConfig;
use crate::limits::{CONFIG_BYTES, NATS_FILE_BYTES};

/// Who signs.
#[derive(Debug)]
pub enum Key {
    /// An X.509-SVID.
    Svid(Arc<SvidKey>),
    /// A user's nkey.
    Nkey(UserSeed),
}

/// What is signed, and where it is good.
#[derive(Debug, Clone, Copy)]
pub struct ToSign<'a> {
    /// Who may believe it.
    pub audience: &'a str,
    /// The one place where it is good.
    pub place: &'a str,
    /// For how long.
    pub life: Duration,
    /// The version of the thing, where it is a document.
    pub version: Option<u64>,
}

impl Key {
    /// Reads the key that an operator file names.
    pub fn read(config: &OperatorConfig) -> Result<Self, CliError> {
        let most = u64::try_from(NATS_FILE_BYTES).unwrap_or(u64::MAX);
        match (&config.key.svid, &config.key.svid_key, &config.key.nkey) {
            (Some(chain), Some(key), None) => {
                private(key)?;
                let chain_pem = files::read_bytes(chain, most, "SVID")?;
                let key_pem = Zeroizing::new(files::read_bytes(key, most, "key of the SVID")?);
                let read = SvidKey::parse(&chain_pem, &key_pem);
                read.map(|key| Self::Svid(Arc::new(key))).map_err(|error| invalid(chain, &error, error.hint()))
            }
            (None, None, Some(path)) => {
                private(path)?;
                let text = Zeroizing::new(files::read_text(path, CONFIG_BYTES, "nkey seed")?);
                let seed = UserSeed::parse(text.trim_end());
                seed.map(Self::Nkey).map_err(|error| invalid(path, &error, error.hint()))
            }
            _ => Err(CliError::new(exit::CONFIG, "operator.key", "the operator file names not exactly one signer")
                .with_hint("svid and svid_key, or nkey")),
        }
    }

    /// The `iss` of its statements.
    pub fn issuer(&self) -> String {
        match self {
            Self::Svid(key) => key.svid().spiffe_id.to_string(),
            Self::Nkey(seed) => seed.public().to_string(),
        }
    }

    /// Its SPIFFE ID, where it has one.
    pub fn spiffe_id(&self) -> Option<&SpiffeId> {
        match self {
            Self::Svid(key) => Some(&key.svid().spiffe_id),
            Self::Nkey(_) => None,
        }
    }

    /// A statement about a payload.
    pub fn sign(&self, what: ToSign<'_>, jti: Jti, payload: &[u8]) -> Result<String, CliError> {
        let ToSign { audience, place, life, version } = what;
        let draft = match self {
            Self::Svid(key) => Draft::by_svid(key.signer(), audience, place, jti, life, payload),
            Self::Nkey(seed) => Draft::by_nkey(seed.public(), audience, place, jti, life, payload),
        };
        let draft = draft.map_err(CliError::internal)?;
        let draft = match version {
            Some(version) => draft.version(version),
            None => draft,
        };
        match self {
            Self::Svid(key) => key.sign_statement(&draft).ok_or_else(|| CliError::internal("no signature")),
            Self::Nkey(seed) => Ok(draft.token(&seed.sign(draft.signing_input().as_bytes()))),
        }
    }
}

fn invalid(path: &Path, why: &dyn std::fmt::Display, hint: &str) -> CliError {
    CliError::new(exit::CONFIG, "operator.key", format!("{}: {why}", path.display())).with_hint(hint)
}

/// A key that others can read is nobody's.
fn private(path: &Path) -> Result<(), CliError> {
    let mode = std::fs::metadata(path).map(|meta| meta.permissions().mode() & 0o7777);
    match mode {
        Ok(mode) if mode & 0o077 != 0 => {
            let message = format!("{} is open to others (mode {mode:04o})", path.display());
            Err(CliError::new(exit::CONFIG, "operator.key-open", message).with_hint("chmod 600 it, and make a new key"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &Path, key: &str) -> OperatorConfig {
        let text = format!(
            "version = 1\ntrust_domain = \"a.example\"\nbundle = \"b\"\ncluster = \"c\"\n[key]\n{key}\n[nats]\nservers = [\"tls://n:1\"]\naccount = \"A\"\ntls.ca = \"ca\"\nauth.nkey = \"n\"\n"
        );
        OperatorConfig::parse(&text, &folder.join("operator.toml")).unwrap()
    }

    fn refused(folder: &Path, key: &str) -> String {
        let error = Key::read(&config(folder, key)).unwrap_err();
        assert!(error.hint().is_some());
        error.code().to_owned()
    }

    #[test]
    fn a_seed_is_read_and_what_others_can_read_or_is_no_key_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let pair = portcullis_nkey::KeyPair::generate(portcullis_nkey::Kind::User).unwrap();
        let path = temp.path().join("operator.nk");
        files::write(&path, format!("{}\n", *pair.seed()).as_bytes(), 0o600, false).unwrap();
        let key = Key::read(&config(temp.path(), "nkey = \"operator.nk\"")).unwrap();
        assert_eq!(key.issuer(), pair.public().to_string());
        assert!(key.spiffe_id().is_none() && !format!("{key:?}").contains(pair.seed().as_str()));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(refused(temp.path(), "nkey = \"operator.nk\""), "operator.key-open");
        let other = portcullis_nkey::KeyPair::generate(portcullis_nkey::Kind::Account).unwrap();
        files::write(&temp.path().join("other.nk"), other.seed().as_bytes(), 0o600, false).unwrap();
        assert_eq!(refused(temp.path(), "nkey = \"other.nk\""), "operator.key");
        assert_eq!(refused(temp.path(), "svid = \"other.nk\"\nsvid_key = \"other.nk\""), "operator.key");
        assert_eq!(refused(temp.path(), "nkey = \"missing.nk\""), "usage");
    }
}
