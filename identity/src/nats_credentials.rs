//! What a NATS client proves in CONNECT with a key: nkey seeds and credentials files, for the process that holds keys.
//!
//! A key signs the nonce of a server and nothing else: a nonce has the letters of base64url, so no token and no document can be
//! passed for one. A nonce that is empty is refused: a server without nkey users sends none, and a signature over nothing could
//! be replayed by whoever saw it. A credentials file is taken only if its token is of the user whose seed is in it, and alive.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis_nkey::{KeyPair, Kind};
use serde::Deserialize;
use time::OffsetDateTime;
use zeroize::Zeroizing;

/// Why a seed or a credentials file cannot be used. Whoever wrote the file erred, except where it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NatsCredentialError {
    /// No seed of a user.
    #[error("there is no seed of a user's nkey in it")]
    Seed,
    /// Not the form of a credentials file.
    #[error("it is no credentials file")]
    Form,
    /// The token cannot be read.
    #[error("the token in it is no NATS user token")]
    Token,
    /// Token and seed are of two users.
    #[error("the token in it is not that of the seed in it")]
    Mismatch,
    /// The token ended.
    #[error("the token in it ended at {0}")]
    Expired(OffsetDateTime),
    /// The server sent nothing to sign, or something else than a nonce. The server erred.
    #[error("the server sent no nonce to sign")]
    NoNonce,
}

impl NatsCredentialError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Seed => {
                "the file must hold one line that begins with SU and has 58 characters; `portcullis keys generate --kind user` makes one"
            }
            Self::Form | Self::Token => "have it made anew, by `nsc generate creds` for example",
            Self::Mismatch => "the file was put together from two: have it made anew",
            Self::Expired(_) => "have it made anew; it is read again as soon as it is replaced",
            Self::NoNonce => {
                "the server must have at least one nkey user (or run in operator mode): only then does it send nonces"
            }
        }
    }
}

/// The seed of a user's nkey.
pub struct NatsSeed {
    pair: KeyPair,
    public: String,
}

impl NatsSeed {
    /// Reads a file with a seed: lines with other things in them are passed over, as NATS's own tools do.
    pub fn parse(text: &str) -> Result<Self, NatsCredentialError> {
        let mut seeds = text.lines().map(str::trim).filter(|line| line.starts_with("SU"));
        let seed = seeds.next().filter(|_| seeds.next().is_none()).ok_or(NatsCredentialError::Seed)?;
        let pair = KeyPair::from_seed_of(seed, Kind::User).map_err(|_| NatsCredentialError::Seed)?;
        let public = pair.public().to_string();
        Ok(Self { pair, public })
    }

    /// `U...`.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// Signs a server's nonce.
    pub fn sign(&self, nonce: &[u8]) -> Result<Vec<u8>, NatsCredentialError> {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_=+/".contains(b);
        if nonce.is_empty() || nonce.len() > MAX_NONCE_BYTES || !nonce.iter().all(plain) {
            return Err(NatsCredentialError::NoNonce);
        }
        self.pair.sign(nonce).map(|signature| signature.to_vec()).map_err(|_| NatsCredentialError::Seed)
    }
}

impl fmt::Debug for NatsSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsSeed").field("public", &self.public).finish_non_exhaustive()
    }
}

/// A credentials file: a user's token and the seed of the same user.
pub struct NatsCredentials {
    token: Zeroizing<String>,
    seed: NatsSeed,
    expires_at: Option<OffsetDateTime>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    #[serde(default)]
    exp: i64,
    nats: Nats,
}

#[derive(Deserialize)]
struct Nats {
    #[serde(rename = "type")]
    kind: String,
}

impl NatsCredentials {
    /// Reads a credentials file. Who signed the token is the server's to check: it knows the account.
    pub fn parse(text: &str) -> Result<Self, NatsCredentialError> {
        let token = between(text, "BEGIN NATS USER JWT", "END NATS USER JWT").ok_or(NatsCredentialError::Form)?;
        let seed = between(text, "BEGIN USER NKEY SEED", "END USER NKEY SEED").ok_or(NatsCredentialError::Form)?;
        let seed = NatsSeed::parse(&seed)?;
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NatsCredentialError::Token);
        };
        let header: Header = decoded(header)?;
        let claims: Claims = decoded(claims)?;
        let signed = URL_SAFE_NO_PAD.decode(signature).is_ok_and(|bytes| bytes.len() == SIGNATURE_BYTES);
        if header.alg != "ed25519-nkey" || claims.nats.kind != "user" || !signed {
            return Err(NatsCredentialError::Token);
        }
        if claims.sub != seed.public {
            return Err(NatsCredentialError::Mismatch);
        }
        let expires_at = match claims.exp {
            0 => None,
            at => Some(OffsetDateTime::from_unix_timestamp(at).map_err(|_| NatsCredentialError::Token)?),
        };
        Ok(Self { token, seed, expires_at })
    }

    /// Whether the token is alive.
    pub fn check(&self, now: OffsetDateTime) -> Result<(), NatsCredentialError> {
        match self.expires_at {
            Some(at) if now >= at => Err(NatsCredentialError::Expired(at)),
            _ => Ok(()),
        }
    }

    /// The token, for CONNECT.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The seed.
    pub fn seed(&self) -> &NatsSeed {
        &self.seed
    }
}

