//! The compact form: three parts of base64url, one header, an Ed25519 signature by the key in `iss`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis_nkey::{KeyPair, Kind, PublicKey, base32};
use ring::digest::{SHA512_256, digest};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::names::NameError;
use super::signer::SignerError;
use super::strict_json;
use crate::limits::MAX_NATS_JWT_BYTES;

/// Why a token is none, or is not made. Who sent it erred, or who asked for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NatsJwtError {
    /// Over [`MAX_NATS_JWT_BYTES`].
    #[error("the token is larger than {MAX_NATS_JWT_BYTES} bytes")]
    TooLarge,
    /// Not three parts of base64url without padding, or JSON that is none.
    #[error("the token cannot be parsed: {0}")]
    Malformed(&'static str),
    /// Not exactly `typ` JWT and `alg` ed25519-nkey. Tokens of version 1 land here.
    #[error("the token's header must be exactly typ JWT and alg ed25519-nkey")]
    Header,
    /// No issuer, or one that may not issue tokens of this type.
    #[error("the token's issuer is not a key that may issue such tokens")]
    Issuer,
    /// Not by the issuer, or over something else.
    #[error("the token's signature is not its issuer's")]
    Signature,
    /// Of another type or version.
    #[error("the token is not of the type {0}, version 2")]
    Type(TokenType),
    /// A claim is missing or no such thing.
    #[error("the token's claims are malformed: {0}")]
    Claims(&'static str),
    /// It would have ended before it began.
    #[error("the token would have ended already")]
    AlreadyOver,
    /// A name in it is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The key may not sign it.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// It could not be written or signed. This product erred.
    #[error("the token could not be made: {0}")]
    Defect(&'static str),
}

impl NatsJwtError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::TooLarge | Self::Malformed(_) | Self::Claims(_) => {
                "the sender must send a NATS JWT as nats-server makes it"
            }
            Self::Header | Self::Type(_) => {
                "the sender must send a NATS JWT of version 2 (nats-server 2.x); version 1 is not taken"
            }
            Self::Issuer | Self::Signature => "see that nothing between the sender and here changes tokens",
            Self::AlreadyOver => "see that the clock is right and that the credential it follows from still lives",
            Self::Name(error) => error.hint(),
            Self::Signer(error) => error.hint(),
            Self::Defect(_) => "this is a defect of the product",
        }
    }
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenType {
    /// An operator, by itself or one of its signing keys.
    Operator,
    /// An account, by its operator.
    Account,
    /// A user, by its account.
    User,
    /// A server asks an auth callout.
    Request,
    /// An auth callout answers.
    Response,
}

impl TokenType {
    /// `nats.type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Account => "account",
            Self::User => "user",
            Self::Request => "authorization_request",
            Self::Response => "authorization_response",
        }
    }

    /// The kind of key that issues it.
    fn issuer(self) -> Kind {
        match self {
            Self::Operator | Self::Account => Kind::Operator,
            Self::User | Self::Response => Kind::Account,
            Self::Request => Kind::Server,
        }
    }

    /// The kind of key that it is about.
    fn subject(self) -> Kind {
        match self {
            Self::Operator => Kind::Operator,
            Self::Account | Self::Request => Kind::Account,
            Self::User | Self::Response => Kind::User,
        }
    }
}

impl std::fmt::Display for TokenType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A token whose signature is right. Proves that its issuer's key made it, and nothing about whose key that is; its times are
/// the reader's to look at.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    pub(super) issuer: PublicKey,
    pub(super) subject: PublicKey,
    pub(super) audience: Option<String>,
    pub(super) name: Option<String>,
    pub(super) issued_at: Option<OffsetDateTime>,
    pub(super) expires_at: Option<OffsetDateTime>,
    pub(super) not_before: Option<OffsetDateTime>,
    pub(super) nats: Map<String, Value>,
}

