//! Where the issuer's state lies: the journal and the keys, each key in a file of the key directory or in a PKCS#11 token.
//!
//! Keys in a token are labelled with the directory's own tag, so that several hosts may share a token. Decides nothing; says
//! whether a key is there, not there, or out of reach. A key that is no longer named by the journal is destroyed.

#[cfg(feature = "pkcs11")]
use std::sync::Arc;

use ring::rand::SystemRandom;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::authority::AuthorityKind;
use crate::authority_key::{AuthorityKey, KeyAlgorithm};
use crate::excerpt::Excerpt;
use crate::hex::hex;
use crate::host_mac::HostMac;
use crate::issuer_error::IssuerError;
use crate::issuer_options::{IssuerOptions, KeyPlace, Pkcs11Options};
use crate::journal::{Entry, Journal, KeyName};
use crate::key_store::KeyStore;
use crate::limits::{MAX_JOURNAL_BYTES, MAX_KEY_FILE_BYTES};
use crate::p256_key::{P256Key, SignatureForm};
#[cfg(feature = "pkcs11")]
use crate::pkcs11::Token;
use crate::rsa_key::RsaKey;
use crate::secret::Secret;
use crate::spare_key::SpareKey;
use crate::stored_key::{KeyKind, StoredKey};
#[cfg(feature = "pkcs11")]
use crate::token_key::TokenKey;
use crate::trust_domain::TrustDomain;

/// The key directory, and the token if there is one.
pub(crate) struct Vault {
    pub(crate) store: KeyStore,
    pub(crate) trust_domain: TrustDomain,
    keys: KeyPlace,
    /// Tells this directory's keys from others' in the same token; empty until it is known.
    tag: String,
    /// Made ahead, for where making one takes long.
    pub(crate) spare: Spare,
    #[cfg(feature = "pkcs11")]
    token: Option<Arc<Token>>,
}

/// A key that was made ahead, until it is used.
pub(crate) type Spare = std::sync::Mutex<Option<SpareKey>>;

impl Vault {
    /// The vault of this directory.
    pub(crate) fn new(store: KeyStore, trust_domain: &TrustDomain, options: &IssuerOptions) -> Self {
        Self {
            store,
            trust_domain: trust_domain.clone(),
            keys: options.keys.clone(),
            tag: String::new(),
            spare: Spare::default(),
            #[cfg(feature = "pkcs11")]
            token: match &options.keys {
                KeyPlace::Pkcs11(options) => Some(Arc::new(Token::new(options))),
                KeyPlace::Disk => None,
            },
        }
    }

    /// Whether keys that take long to make are made here, and none is made ahead.
    pub(crate) fn wants_spare(&self) -> bool {
        matches!(self.keys, KeyPlace::Disk) && self.spare.lock().is_ok_and(|spare| spare.is_none())
    }

    /// Names this directory in labels.
    pub(crate) fn set_tag(&mut self, mac: &HostMac) {
        let tag = mac.mac("pkcs11 key labels", self.trust_domain.as_str().as_bytes());
        self.tag = hex(tag.get(..8).unwrap_or_default());
    }

    /// A new key for this kind of authority, already where it lies for good.
    pub(crate) fn make(
        &self,
        kind: AuthorityKind,
        algorithm: KeyAlgorithm,
        now: OffsetDateTime,
    ) -> Result<(KeyName, AuthorityKey), IssuerError> {
        let random = Secret::<8>::random(&SystemRandom::new()).ok_or(IssuerError::Creation("no randomness"))?;
        let random = hex(random.expose());
        match &self.keys {
            KeyPlace::Disk => {
                let spare = match algorithm {
                    KeyAlgorithm::Rs256 => self.spare.lock().ok().and_then(|mut spare| spare.take()),
                    KeyAlgorithm::Es256 => None,
                };
                let key = match spare {
                    Some(SpareKey(key)) => AuthorityKey::Rsa(key),
                    None => {
                        AuthorityKey::generate(algorithm, form(kind)).map_err(|_| IssuerError::Creation("no key"))?
                    }
                };
                let name = format!("{}-{random}{KEY_FILE}", kind.name());
                self.write(&name, stored(kind, &self.trust_domain, &key, now)?)?;
                Ok((KeyName::File(name), key))
            }
            KeyPlace::Pkcs11(options) => self.make_in_token(options, kind, algorithm, &random),
        }
    }

