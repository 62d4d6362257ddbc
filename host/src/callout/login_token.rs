//! A login's token in a file of its own, beside the seed of its user. It has an end and is no secret, so it is renewed while the
//! callout runs, and read again at each connection. What cannot be used changes nothing: the last good one is shown then, until
//! the server refuses it. Trusts nothing about who signed it: that is the server's to judge. Refuses a token of another user, or
//! of another account than the one that it had at the start.

use std::path::{Path, PathBuf};

use arc_swap::ArcSwap;
use portcullis_identity::nats_jwt::{NatsJwtError, TokenType, Verified};
use portcullis_nkey::{KeyPair, PublicKey};
use time::OffsetDateTime;

use super::service::CalloutError;
use crate::cli::files::read_text;
use crate::limits::CONFIG_BYTES;

/// The key of a user, and its token.
#[derive(Debug)]
pub struct LoginToken {
    path: PathBuf,
    key: KeyPair,
    last: ArcSwap<Token>,
}

/// A token of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    jwt: String,
    account: PublicKey,
    expires_at: Option<OffsetDateTime>,
}

/// Why a token is not taken. Whoever put it there erred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// None at all.
    #[error("it is no user's JWT: {0}")]
    Jwt(#[from] NatsJwtError),
    /// Of another user.
    #[error("it is of the user {0}, whose key is not that of `nkey`")]
    User(PublicKey),
    /// Of another account.
    #[error("it is of the account {0}, not of the one that it was of at the start")]
    Account(PublicKey),
    /// Over.
    #[error("it has ended already")]
    Ended,
}

impl TokenError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Jwt(error) => error.hint(),
            Self::User(_) => "give the token of the user whose seed `nkey` names; `portcullis callout renew` makes it",
            Self::Account(_) => "another account needs another callout.toml, and a restart",
            Self::Ended => "`portcullis callout renew` makes a new one",
        }
    }
}

impl Token {
    /// The token of this user.
    pub fn parse(text: &str, user: PublicKey) -> Result<Self, TokenError> {
        let jwt = text.trim();
        let read = Verified::parse(jwt, TokenType::User)?;
        if read.subject() != user {
            return Err(TokenError::User(read.subject()));
        }
        Ok(Self { jwt: jwt.to_owned(), account: read.issuer_account()?, expires_at: read.expires_at() })
    }

    /// The token that takes the place of this one.
    fn followed_by(&self, text: &str, user: PublicKey, now: OffsetDateTime) -> Result<Self, TokenError> {
        let next = Self::parse(text, user)?;
        if next.account != self.account {
            return Err(TokenError::Account(next.account));
        }
        if next.expires_at.is_some_and(|end| end <= now) {
            return Err(TokenError::Ended);
        }
        Ok(next)
    }
}

impl LoginToken {
    /// The token of this key's user.
    pub fn read(path: &Path, key: KeyPair) -> Result<Self, CalloutError> {
        let token = text(path).and_then(|text| {
            Token::parse(&text, key.public()).map_err(|why| CalloutError::file(path, &why, why.hint()))
        })?;
        Ok(Self { path: path.to_path_buf(), key, last: ArcSwap::from_pointee(token) })
    }

    /// The user's key.
    pub fn key(&self) -> &KeyPair {
        &self.key
    }

    /// The token to show now: what is in the file, or what was there when it was good last.
    pub fn current(&self, now: OffsetDateTime) -> String {
        let last = self.last.load_full();
        let next = text(&self.path).map_err(|error| error.to_string()).and_then(|text| {
            let next = last.followed_by(&text, self.key.public(), now);
            next.map_err(|why| format!("{}: {why}; hint: {}", self.path.display(), why.hint()))
        });
        match next {
            Ok(next) if next == *last => {}
            Ok(next) => {
                tracing::info!(path = %self.path.display(), "logs in with the token that is there now");
                self.last.store(std::sync::Arc::new(next));
            }
            Err(why) => tracing::warn!("logs in with the token of before: {why}"),
        }
        self.last.load().jwt.clone()
    }
}

fn text(path: &Path) -> Result<String, CalloutError> {
    read_text(path, CONFIG_BYTES, "login's JWT")
        .map_err(|error| CalloutError::config(error.message(), error.hint().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portcullis_identity::nats_jwt::AccountSigner;
    use portcullis_nkey::Kind;

    use super::*;
    use crate::callout::site_user::SiteUser;

    fn pair(kind: Kind) -> KeyPair {
        KeyPair::generate(kind).unwrap()
    }

    #[test]
    fn a_renewed_token_is_taken_up_and_one_of_somebody_else_or_that_has_ended_is_not() {
        let now = crate::clock::now();
        let (account, other) = (pair(Kind::Account), pair(Kind::Account));
        let (account, other) = (AccountSigner::account(account).unwrap(), AccountSigner::account(other).unwrap());
        let user = pair(Kind::User);
        let token = |user: PublicKey, signer, seconds: u64| {
            let made = now - Duration::from_secs(100);
            SiteUser::Callout.token(user, signer, made + Duration::from_secs(100 + seconds), made).unwrap()
        };
        let ended = SiteUser::Callout.token(user.public(), &account, now, now - Duration::from_secs(9)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("callout.jwt");
        let first = token(user.public(), &account, 60);
        std::fs::write(&path, format!("{first}\n")).unwrap();
        let public = user.public();
        let login = LoginToken::read(&path, user).unwrap();
        assert_eq!(login.current(now), first);
        let second = token(public, &account, 3600);
        std::fs::write(&path, &second).unwrap();
        assert_eq!(login.current(now), second);
        let stranger = token(pair(Kind::User).public(), &account, 7200);
        for bad in [&stranger, &token(public, &other, 7200), &ended, "noise", ""] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(login.current(now), second, "{bad}");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(login.current(now), second);
        std::fs::write(&path, stranger).unwrap();
        assert!(LoginToken::read(&path, pair(Kind::User)).is_err());
    }
}