impl Verified {
    /// Reads a token and verifies its signature.
    pub fn parse(token: &str, wanted: TokenType) -> Result<Self, NatsJwtError> {
        if token.len() > MAX_NATS_JWT_BYTES {
            return Err(NatsJwtError::TooLarge);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(NatsJwtError::Malformed("it has not three parts"))?;
        let (header, payload) = signed.split_once('.').ok_or(NatsJwtError::Malformed("it has not three parts"))?;
        check_header(&decode(header)?)?;
        let mut claims =
            strict_json::object(&decode(payload)?).ok_or(NatsJwtError::Malformed("its claims are no JSON"))?;
        let issuer = text(&mut claims, "iss")?.ok_or(NatsJwtError::Issuer)?;
        let issuer = PublicKey::parse(&issuer, wanted.issuer()).map_err(|_| NatsJwtError::Issuer)?;
        if !issuer.verifies(signed.as_bytes(), &decode(signature)?) {
            return Err(NatsJwtError::Signature);
        }
        let Some(Value::Object(nats)) = claims.remove("nats") else { return Err(NatsJwtError::Type(wanted)) };
        let named = nats.get("type").and_then(Value::as_str);
        if named != Some(wanted.name()) || nats.get("version").and_then(Value::as_u64) != Some(2) {
            return Err(NatsJwtError::Type(wanted));
        }
        let subject = text(&mut claims, "sub")?.ok_or(NatsJwtError::Claims("sub is missing"))?;
        let subject = PublicKey::parse(&subject, wanted.subject())
            .map_err(|_| NatsJwtError::Claims("sub is no key of the kind that the type demands"))?;
        Ok(Self {
            issuer,
            subject,
            audience: text(&mut claims, "aud")?,
            name: text(&mut claims, "name")?,
            issued_at: time(&claims, "iat")?,
            expires_at: time(&claims, "exp")?,
            not_before: time(&claims, "nbf")?,
            nats,
        })
    }

    /// The key that made it.
    pub fn issuer(&self) -> PublicKey {
        self.issuer
    }

    /// The key that it is about.
    pub fn subject(&self) -> PublicKey {
        self.subject
    }

    /// For whom it is, if it says.
    pub fn audience(&self) -> Option<&str> {
        self.audience.as_deref()
    }

    /// Its name, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// When it was made, if it says.
    pub fn issued_at(&self) -> Option<OffsetDateTime> {
        self.issued_at
    }

    /// When it ends, if it does.
    pub fn expires_at(&self) -> Option<OffsetDateTime> {
        self.expires_at
    }

    /// When it begins, if it says.
    pub fn not_before(&self) -> Option<OffsetDateTime> {
        self.not_before
    }

    /// What it says in `nats`.
    pub fn nats(&self) -> &Map<String, Value> {
        &self.nats
    }

    /// The account that a signing key issued it for; its own key where it is not by a signing key.
    pub fn issuer_account(&self) -> Result<PublicKey, NatsJwtError> {
        match self.nats.get("issuer_account") {
            None | Some(Value::Null) => Ok(self.issuer),
            Some(Value::String(empty)) if empty.is_empty() => Ok(self.issuer),
            Some(Value::String(account)) => PublicKey::parse(account, Kind::Account).map_err(|_| NatsJwtError::Issuer),
            Some(_) => Err(NatsJwtError::Issuer),
        }
    }
}

/// A token to be made.
pub(super) struct Unsigned<'a> {
    pub(super) kind: TokenType,
    pub(super) subject: PublicKey,
    pub(super) audience: Option<&'a str>,
    pub(super) name: Option<&'a str>,
    pub(super) expires_at: Option<OffsetDateTime>,
    /// Without `type` and `version`.
    pub(super) nats: Map<String, Value>,
}