    #[cfg(feature = "pkcs11")]
    fn make_in_token(
        &self,
        options: &Pkcs11Options,
        kind: AuthorityKind,
        algorithm: KeyAlgorithm,
        random: &str,
    ) -> Result<(KeyName, AuthorityKey), IssuerError> {
        let token = self.token.as_ref().ok_or_else(|| no_token(options))?;
        let label = format!("{}{}-{random}", self.prefix()?, kind.name());
        let key = TokenKey::generate(token, &label, algorithm, form(kind))?;
        Ok((KeyName::Pkcs11(label), AuthorityKey::Token(Box::new(key))))
    }

    #[cfg(not(feature = "pkcs11"))]
    #[expect(clippy::unused_self, reason = "as with the feature")]
    fn make_in_token(
        &self,
        options: &Pkcs11Options,
        _kind: AuthorityKind,
        _algorithm: KeyAlgorithm,
        _random: &str,
    ) -> Result<(KeyName, AuthorityKey), IssuerError> {
        Err(no_token(options))
    }

    /// How the labels of this directory's keys begin.
    #[cfg(feature = "pkcs11")]
    fn prefix(&self) -> Result<String, IssuerError> {
        if self.tag.is_empty() {
            return Err(IssuerError::Creation("the tag of the key directory"));
        }
        Ok(format!("portcullis/{}/", self.tag))
    }

    /// The private key of an authority; `None` if it is not there any more, an error if that cannot be told.
    pub(crate) fn load(&self, entry: &Entry) -> Result<Option<AuthorityKey>, IssuerError> {
        match &entry.key {
            None => Ok(None),
            Some(KeyName::File(name)) => self.load_file(name, entry),
            Some(KeyName::Pkcs11(label)) => self.load_from_token(label, entry),
        }
    }

    fn load_file(&self, name: &str, entry: &Entry) -> Result<Option<AuthorityKey>, IssuerError> {
        let Some(file) = self.read(name, file_kind(entry.kind))? else { return Ok(None) };
        let key = key_of(entry.kind, &file).map_err(|reason| self.damaged(name, reason))?;
        if key.public() != entry.public || key.algorithm() != entry.algorithm {
            return Err(self.damaged(name, "it holds another key than the journal says"));
        }
        Ok(Some(key))
    }

    #[cfg(feature = "pkcs11")]
    fn load_from_token(&self, label: &str, entry: &Entry) -> Result<Option<AuthorityKey>, IssuerError> {
        let Some(token) = &self.token else { return Err(IssuerError::Creation(NO_TOKEN)) };
        let key = TokenKey::find(token, label, entry.algorithm, form(entry.kind), &entry.public)?;
        Ok(key.map(|key| AuthorityKey::Token(Box::new(key))))
    }

    #[cfg(not(feature = "pkcs11"))]
    #[expect(clippy::unused_self, reason = "as with the feature")]
    fn load_from_token(&self, _label: &str, _entry: &Entry) -> Result<Option<AuthorityKey>, IssuerError> {
        Err(IssuerError::Creation(NO_TOKEN))
    }

    /// The key is wanted no more.
    pub(crate) fn destroy(&self, name: &KeyName) -> Result<(), IssuerError> {
        match name {
            KeyName::File(name) => self.store.remove(name),
            #[cfg(feature = "pkcs11")]
            KeyName::Pkcs11(label) => self.token.as_ref().map_or(Ok(()), |token| token.destroy(label)),
            #[cfg(not(feature = "pkcs11"))]
            KeyName::Pkcs11(_) => Ok(()),
        }
    }

    /// Destroys the keys that the journal does not name: those of a change that a crash cut off.
    pub(crate) fn sweep(&self, journal: &Journal) -> Result<(), IssuerError> {
        for name in self.store.names(KEY_FILE)? {
            let named = journal.entries.iter().any(|entry| entry.key == Some(KeyName::File(name.clone())));
            if !named && name != MAC_FILE {
                self.store.remove(&name)?;
            }
        }
        #[cfg(feature = "pkcs11")]
        if let Some(token) = &self.token {
            for label in token.labels(&self.prefix()?)? {
                if !journal.entries.iter().any(|entry| entry.key == Some(KeyName::Pkcs11(label.clone()))) {
                    token.destroy(&label)?;
                }
            }
        }
        Ok(())
    }

    /// The key file of this name, if there is one.
    pub(crate) fn read(&self, name: &str, kind: KeyKind) -> Result<Option<StoredKey>, IssuerError> {
        let Some(bytes) = self.store.read(name, MAX_KEY_FILE_BYTES)? else { return Ok(None) };
        let stored = StoredKey::from_bytes(&bytes, kind).map_err(|reason| self.damaged(name, reason))?;
        self.check_domain(name, &stored.trust_domain)?;
        Ok(Some(stored))
    }

