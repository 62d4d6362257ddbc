//! The strict reader of wascap tokens: a JWT in the last custom section of a module or component, for migration.
//!
//! Opt-in for each issuer in the trust policy. Walks top-level sections only. Exactly one token section, the last of the
//! file, shortest length encodings, canonical base64url, `alg` Ed25519 and `typ` jwt and nothing else in the header. The
//! signature is checked before the claims are looked at. The hash must be that of the whole file with that one section cut
//! out byte by byte, whatever revision of the format the token names. Its `caps` are no grants.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis_nkey as nkey;
use serde_json::Value;
use time::OffsetDateTime;

use crate::digest::Digest;
use crate::excerpt::Excerpt;
use crate::json;
use crate::key::PublicKey;
use crate::limits::{SECTIONS, TOKEN_BYTES};

/// A token that was found. Nothing in it has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    signed: String,
    claims: Vec<u8>,
    signature: Vec<u8>,
    issuer: PublicKey,
    rest: Digest,
}

/// What a verified token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenClaims {
    /// The module key (`M...`).
    pub subject: String,
    /// From when it holds.
    pub not_before: Option<OffsetDateTime>,
    /// Until when it holds.
    pub expires_at: Option<OffsetDateTime>,
}

/// Why a file has no token that counts. Whoever made the file erred, or somebody tampered with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// None at the top level.
    #[error("the file has no token section")]
    None,
    /// Not WebAssembly, or broken.
    #[error("the sections of the file cannot be walked")]
    File,
    /// Two or more.
    #[error("the file has {0} token sections, exactly one is accepted")]
    Several(usize),
    /// Something follows.
    #[error("the token section is not the last of the file")]
    NotLast,
    /// A longer length than is needed.
    #[error("the token section is not written in the shortest form")]
    Encoding,
    /// Not three segments, not base64url, not these claims.
    #[error("the token is malformed: {0}")]
    Malformed(String),
    /// Not Ed25519.
    #[error("the header of the token is not that of Ed25519: {0}")]
    Algorithm(String),
    /// Not an account key.
    #[error("the issuer `{0}` of the token is not an account key")]
    Issuer(String),
    /// Somebody else's, or over something else.
    #[error("the signature of the token is not that of its issuer")]
    Signature,
    /// Of other bytes.
    #[error("the token was made for other bytes")]
    Hash,
}

/// Finds the token of a file.
pub fn find(file: &[u8]) -> Result<Token, TokenError> {
    let section = section(file)?;
    let text = std::str::from_utf8(section.token).map_err(|_| malformed("it is not text"))?;
    if text.len() > TOKEN_BYTES {
        return Err(malformed("it is too long"));
    }
    let (signed, signature) = text.rsplit_once('.').ok_or_else(|| malformed("it has not three segments"))?;
    let (header, claims) = signed.split_once('.').ok_or_else(|| malformed("it has not three segments"))?;
    let decode = |what: &str, text: &str| {
        URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed(&format!("its {what} is not base64url")))
    };
    check_header(&decode("header", header)?)?;
    let claims = decode("claims", claims)?;
    let issuer = object(&claims)?.get("iss").and_then(Value::as_str).map(ToOwned::to_owned).unwrap_or_default();
    let key = nkey::decode_public(&issuer).filter(|(kind, _)| *kind == nkey::Kind::Account);
    let (_, key) = key.ok_or_else(|| TokenError::Issuer(Excerpt(&issuer).to_string()))?;
    Ok(Token {
        signed: signed.to_owned(),
        claims,
        signature: decode("signature", signature)?,
        issuer: PublicKey::from_bytes(crate::key::KeyKind::Signer, key),
        rest: section.rest,
    })
}

impl Token {
    /// Who it says signed it: selects the key that the trust policy names, proves nothing.
    pub fn issuer(&self) -> &PublicKey {
        &self.issuer
    }

    /// The digest of what is signed.
    pub fn digest(&self) -> Digest {
        Digest::of(self.signed.as_bytes())
    }