impl Unsigned<'_> {
    /// The token, signed by this key.
    pub(super) fn sign(mut self, key: &KeyPair, now: OffsetDateTime) -> Result<String, NatsJwtError> {
        let wrong = |_| NatsJwtError::Signer(SignerError::Kind);
        key.public().require(self.kind.issuer()).map_err(wrong)?;
        self.subject.require(self.kind.subject()).map_err(wrong)?;
        let issued_at = now.unix_timestamp();
        let mut claims = Map::new();
        if let Some(audience) = self.audience {
            claims.insert("aud".to_owned(), json!(audience));
        }
        if let Some(expires_at) = self.expires_at {
            // Whole seconds, never later than meant.
            let expires_at = expires_at.unix_timestamp();
            if expires_at <= issued_at {
                return Err(NatsJwtError::AlreadyOver);
            }
            claims.insert("exp".to_owned(), json!(expires_at));
        }
        claims.insert("iat".to_owned(), json!(issued_at));
        claims.insert("iss".to_owned(), json!(key.public().to_string()));
        if let Some(name) = self.name {
            claims.insert("name".to_owned(), json!(name));
        }
        claims.insert("sub".to_owned(), json!(self.subject.to_string()));
        self.nats.insert("type".to_owned(), json!(self.kind.name()));
        self.nats.insert("version".to_owned(), json!(2));
        claims.insert("nats".to_owned(), Value::Object(self.nats));
        let defect = |_| NatsJwtError::Defect("its claims cannot be written");
        // The id is a digest of everything else.
        let without_id = serde_json::to_vec(&claims).map_err(defect)?;
        claims.insert("jti".to_owned(), json!(base32(digest(&SHA512_256, &without_id).as_ref())));
        let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims).map_err(defect)?);
        let signed = format!("{}.{payload}", URL_SAFE_NO_PAD.encode(HEADER));
        let signature = key.sign(signed.as_bytes()).map_err(|_| NatsJwtError::Defect("its key does not sign"))?;
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        if token.len() > MAX_NATS_JWT_BYTES {
            return Err(NatsJwtError::TooLarge);
        }
        Ok(token)
    }
}

fn check_header(header: &[u8]) -> Result<(), NatsJwtError> {
    let header = strict_json::object(header).ok_or(NatsJwtError::Header)?;
    let is = |name: &str, value: &str| header.get(name).and_then(Value::as_str) == Some(value);
    if header.len() == 2 && is("typ", "JWT") && is("alg", "ed25519-nkey") { Ok(()) } else { Err(NatsJwtError::Header) }
}

/// Absent, null and empty are the same: servers leave out what is empty.
fn text(claims: &mut Map<String, Value>, name: &str) -> Result<Option<String>, NatsJwtError> {
    match claims.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
        Some(_) => Err(NatsJwtError::Claims("iss, sub, aud or name is no text")),
    }
}

/// Absent, null and 0 are the same.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<OffsetDateTime>, NatsJwtError> {
    let seconds = match claims.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value.as_i64().ok_or(NatsJwtError::Claims("a time is no whole number"))?,
    };
    if seconds == 0 {
        return Ok(None);
    }
    OffsetDateTime::from_unix_timestamp(seconds).map(Some).map_err(|_| NatsJwtError::Claims("a time is out of range"))
}

fn decode(part: &str) -> Result<Vec<u8>, NatsJwtError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| NatsJwtError::Malformed("a part is not base64url without padding"))
}

