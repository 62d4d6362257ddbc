//! A PKCS#11 token that holds the private keys of authorities: made in it, never to leave it.
//!
//! Trusts the vendor's library that the operator named: it runs in this process. Refuses a token whose label is not unique,
//! and keys that the token does not vouch for as made there, sensitive and never extractable. A PIN that was refused is not
//! tried again until it is changed, so that the token does not lock itself. A token that goes away is looked for again with
//! each use; one that does not answer is waited for once (see `bounded`).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use ring::digest::{SHA256, digest};

use crate::authority_key::KeyAlgorithm;
use crate::bounded::{Bounded, Stuck};
use crate::excerpt::Excerpt;
use crate::issuer_error::IssuerError;
use crate::issuer_options::Pkcs11Options;
use crate::key_store::read_owned;
use crate::limits::{MAX_PIN_BYTES, TOKEN_CALL};
use crate::public_key::PublicKey;

/// The token, connected or not.
pub(crate) struct Token {
    options: Pkcs11Options,
    thread: Bounded<State>,
    away: Arc<AtomicBool>,
}

struct State {
    options: Pkcs11Options,
    connected: Option<Connected>,
    /// Digest of the PIN that the token refused.
    refused: Option<Vec<u8>>,
}

struct Connected {
    session: Session,
    library: Pkcs11,
    handles: HashMap<String, ObjectHandle>,
}

/// Why the token did not do it.
enum Failure {
    /// Its own words, or the library's.
    Library(Error),
    /// Ours.
    Refused(&'static str),
    /// The PIN file's.
    Pin(IssuerError),
}

impl Token {
    pub(crate) fn new(options: &Pkcs11Options) -> Self {
        let state = State { options: options.clone(), connected: None, refused: None };
        Self {
            options: options.clone(),
            thread: Bounded::new(state, TOKEN_CALL),
            away: Arc::new(AtomicBool::new(true)),
        }
    }

    /// Makes a key pair in the token.
    pub(crate) fn generate(&self, label: &str, algorithm: KeyAlgorithm) -> Result<PublicKey, IssuerError> {
        let label = label.to_owned();
        self.with(move |connected| connected.generate(&label, algorithm))
    }

    /// Whether the private key of this label is there and is one that never could leave; [`None`] if it is not there.
    pub(crate) fn find(&self, label: &str) -> Result<Option<()>, IssuerError> {
        let label = label.to_owned();
        self.with(move |connected| match connected.private(&label)? {
            Some(handle) => {
                connected.vouched(handle)?;
                Ok(Some(()))
            }
            None => Ok(None),
        })
    }

    /// Signs the message with the key of this label: `r || s` over its SHA-256, or PKCS#1 v1.5.
    pub(crate) fn sign(&self, label: &str, algorithm: KeyAlgorithm, message: &[u8]) -> Result<Vec<u8>, IssuerError> {
        let (label, message) = (label.to_owned(), message.to_vec());
        self.with(move |connected| {
            let handle = connected.private(&label)?.ok_or(Failure::Refused("the key is not in the token any more"))?;
            let session = &connected.session;
            let signed = match algorithm {
                // Not every token hashes for ECDSA; each signs a digest.
                KeyAlgorithm::Es256 => session.sign(&Mechanism::Ecdsa, handle, digest(&SHA256, &message).as_ref()),
                KeyAlgorithm::Rs256 => session.sign(&Mechanism::Sha256RsaPkcs, handle, &message),
            };
            Ok(signed?)
        })
    }

    /// Destroys both halves of the key of this label, if they are there.
    pub(crate) fn destroy(&self, label: &str) -> Result<(), IssuerError> {
        let label = label.to_owned();
        self.with(move |connected| {
            connected.handles.remove(&label);
            for object in connected.session.find_objects(&[Attribute::Label(label.as_bytes().to_vec())])? {
                connected.session.destroy_object(object)?;
            }
            Ok(())
        })
    }