    pub(crate) fn write(&self, name: &str, stored: StoredKey) -> Result<(), IssuerError> {
        let bytes = stored.to_bytes().ok_or(IssuerError::Creation("the key file"))?;
        self.store.write(name, &bytes)
    }

    /// The journal, if there is one.
    pub(crate) fn read_journal(&self) -> Result<Option<Journal>, IssuerError> {
        let Some(bytes) = self.store.read(JOURNAL_FILE, MAX_JOURNAL_BYTES)? else { return Ok(None) };
        let journal = Journal::from_bytes(&bytes).map_err(|reason| self.damaged(JOURNAL_FILE, reason))?;
        self.check_domain(JOURNAL_FILE, &journal.trust_domain)?;
        Ok(Some(journal))
    }

    pub(crate) fn write_journal(&self, journal: &Journal) -> Result<(), IssuerError> {
        journal.check().map_err(IssuerError::Creation)?;
        let bytes = journal.to_bytes().ok_or(IssuerError::Creation("the journal"))?;
        self.store.write(JOURNAL_FILE, &bytes)
    }

    pub(crate) fn damaged(&self, name: &str, reason: &'static str) -> IssuerError {
        IssuerError::Damaged { path: self.store.path(name), reason }
    }

    fn check_domain(&self, name: &str, found: &TrustDomain) -> Result<(), IssuerError> {
        if *found == self.trust_domain {
            return Ok(());
        }
        let (path, expected) = (self.store.path(name), self.trust_domain.clone());
        Err(IssuerError::ForeignDomain { path, found: found.clone(), expected })
    }
}

/// The private key of a file.
pub(crate) fn key_of(kind: AuthorityKind, file: &StoredKey) -> Result<AuthorityKey, &'static str> {
    match file.algorithm {
        KeyAlgorithm::Es256 => P256Key::from_parts(form(kind), &file.secret, &file.public)
            .map(AuthorityKey::P256)
            .map_err(|_| "its private and public key do not belong together"),
        KeyAlgorithm::Rs256 => RsaKey::from_pkcs8(&file.secret)
            .map(|key| AuthorityKey::Rsa(Box::new(key)))
            .map_err(|_| "its RSA key cannot be used"),
    }
}

/// What the file of such an authority says that it is for.
pub(crate) fn file_kind(kind: AuthorityKind) -> KeyKind {
    match kind {
        AuthorityKind::X509 => KeyKind::X509Authority,
        AuthorityKind::Jwt => KeyKind::JwtAuthority,
        AuthorityKind::Wit => KeyKind::WitAuthority,
    }
}

fn form(kind: AuthorityKind) -> SignatureForm {
    match kind {
        AuthorityKind::X509 => SignatureForm::Asn1,
        AuthorityKind::Jwt | AuthorityKind::Wit => SignatureForm::Fixed,
    }
}

fn stored(
    kind: AuthorityKind,
    trust_domain: &TrustDomain,
    key: &AuthorityKey,
    created_at: OffsetDateTime,
) -> Result<StoredKey, IssuerError> {
    let (secret, public) = match key {
        AuthorityKey::P256(key) => (Zeroizing::new(key.scalar().expose().to_vec()), key.public().to_vec()),
        AuthorityKey::Rsa(key) => (Zeroizing::new(key.pkcs8().to_vec()), Vec::new()),
        #[cfg(feature = "pkcs11")]
        AuthorityKey::Token(_) => return Err(IssuerError::Creation("a key in a token has no file")),
    };
    Ok(StoredKey {
        kind: file_kind(kind),
        trust_domain: trust_domain.clone(),
        created_at,
        not_after: None,
        algorithm: key.algorithm(),
        secret,
        public,
        certificate: Vec::new(),
    })
}

fn no_token(options: &Pkcs11Options) -> IssuerError {
    let (module, label) = (options.module.clone(), options.token_label.clone());
    IssuerError::Token { module, label, reason: Excerpt::new("this program was built without PKCS#11") }
}

const NO_TOKEN: &str = "the journal names a key in a PKCS#11 token, and none is configured";

/// The journal's file.
pub(crate) const JOURNAL_FILE: &str = "journal.json";
/// The host's MAC key.
pub(crate) const MAC_FILE: &str = "mac.key";
const KEY_FILE: &str = ".key";