const HEADER: &str = r#"{"typ":"JWT","alg":"ed25519-nkey"}"#;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn forged(key: &KeyPair, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).unwrap()))
    }

    fn user_claims(key: &KeyPair) -> Value {
        json!({"iss": key.public().to_string(), "sub": PublicKey::new(Kind::User, [7; 32]).to_string(), "iat": NOW,
            "exp": NOW + 1, "nats": {"type": "user", "version": 2}})
    }

    /// The claims of a user, changed.
    fn read(change: impl FnOnce(&mut Value)) -> Result<Verified, NatsJwtError> {
        let key = KeyPair::generate(Kind::Account).unwrap();
        let mut claims = user_claims(&key);
        change(&mut claims);
        Verified::parse(&forged(&key, HEADER, &claims.to_string()), TokenType::User)
    }

    #[test]
    fn the_header_is_one() {
        let key = KeyPair::generate(Kind::Account).unwrap();
        let claims = user_claims(&key).to_string();
        let with = |header: &str| Verified::parse(&forged(&key, header, &claims), TokenType::User);
        assert!(with(HEADER).is_ok() && with(r#"{ "alg" : "ed25519-nkey", "typ":"JWT" }"#).is_ok());
        for header in [
            r#"{"typ":"jwt","alg":"ed25519"}"#,
            r#"{"typ":"JWT","alg":"ed25519"}"#,
            r#"{"typ":"JWT","alg":"none"}"#,
            r#"{"typ":"JWT","alg":"EdDSA"}"#,
            r#"{"typ":"JWT","alg":"ED25519-NKEY"}"#,
            r#"{"typ":"jwt","alg":"ed25519-nkey"}"#,
            r#"{"alg":"ed25519-nkey"}"#,
            r#"{"typ":"JWT","alg":"ed25519-nkey","kid":"x"}"#,
            r#"{"typ":"JWT","alg":"none","alg":"ed25519-nkey"}"#,
            r#"{"typ":"JWT","alg":["ed25519-nkey"]}"#,
            "[]",
            "",
        ] {
            assert_eq!(with(header), Err(NatsJwtError::Header), "{header}");
        }
    }

    #[test]
    fn the_issuer_is_a_key_that_may_issue_such_tokens() {
        for (wanted, issuer) in [
            (TokenType::Operator, Kind::Operator),
            (TokenType::Account, Kind::Operator),
            (TokenType::User, Kind::Account),
            (TokenType::Response, Kind::Account),
            (TokenType::Request, Kind::Server),
        ] {
            for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Curve) {
                let key = KeyPair::generate(kind).unwrap();
                let claims = json!({"iss": key.public().to_string(), "nats": {"type": wanted.name(), "version": 2},
                    "sub": PublicKey::new(wanted.subject(), [7; 32]).to_string()});
                let read = Verified::parse(&forged(&key, HEADER, &claims.to_string()), wanted);
                if kind == issuer {
                    assert!(read.is_ok(), "{wanted} by {kind}");
                } else {
                    assert_eq!(read, Err(NatsJwtError::Issuer), "{wanted} by {kind}");
                }
            }
        }
        assert_eq!(read(|claims| claims["iss"] = json!("")), Err(NatsJwtError::Issuer));
        assert_eq!(read(|claims| drop(claims.as_object_mut().unwrap().remove("iss"))), Err(NatsJwtError::Issuer));
        let other = KeyPair::generate(Kind::Account).unwrap().public().to_string();
        assert_eq!(read(|claims| claims["iss"] = json!(other)), Err(NatsJwtError::Signature));
    }

    #[test]
    fn every_changed_character_is_refused() {
        let key = KeyPair::generate(Kind::Account).unwrap();
        let token = forged(&key, HEADER, &user_claims(&key).to_string());
        assert!(Verified::parse(&token, TokenType::User).is_ok());
        for position in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[position] = if changed[position] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(Verified::parse(&changed, TokenType::User).is_err(), "at {position}");
        }
        for changed in [format!("{token}="), format!("{token}A"), format!("{token}.{token}"), format!(" {token}")] {
            assert!(Verified::parse(&changed, TokenType::User).is_err());
        }
        for end in 0..token.len() {
            assert!(Verified::parse(token.get(..end).unwrap(), TokenType::User).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn version_1_and_other_types_are_refused() {
        let other = Err(NatsJwtError::Type(TokenType::User));
        assert_eq!(read(|claims| claims["nats"] = json!({"type": "user", "version": 1})), other);
        assert_eq!(read(|claims| claims["nats"] = json!({"type": "user", "version": "2"})), other);
        assert_eq!(read(|claims| claims["nats"] = json!({"type": "user"})), other);
        assert_eq!(read(|claims| claims["nats"] = json!({"type": "account", "version": 2})), other);
        assert_eq!(read(|claims| claims["nats"] = json!([])), other);
        assert_eq!(read(|claims| drop(claims.as_object_mut().unwrap().remove("nats"))), other);
        // Version 1 has its type beside `nats`.
        let first = read(|claims| {
            claims["nats"] = json!({});
            claims["type"] = json!("user");
        });
        assert_eq!(first, other);
    }

    #[test]
    fn a_key_twice_is_refused_however_it_is_signed() {
        let key = KeyPair::generate(Kind::Account).unwrap();
        let claims = user_claims(&key).to_string().replacen('{', "{\"sub\":\"x\",", 1);
        let read = Verified::parse(&forged(&key, HEADER, &claims), TokenType::User);
        assert_eq!(read, Err(NatsJwtError::Malformed("its claims are no JSON")));
    }

    #[test]
    fn empty_and_null_are_absent_and_other_types_are_refused() {
        let absent = read(|claims| {
            claims["aud"] = json!("");
            claims["name"] = json!(null);
            claims["exp"] = json!(0);
        });
        let absent = absent.unwrap();
        assert_eq!((absent.audience(), absent.name(), absent.expires_at()), (None, None, None));
        for (name, value) in [
            ("aud", json!(["x"])),
            ("name", json!(1)),
            ("exp", json!("1")),
            ("exp", json!(1.5)),
            ("iat", json!(i64::MAX)),
            ("nbf", json!({})),
            ("sub", json!("x")),
        ] {
            assert!(matches!(read(|claims| claims[name] = value), Err(NatsJwtError::Claims(_))), "{name}");
        }
        let issuer = |value: Value| read(|claims| claims["nats"]["issuer_account"] = value).unwrap().issuer_account();
        assert_eq!(issuer(json!(1)), Err(NatsJwtError::Issuer));
        assert_eq!(issuer(json!(PublicKey::new(Kind::User, [1; 32]).to_string())), Err(NatsJwtError::Issuer));
        assert!(issuer(json!("")).is_ok());
    }

    #[test]
    fn the_largest_token_is_looked_at_and_one_more_byte_is_not() {
        let key = KeyPair::generate(Kind::Account).unwrap();
        let padded = |bytes: usize| {
            let mut claims = user_claims(&key);
            claims["pad"] = json!("x".repeat(bytes));
            forged(&key, HEADER, &claims.to_string())
        };
        let room = (MAX_NATS_JWT_BYTES - padded(0).len()) / 4 * 3;
        let fits = padded(room);
        assert!(fits.len() > MAX_NATS_JWT_BYTES - 4 && fits.len() <= MAX_NATS_JWT_BYTES);
        assert!(Verified::parse(&fits, TokenType::User).is_ok());
        assert_eq!(Verified::parse(&padded(room + 4), TokenType::User), Err(NatsJwtError::TooLarge));
    }

    #[test]
    fn a_tokens_id_is_the_digest_of_everything_else() {
        let key = KeyPair::generate(Kind::Account).unwrap();
        let now = OffsetDateTime::from_unix_timestamp(NOW).unwrap();
        let made = |name| {
            let subject = PublicKey::new(Kind::User, [7; 32]);
            let token = Unsigned {
                kind: TokenType::User,
                subject,
                audience: None,
                name: Some(name),
                expires_at: None,
                nats: Map::new(),
            };
            let token = token.sign(&key, now).unwrap();
            let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
            let claims: Value = serde_json::from_slice(&payload).unwrap();
            claims["jti"].as_str().unwrap().to_owned()
        };
        assert_eq!((made("a").len(), made("a")), (52, made("a")));
        assert_ne!(made("a"), made("b"));
    }
}