    /// The labels of the private keys that begin so.
    pub(crate) fn labels(&self, prefix: &str) -> Result<Vec<String>, IssuerError> {
        let prefix = prefix.to_owned();
        self.with(move |connected| {
            let mut labels = Vec::new();
            for object in connected.session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)])? {
                for attribute in connected.session.get_attributes(object, &[AttributeType::Label])? {
                    if let Attribute::Label(label) = attribute
                        && let Ok(label) = String::from_utf8(label)
                        && label.starts_with(&prefix)
                    {
                        labels.push(label);
                    }
                }
            }
            Ok(labels)
        })
    }

    /// Whether the last use failed, so that the token must be looked for again.
    pub(crate) fn is_away(&self) -> bool {
        self.thread.is_stuck() || self.away.load(Ordering::Acquire)
    }

    /// Connects if need be; after a failure the connection is given up, and the next use begins anew.
    fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Connected) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, IssuerError> {
        let away = Arc::clone(&self.away);
        let outcome = self.thread.run(move |state| {
            let outcome = state.connected().and_then(act);
            if outcome.is_err() {
                state.disconnect();
            }
            away.store(outcome.is_err(), Ordering::Release);
            outcome
        });
        let outcome = outcome.unwrap_or_else(|stuck| {
            Err(Failure::Refused(match stuck {
                Stuck::Slow => "its module did not answer in time",
                Stuck::Before => "its module has not come back from an earlier call",
                Stuck::Gone => "its module ended the thread that called it",
            }))
        });
        outcome.map_err(|failure| self.error(failure))
    }

    fn error(&self, failure: Failure) -> IssuerError {
        let reason = match failure {
            Failure::Library(error) => Excerpt::new(&error.to_string()),
            Failure::Refused(reason) => Excerpt::new(reason),
            Failure::Pin(error) => return error,
        };
        IssuerError::Token { module: self.options.module.clone(), label: self.options.token_label.clone(), reason }
    }
}

impl State {
    fn connected(&mut self) -> Result<&mut Connected, Failure> {
        if self.connected.is_none() {
            let library = Pkcs11::new(&self.options.module)?;
            match library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
                Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
                Err(error) => return Err(error.into()),
            }
            match self.log_in(&library) {
                Ok(session) => {
                    self.connected = Some(Connected { session, library, handles: HashMap::new() });
                }
                Err(failure) => {
                    // A library that is not finalised does not see a token that comes back.
                    let _ = library.finalize();
                    return Err(failure);
                }
            }
        }
        self.connected.as_mut().ok_or(Failure::Refused("no connection"))
    }

    fn log_in(&mut self, library: &Pkcs11) -> Result<Session, Failure> {
        let slot = self.slot(library)?;
        let pin = read_owned(&self.options.pin_file, MAX_PIN_BYTES)
            .map_err(Failure::Pin)?
            .ok_or(Failure::Refused("the PIN file is not there"))?;
        let text = std::str::from_utf8(&pin).map_err(|_| Failure::Refused("the PIN is not UTF-8"))?;
        let tag = digest(&SHA256, text.trim_end_matches(['\r', '\n']).as_bytes()).as_ref().to_vec();
        if self.refused.as_ref() == Some(&tag) {
            return Err(Failure::Refused(
                "the token refused this PIN; it is not tried again, or the token locks itself",
            ));
        }
        let session = library.open_rw_session(slot)?;
        match session.login(UserType::User, Some(&AuthPin::from(text.trim_end_matches(['\r', '\n'])))) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                self.refused = None;
                Ok(session)
            }
            Err(error) => {
                if matches!(error, Error::Pkcs11(RvError::PinIncorrect | RvError::PinLenRange | RvError::PinInvalid, _))
                {
                    self.refused = Some(tag);
                }
                Err(error.into())
            }
        }
    }

    fn slot(&self, library: &Pkcs11) -> Result<Slot, Failure> {
        let mut found = None;
        for slot in library.get_slots_with_initialized_token()? {
            if library.get_token_info(slot)?.label().trim_end() == self.options.token_label {
                if found.is_some() {
                    return Err(Failure::Refused("more than one token has this label"));
                }
                found = Some(slot);
            }
        }
        found.ok_or(Failure::Refused("no token has this label"))
    }

    fn disconnect(&mut self) {
        if let Some(Connected { session, library, .. }) = self.connected.take() {
            drop(session);
            let _ = library.finalize();
        }
    }
}

