//! The answer of an auth callout: a user's token or a refusal, for one attempt at one server.

use portcullis_nkey::{Kind, PublicKey};
use serde_json::{Map, json};
use time::OffsetDateTime;

use super::signer::{AccountSigner, SignerError};
use super::token::{NatsJwtError, TokenType};
use super::unsigned::Unsigned;
use super::verified::Verified;

/// What a server is told of a refusal. It logs the text as a format string and never shows it to the client, so there is a
/// fixed set, without anything from outside; why somebody was refused stands in our own audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Denial {
    /// No credential, or one that proves nothing.
    Credential,
    /// Somebody who may not connect so.
    Policy,
    /// Too much to do.
    Busy,
    /// Something of ours is not there.
    Unavailable,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// This user's token.
    User(&'a str),
    /// A refusal.
    Denied(Denial),
}

/// An answer, read: what a server does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The account that answers.
    pub issuer_account: PublicKey,
    /// The key of the attempt.
    pub user: PublicKey,
    /// The server.
    pub server: PublicKey,
    /// The user's token, or the text of a refusal.
    pub outcome: Result<String, String>,
}

impl Denial {
    /// Every refusal.
    pub const ALL: [Self; 4] = [Self::Credential, Self::Policy, Self::Busy, Self::Unavailable];

    /// The text.
    pub fn text(self) -> &'static str {
        match self {
            Self::Credential => "credential refused",
            Self::Policy => "denied by policy",
            Self::Busy => "callout busy",
            Self::Unavailable => "callout unavailable",
        }
    }
}

impl Outcome<'_> {
    /// The answer's token, for the attempt with this user key at this server.
    pub fn sign(
        self,
        signer: &AccountSigner,
        user: PublicKey,
        server: PublicKey,
        now: OffsetDateTime,
    ) -> Result<String, NatsJwtError> {
        let server = server.require(Kind::Server).map_err(|_| SignerError::Kind)?;
        let mut nats = Map::new();
        match self {
            Self::User(token) => nats.insert("jwt".to_owned(), json!(token)),
            Self::Denied(denial) => nats.insert("error".to_owned(), json!(denial.text())),
        };
        if signer.is_signing_key() {
            nats.insert("issuer_account".to_owned(), json!(signer.of_account().to_string()));
        }
        let (kind, audience) = (TokenType::Response, server.to_string());
        Unsigned { kind, subject: user, audience: Some(&audience), name: None, expires_at: None, nats }
            .sign(signer.key(), now)
    }
}

impl Response {
    /// Reads an answer. Its signature is right; whose key that is, is the caller's to say.
    pub fn parse(token: &str) -> Result<Self, NatsJwtError> {
        let read = Verified::parse(token, TokenType::Response)?;
        let server = read.audience().and_then(|server| PublicKey::parse(server, Kind::Server).ok());
        let member = |name: &str| read.nats().get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        let outcome = match (member("jwt"), member("error")) {
            (token, error) if error.is_empty() && !token.is_empty() => Ok(token),
            (token, error) if token.is_empty() && !error.is_empty() => Err(error),
            _ => return Err(NatsJwtError::Claims("an answer has either jwt or error")),
        };
        Ok(Self {
            issuer_account: read.issuer_account()?,
            user: read.subject(),
            server: server.ok_or(NatsJwtError::Claims("aud is no server"))?,
            outcome,
        })
    }
}

#[cfg(test)]
mod tests {
    use portcullis_nkey::KeyPair;

    use super::*;

    #[test]
    fn refusals_are_a_fixed_set_that_no_log_takes_for_a_directive() {
        for denial in Denial::ALL {
            assert!(denial.text().bytes().all(|b| b.is_ascii_lowercase() || b == b' '), "{denial:?}");
        }
    }

    #[test]
    fn an_answer_survives_its_token() {
        let pair = |kind| KeyPair::generate(kind).unwrap();
        let (user, server) = (pair(Kind::User).public(), pair(Kind::Server).public());
        let account = pair(Kind::Account);
        let (public, now) = (account.public(), OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap());
        let own = AccountSigner::account(account).unwrap();
        let signing = AccountSigner::signing_key(pair(Kind::Account), public).unwrap();
        for signer in [own, signing] {
            let read = Response::parse(&Outcome::User("a.b.c").sign(&signer, user, server, now).unwrap()).unwrap();
            assert_eq!(read, Response { issuer_account: public, user, server, outcome: Ok("a.b.c".to_owned()) });
            let denied = Outcome::Denied(Denial::Policy).sign(&signer, user, server, now).unwrap();
            assert_eq!(Response::parse(&denied).unwrap().outcome, Err("denied by policy".to_owned()));
            assert!(Outcome::User("a").sign(&signer, server, server, now).is_err(), "a server is no user");
            assert!(Outcome::User("a").sign(&signer, user, user, now).is_err(), "a user is no server");
            assert!(Response::parse(&Outcome::User("").sign(&signer, user, server, now).unwrap()).is_err());
        }
    }
}