impl fmt::Debug for NatsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsCredentials").field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// What is between two lines of dashes with these words in them, without white space.
fn between(text: &str, begin: &str, end: &str) -> Option<Zeroizing<String>> {
    let fence = |line: &str, words: &str| line.starts_with("---") && line.ends_with("---") && line.contains(words);
    let mut lines = text.lines().map(str::trim).skip_while(|line| !fence(line, begin));
    lines.next()?;
    let mut found = Zeroizing::new(String::new());
    for line in lines {
        if fence(line, end) {
            return (!found.is_empty()).then_some(found);
        }
        if line.starts_with("---") || found.len() + line.len() > MAX_TOKEN_BYTES {
            return None;
        }
        found.push_str(line);
    }
    None
}

fn decoded<T: serde::de::DeserializeOwned>(part: &str) -> Result<T, NatsCredentialError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| NatsCredentialError::Token)?;
    serde_json::from_slice(&bytes).map_err(|_| NatsCredentialError::Token)
}

/// Of Ed25519.
const SIGNATURE_BYTES: usize = 64;
/// Longest nonce that is signed; those of nats-server have 15.
const MAX_NONCE_BYTES: usize = 64;
/// Longest token in a credentials file: nats-server takes no longer CONNECT by default.
const MAX_TOKEN_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use nkeys::KeyPair;
    use serde_json::json;

    use super::*;

    fn token(user: &KeyPair, more: serde_json::Value) -> String {
        let mut claims = json!({ "sub": user.public_key(), "nats": { "type": "user", "version": 2 } });
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let encode = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = encode(json!({ "typ": "JWT", "alg": "ed25519-nkey" }));
        format!("{header}.{}.{}", encode(claims), URL_SAFE_NO_PAD.encode([7; 64]))
    }

    fn file(token: &str, seed: &str) -> String {
        format!(
            "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\nkeep it\n\n-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }

    #[test]
    fn a_seed_has_the_public_key_and_the_signatures_of_the_reference() {
        for _ in 0..20 {
            let user = KeyPair::new_user();
            let seed = NatsSeed::parse(&format!("# mine\n{}\n", user.seed().unwrap())).unwrap();
            assert_eq!(seed.public(), user.public_key());
            user.verify(b"PXoWU7zWAMt75FY", &seed.sign(b"PXoWU7zWAMt75FY").unwrap()).unwrap();
        }
    }

    #[test]
    fn nothing_but_a_nonce_is_signed() {
        let seed = NatsSeed::parse(&KeyPair::new_user().seed().unwrap()).unwrap();
        let long = "a".repeat(MAX_NONCE_BYTES + 1);
        for other in ["", "eyJ0eXAi.e30", "with space", "line\n", "\u{e4}", long.as_str()] {
            assert_eq!(seed.sign(other.as_bytes()), Err(NatsCredentialError::NoNonce), "{other}");
        }
        assert!(seed.sign(&long.as_bytes()[1..]).is_ok());
    }

    #[test]
    fn keys_of_other_kinds_and_damaged_seeds_are_refused() {
        let user = KeyPair::new_user().seed().unwrap();
        let damaged: String = user
            .chars()
            .enumerate()
            .map(|(at, c)| {
                if at == 20 && c == 'A' {
                    'B'
                } else if at == 20 {
                    'A'
                } else {
                    c
                }
            })
            .collect();
        let public = KeyPair::new_user().public_key();
        for text in [
            String::new(),
            KeyPair::new_account().seed().unwrap(),
            KeyPair::new_server().seed().unwrap(),
            public,
            damaged,
            user.to_lowercase(),
            user.get(..57).unwrap().to_owned(),
            format!("{user}\n{user}"),
        ] {
            assert_eq!(NatsSeed::parse(&text).err(), Some(NatsCredentialError::Seed), "{text}");
        }
    }

    #[test]
    fn a_credentials_file_is_one_users_alive_token_and_seed() {
        let (user, other) = (KeyPair::new_user(), KeyPair::new_user());
        let seed = user.seed().unwrap();
        let now = OffsetDateTime::from_unix_timestamp(1_000).unwrap();
        let read = |text: &str| NatsCredentials::parse(text);
        let good = read(&file(&token(&user, json!({ "exp": 1_001 })), &seed)).unwrap();
        assert_eq!(good.check(now), Ok(()));
        assert_eq!(good.seed().public(), user.public_key());
        let old = read(&file(&token(&user, json!({ "exp": 1_000 })), &seed)).unwrap();
        assert_eq!(old.check(now), Err(NatsCredentialError::Expired(now)));
        assert_eq!(read(&file(&token(&user, json!({})), &seed)).unwrap().check(now), Ok(()));
        let whole = token(&user, json!({}));
        for (text, why) in [
            (file(&token(&other, json!({})), &seed), NatsCredentialError::Mismatch),
            (file("e30.e30.e30", &seed), NatsCredentialError::Token),
            (file(whole.get(..whole.len() - 2).unwrap(), &seed), NatsCredentialError::Token),
            (file(&format!("{whole}.e30"), &seed), NatsCredentialError::Token),
            (file(&token(&user, json!({ "nats": { "type": "account" } })), &seed), NatsCredentialError::Token),
            (file(&token(&user, json!({ "exp": i64::MAX })), &seed), NatsCredentialError::Token),
            (file(&whole, "SUAAA"), NatsCredentialError::Seed),
            (file("", &seed), NatsCredentialError::Form),
            (file(&"a".repeat(MAX_TOKEN_BYTES + 1), &seed), NatsCredentialError::Form),
            (whole.clone(), NatsCredentialError::Form),
            (file(&whole, &seed).replace("END USER", "END"), NatsCredentialError::Form),
        ] {
            assert_eq!(read(&text).err(), Some(why), "{text}");
        }
    }
}