impl Connected {
    fn generate(&self, label: &str, algorithm: KeyAlgorithm) -> Result<PublicKey, Failure> {
        let named = Attribute::Label(label.as_bytes().to_vec());
        let id = Attribute::Id(digest(&SHA256, label.as_bytes()).as_ref().to_vec());
        let private = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            named.clone(),
            id.clone(),
        ];
        let mut public = vec![Attribute::Token(true), Attribute::Private(false), Attribute::Verify(true), named, id];
        let mechanism = match algorithm {
            KeyAlgorithm::Es256 => {
                public.push(Attribute::EcParams(P256_OID.to_vec()));
                Mechanism::EccKeyPairGen
            }
            KeyAlgorithm::Rs256 => {
                public.push(Attribute::ModulusBits(2048.into()));
                public.push(Attribute::PublicExponent(vec![1, 0, 1]));
                Mechanism::RsaPkcsKeyPairGen
            }
        };
        let (public, private) = self.session.generate_key_pair(&mechanism, &public, &private)?;
        let made = self.vouched(private).and_then(|()| self.public(public, algorithm));
        if made.is_err() {
            // Best effort: a key that is not used does no harm.
            let _ = (self.session.destroy_object(private), self.session.destroy_object(public));
        }
        made
    }

    /// Only a key that was made in the token and never could leave it is used.
    fn vouched(&self, private: ObjectHandle) -> Result<(), Failure> {
        let wanted = [
            AttributeType::Sensitive,
            AttributeType::AlwaysSensitive,
            AttributeType::Extractable,
            AttributeType::NeverExtractable,
            AttributeType::Local,
        ];
        let attributes = self.session.get_attributes(private, &wanted)?;
        let good = attributes.iter().filter(|attribute| {
            matches!(
                attribute,
                Attribute::Sensitive(true)
                    | Attribute::AlwaysSensitive(true)
                    | Attribute::Extractable(false)
                    | Attribute::NeverExtractable(true)
                    | Attribute::Local(true)
            )
        });
        if good.count() == wanted.len() {
            return Ok(());
        }
        Err(Failure::Refused("the token does not vouch for the key as made in it and never extractable"))
    }

    fn public(&self, public: ObjectHandle, algorithm: KeyAlgorithm) -> Result<PublicKey, Failure> {
        let wanted = match algorithm {
            KeyAlgorithm::Es256 => vec![AttributeType::EcPoint],
            KeyAlgorithm::Rs256 => vec![AttributeType::Modulus, AttributeType::PublicExponent],
        };
        let attributes = self.session.get_attributes(public, &wanted)?;
        match (attributes.as_slice(), algorithm) {
            ([Attribute::EcPoint(point)], KeyAlgorithm::Es256) => {
                // PKCS#11 wraps the point in an OCTET STRING; some tokens do not.
                let point = point.strip_prefix(&[0x04, 0x41]).unwrap_or(point);
                point
                    .try_into()
                    .map(PublicKey::P256)
                    .map_err(|_| Failure::Refused("the public key made is no P-256 point"))
            }
            ([Attribute::Modulus(n), Attribute::PublicExponent(e)], KeyAlgorithm::Rs256) => {
                let trim = |bytes: &[u8]| bytes.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<_>>();
                PublicKey::rsa(&trim(n), &trim(e)).map_err(Failure::Refused)
            }
            _ => Err(Failure::Refused("the token does not show the public key")),
        }
    }

    fn private(&mut self, label: &str) -> Result<Option<ObjectHandle>, Failure> {
        if let Some(handle) = self.handles.get(label) {
            return Ok(Some(*handle));
        }
        let template = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Label(label.as_bytes().to_vec())];
        match self.session.find_objects(&template)?.as_slice() {
            [] => Ok(None),
            [handle] => {
                self.handles.insert(label.to_owned(), *handle);
                Ok(Some(*handle))
            }
            _ => Err(Failure::Refused("more than one key has this label")),
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        // Waited for, so that a library that is opened next does not meet this one's end.
        let _ = self.thread.run(State::disconnect);
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("label", &self.options.token_label).finish_non_exhaustive()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Library(error)
    }
}

/// The object identifier of P-256 (`prime256v1`) in DER.
const P256_OID: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
