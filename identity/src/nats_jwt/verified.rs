//! Reading the compact form: three parts of base64url, one header, an Ed25519 signature by the key in `iss`. Refuses every other
//! header, a key of another kind than the type demands, keys twice in one object.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis_nkey::{Kind, PublicKey};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::strict_json;
use super::token::{NatsJwtError, TokenType};
use crate::limits::MAX_NATS_JWT_BYTES;

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

#[cfg(test)]
mod tests {
    use portcullis_nkey::KeyPair;
    use serde_json::json;

    use super::*;
    use crate::nats_jwt::token::HEADER;

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
}