    /// Verifies signature and hash; then its times are the caller's affair.
    pub fn verify(&self, key: &PublicKey) -> Result<TokenClaims, TokenError> {
        if *key != self.issuer || !key.verify(self.signed.as_bytes(), &self.signature) {
            return Err(TokenError::Signature);
        }
        let claims = object(&self.claims)?;
        let hash = claims.get("wascap").and_then(|wascap| wascap.get("hash")).and_then(Value::as_str);
        // Tokens of 2019 have it at the top level.
        let hash = hash.or_else(|| claims.get("hash").and_then(Value::as_str));
        match hash {
            Some(hash) if hash == self.rest.hex().to_ascii_uppercase() => {}
            _ => return Err(TokenError::Hash),
        }
        let subject = claims.get("sub").and_then(Value::as_str).filter(|subject| is_subject(subject));
        let time = |name: &str| match claims.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let seconds = value.as_i64().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
                seconds.map(Some).ok_or_else(|| malformed(&format!("its `{name}` is not a time")))
            }
        };
        Ok(TokenClaims {
            subject: subject.ok_or_else(|| malformed("its subject is not a module key"))?.to_owned(),
            not_before: time("nbf")?,
            expires_at: time("exp")?,
        })
    }
}

/// Whether a text is a module key (`M...`).
pub fn is_subject(text: &str) -> bool {
    nkey::decode_public(text).is_some_and(|(kind, _)| kind == nkey::Kind::Module)
}

fn malformed(what: &str) -> TokenError {
    TokenError::Malformed(what.to_owned())
}

fn object(bytes: &[u8]) -> Result<serde_json::Map<String, Value>, TokenError> {
    match json::parse(bytes, TOKEN_BYTES) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(malformed("its claims are not an object")),
        Err(error) => Err(malformed(&error.to_string())),
    }
}

fn check_header(header: &[u8]) -> Result<(), TokenError> {
    let header = object(header)?;
    let is = |key: &str, value: &str| header.get(key).and_then(Value::as_str) == Some(value);
    if header.len() == 2 && is("typ", "jwt") && is("alg", "Ed25519") {
        Ok(())
    } else {
        Err(TokenError::Algorithm(Excerpt(&Value::Object(header).to_string()).to_string()))
    }
}

struct Section<'a> {
    token: &'a [u8],
    /// The digest of the file without the section.
    rest: Digest,
}

const HEADER_BYTES: usize = 8;
const CUSTOM: u8 = 0;
const NAMES: [&[u8]; 2] = [b"jwt", b"wasmcloud_jwt"];

/// Walks the top level of a module or component: each section is an id, a length, a body.
fn section(file: &[u8]) -> Result<Section<'_>, TokenError> {
    let (header, mut rest) = file.split_at_checked(HEADER_BYTES).ok_or(TokenError::File)?;
    if !header.starts_with(b"\0asm") {
        return Err(TokenError::File);
    }
    let (mut found, mut count, mut sections) = (None, 0, 0);
    while let Some((id, after)) = rest.split_first() {
        sections += 1;
        let (length, length_is_short, after) = leb128(after).ok_or(TokenError::File)?;
        let (body, next) = after.split_at_checked(length).ok_or(TokenError::File)?;
        if sections > SECTIONS {
            return Err(TokenError::File);
        }
        if *id == CUSTOM {
            let (length, name_is_short, after) = leb128(body).ok_or(TokenError::File)?;
            let (name, token) = after.split_at_checked(length).ok_or(TokenError::File)?;
            if NAMES.contains(&name) {
                count += 1;
                found = Some((file.len() - rest.len(), token, length_is_short && name_is_short, next.is_empty()));
            }
        }
        rest = next;
    }
    match (count, found) {
        (0, _) | (_, None) => Err(TokenError::None),
        (1, Some((_, _, false, _))) => Err(TokenError::Encoding),
        (1, Some((_, _, _, false))) => Err(TokenError::NotLast),
        (1, Some((at, token, true, true))) => {
            Ok(Section { token, rest: Digest::of(file.get(..at).ok_or(TokenError::File)?) })
        }
        (count, _) => Err(TokenError::Several(count)),
    }
}

/// An unsigned LEB128 number of 32 bits, whether it is in its shortest form, and what follows.
fn leb128(bytes: &[u8]) -> Option<(usize, bool, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let shortest = index == 0 || *byte != 0;
            let value = usize::try_from(u32::try_from(value).ok()?).ok()?;
            return Some((value, shortest, bytes.get(index + 1..)?));
        }
    }
    None
}
