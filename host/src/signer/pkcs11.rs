//! A key in a token behind PKCS#11: it never leaves it. Ed25519, and ECDSA P-256 over a SHA-256 that is made here.
//!
//! The module is a library of somebody else that is loaded into this process: only where a user names one. The token must be the only
//! one, and the key the only one, that fits the URI.

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use portcullis_signing::{Digest, Excerpt, KeyKind, PublicKey, SignerKey};
use zeroize::Zeroizing;

use super::{Uri, ecdsa};

/// A key in a token, logged in.
pub struct Token {
    session: Session,
    key: ObjectHandle,
    public: SignerKey,
}

/// Why a token gave no signature.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The module failed.
    #[error("the PKCS#11 module failed while {what}: {why}")]
    Module {
        /// What was done.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// Not exactly one.
    #[error("{count} {what} fit the pkcs11: URI, exactly one must")]
    NotOne {
        /// How many.
        count: usize,
        /// Of what.
        what: &'static str,
    },
    /// A key of another kind.
    #[error("the key in the token is neither Ed25519 nor ECDSA P-256")]
    Algorithm,
    /// The public half is not there.
    #[error("the token does not hold the public half of the key")]
    NoPublic,
}

impl TokenError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            TokenError::Module { .. } => {
                "check module-path, the PIN and the token with `pkcs11-tool --module M --list-objects`"
            }
            TokenError::NotOne { .. } => {
                "`pkcs11-tool --module M --list-slots` and `--list-objects` show what there is"
            }
            TokenError::Algorithm => "make one with `pkcs11-tool --keypairgen --key-type EC:prime256v1`",
            TokenError::NoPublic => "name the public key with --public-key",
        }
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({})", self.public)
    }
}

impl Token {
    /// Loads the module, finds the token and the key, and logs in. `public` is the key where the token does not say.
    pub fn open(uri: &Uri, pin: &Zeroizing<String>, public: Option<SignerKey>) -> Result<Self, TokenError> {
        let failed = |what| move |error: cryptoki::error::Error| module(what, &error);
        let path = uri.module.as_deref().unwrap_or_else(|| std::path::Path::new(""));
        let context = Pkcs11::new(path).map_err(failed("being loaded"))?;
        context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).map_err(failed("starting"))?;
        let session = context.open_ro_session(slot(&context, uri)?).map_err(failed("opening a session"))?;
        session.login(UserType::User, Some(&AuthPin::from(pin.as_str()))).map_err(failed("logging in"))?;
        let key = only(&session, uri, ObjectClass::PRIVATE_KEY)?;
        let public = match public {
            Some(public) => public,
            None => public_of(&session, uri)?,
        };
        Ok(Self { session, key, public })
    }

    /// The public half.
    pub fn public(&self) -> &SignerKey {
        &self.public
    }

    /// Has `message` signed.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        let failed = |error: cryptoki::error::Error| module("signing", &error);
        match self.public {
            SignerKey::Ed25519(_) => {
                let mechanism = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519));
                self.session.sign(&mechanism, self.key, message).map_err(failed)
            }
            SignerKey::P256(_) => {
                let digest = Digest::of(message);
                let pair = self.session.sign(&Mechanism::Ecdsa, self.key, digest.as_bytes()).map_err(failed)?;
                ecdsa::der(&pair).ok_or(TokenError::Algorithm)
            }
        }
    }
}

/// The one slot whose token has the label or serial number of the URI.
fn slot(context: &Pkcs11, uri: &Uri) -> Result<Slot, TokenError> {
    let slots = context.get_slots_with_token().map_err(|error| module("listing tokens", &error))?;
    let fits = |slot: &&Slot| {
        context.get_token_info(**slot).is_ok_and(|info| {
            uri.token.as_deref().is_none_or(|label| info.label().trim_end() == label)
                && uri.serial.as_deref().is_none_or(|serial| info.serial_number().trim_end() == serial)
        })
    };
    let found: Vec<&Slot> = slots.iter().filter(fits).collect();
    match found.as_slice() {
        [slot] => Ok(**slot),
        several => Err(TokenError::NotOne { count: several.len(), what: "tokens" }),
    }
}

/// The one object of a class that fits the URI.
fn only(session: &Session, uri: &Uri, class: ObjectClass) -> Result<ObjectHandle, TokenError> {
    let mut template = vec![Attribute::Class(class)];
    template.extend(uri.object.iter().map(|label| Attribute::Label(label.clone().into_bytes())));
    template.extend(uri.id.iter().map(|id| Attribute::Id(id.clone())));
    let found = session.find_objects(&template).map_err(|error| module("looking for the key", &error))?;
    match found.as_slice() {
        [object] => Ok(*object),
        several => Err(TokenError::NotOne { count: several.len(), what: "keys" }),
    }
}

fn public_of(session: &Session, uri: &Uri) -> Result<SignerKey, TokenError> {
    let object = only(session, uri, ObjectClass::PUBLIC_KEY).map_err(|_| TokenError::NoPublic)?;
    let attributes = session
        .get_attributes(object, &[AttributeType::KeyType, AttributeType::EcPoint])
        .map_err(|error| module("reading the public key", &error))?;
    let (mut kind, mut point) = (None, None);
    for attribute in attributes {
        match attribute {
            Attribute::KeyType(key_type) => kind = Some(key_type),
            Attribute::EcPoint(bytes) => point = Some(bytes),
            _ => {}
        }
    }
    let point = point.ok_or(TokenError::NoPublic)?;
    // PKCS#11 wraps the point in an OCTET STRING; some modules do not.
    let point = match point.as_slice() {
        [4, length, rest @ ..] if usize::from(*length) == rest.len() => rest.to_vec(),
        _ => point,
    };
    match kind {
        Some(KeyType::EC_EDWARDS) => {
            let bytes = point.as_slice().try_into().map_err(|_| TokenError::Algorithm)?;
            Ok(PublicKey::from_bytes(KeyKind::Signer, bytes).into())
        }
        Some(KeyType::EC) => {
            let der = [P256_SPKI.as_slice(), &point].concat();
            SignerKey::from_spki_der(&der).map_err(|_| TokenError::Algorithm)
        }
        _ => Err(TokenError::Algorithm),
    }
}

fn module(what: &'static str, error: &cryptoki::error::Error) -> TokenError {
    TokenError::Module { what, why: Excerpt(&error.to_string()).to_string() }
}

/// RFC 5480: SubjectPublicKeyInfo of id-ecPublicKey with secp256r1, up to the point.
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
