//! What of a site in operator mode has an end, made anew: the same users, of the same accounts, signed by the same keys, with the
//! same rights, and a later end. Pure: what stands in the files comes in, what is to stand there comes out.
//!
//! Refuses a token that is anything else than what `callout init` writes, whoever changed it: a renewal must not give what nobody
//! decided, nor take away what somebody did.

use portcullis_identity::nats_jwt::{AccountSigner, NatsJwtError, TokenType, Verified};
use portcullis_nkey::PublicKey;
use time::OffsetDateTime;

use super::site_user::SiteUser;

/// A token that was made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    /// The token.
    pub jwt: String,
    /// When the one of before ends.
    pub before: Option<OffsetDateTime>,
}

/// Why something is not made anew. The operator erred, or somebody changed a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenewError {
    /// None at all.
    #[error("it is no user's JWT: {0}")]
    Jwt(#[from] NatsJwtError),
    /// Signed by another key.
    #[error("it was signed by {found}, not by the account's key in the offline folder, {wanted}")]
    Signer {
        /// By which.
        found: PublicKey,
        /// Which is at hand.
        wanted: PublicKey,
    },
    /// Of another user.
    #[error("it is of the user {0}, whose key is not that of `nkey`")]
    User(PublicKey),
    /// Changed by hand.
    #[error(
        "it says something else than `callout init` writes ({0}): somebody changed it, and a renewal would undo that"
    )]
    Changed(&'static str),
    /// It would end sooner.
    #[error("it ends later than the new one would")]
    Sooner,
    /// Not where it is expected.
    #[error("the default_sentinel stands {0} times in the text of this file, not once")]
    Place(usize),
}

impl RenewError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Jwt(error) => error.hint(),
            Self::Signer { .. } => "bring the offline folder of this very site, or renew it where it was made",
            Self::User(_) => "put the token back that belongs to the key, or name the key that belongs to the token",
            Self::Changed(_) => "renew it with the tool that made it (nsc), or put what `callout init` wrote back",
            Self::Sooner => "ask for more days with --valid; nothing needs to be renewed now",
            Self::Place(_) => {
                "renew it by hand, or write `default_sentinel: \"eyJ..\"` into server.conf itself, without a variable"
            }
        }
    }
}

/// The token of a user once more. `key` is the user's, where there is a seed of it.
pub fn token(
    user: SiteUser,
    old: &str,
    key: Option<PublicKey>,
    signer: &AccountSigner,
    until: OffsetDateTime,
    now: OffsetDateTime,
) -> Result<Renewed, RenewError> {
    let old = Verified::parse(old.trim(), TokenType::User)?;
    if old.issuer() != signer.public() {
        return Err(RenewError::Signer { found: old.issuer(), wanted: signer.public() });
    }
    if key.is_some_and(|key| key != old.subject()) {
        return Err(RenewError::User(old.subject()));
    }
    let jwt = user.token(old.subject(), signer, until, now)?;
    let new = Verified::parse(&jwt, TokenType::User)?;
    for (what, is_same) in [
        ("name", old.name() == new.name()),
        ("audience", old.audience() == new.audience()),
        ("beginning", old.not_before() == new.not_before()),
        ("rights", old.nats() == new.nats()),
    ] {
        if !is_same {
            return Err(RenewError::Changed(what));
        }
    }
    // One without an end was made by somebody else.
    let before = old.expires_at().ok_or(RenewError::Changed("end"))?;
    if new.expires_at().is_none_or(|end| end < before) {
        return Err(RenewError::Sooner);
    }
    Ok(Renewed { jwt, before: Some(before) })
}

/// The text of a server's configuration with another sentinel in the place of this one, and nothing else changed.
pub fn with_sentinel(config: &str, old: &str, new: &str) -> Result<String, RenewError> {
    match config.matches(old).count() {
        1 if !old.is_empty() => Ok(config.replacen(old, new, 1)),
        count => Err(RenewError::Place(count)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portcullis_identity::nats_jwt::{Permissions, Rights, UserToken};
    use portcullis_nkey::{KeyPair, Kind};

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(NOW).unwrap()
    }

    fn signer() -> AccountSigner {
        AccountSigner::account(KeyPair::generate(Kind::Account).unwrap()).unwrap()
    }

    fn user() -> PublicKey {
        KeyPair::generate(Kind::User).unwrap().public()
    }

    #[test]
    fn a_renewed_token_is_the_one_of_before_with_another_end() {
        let (signer, until) = (signer(), now() + Duration::from_secs(500));
        for kind in [SiteUser::Callout, SiteUser::Revoker, SiteUser::Sentinel] {
            let user = user();
            let old = kind.token(user, &signer, now() + Duration::from_secs(9), now()).unwrap();
            // Also when it is over already.
            let later = now() + Duration::from_secs(100);
            let new = token(kind, &format!("{old}\n"), Some(user), &signer, until, later).unwrap();
            assert_eq!(new.before.unwrap().unix_timestamp(), NOW + 9);
            let (old, new) =
                (Verified::parse(&old, TokenType::User).unwrap(), Verified::parse(&new.jwt, TokenType::User).unwrap());
            assert_eq!((old.nats(), old.subject(), old.issuer()), (new.nats(), new.subject(), new.issuer()));
            assert_eq!(new.expires_at(), Some(until));
        }
    }

    #[test]
    fn what_is_not_as_init_writes_it_is_not_renewed() {
        let (signer, user, until) = (signer(), user(), now() + Duration::from_secs(500));
        let end = now() + Duration::from_secs(9);
        let old = SiteUser::Callout.token(user, &signer, end, now()).unwrap();
        let again = |kind, old: &str, key, signer: &AccountSigner, until| token(kind, old, key, signer, until, now());
        let stranger = super::tests::signer();
        let other = again(SiteUser::Callout, &old, Some(user), &stranger, until);
        assert!(matches!(other, Err(RenewError::Signer { .. })), "{other:?}");
        let other = again(SiteUser::Callout, &old, Some(super::tests::user()), &signer, until);
        assert!(matches!(other, Err(RenewError::User(_))), "{other:?}");
        assert_eq!(
            again(SiteUser::Callout, &old, Some(user), &signer, now() + Duration::from_secs(8)),
            Err(RenewError::Sooner)
        );
        assert!(matches!(again(SiteUser::Callout, "noise", Some(user), &signer, until), Err(RenewError::Jwt(_))));
        // The callout's in the place of the revoker's, and the other way round.
        assert_eq!(again(SiteUser::Revoker, &old, Some(user), &signer, until), Err(RenewError::Changed("name")));
        // The same name with other rights, more or fewer.
        for (publish, is_bearer) in [(vec![">"], false), (vec![], false), (vec!["$SYS.REQ.USER.INFO"], true)] {
            let publish = publish.iter().map(|text| text.parse().unwrap()).collect();
            let rights = Rights::Explicit(Permissions::new(publish, vec![], None).unwrap());
            let made = UserToken::new(user, "callout".parse().unwrap(), rights, end).unwrap();
            let made = if is_bearer { made.danger_bearer() } else { made };
            let old = made.sign(&signer, now()).unwrap();
            assert_eq!(again(SiteUser::Callout, &old, Some(user), &signer, until), Err(RenewError::Changed("rights")));
        }
    }

    #[test]
    fn the_sentinel_is_replaced_in_its_place_and_nothing_else_is() {
        let text = "# mine\nport: 1\ndefault_sentinel: \"eyJold\"\nhttp: 2";
        assert_eq!(with_sentinel(text, "eyJold", "eyJnew").unwrap(), text.replace("eyJold", "eyJnew"));
        assert_eq!(with_sentinel(text, "eyJother", "eyJnew"), Err(RenewError::Place(0)));
        assert_eq!(with_sentinel(&text.repeat(2), "eyJold", "eyJnew"), Err(RenewError::Place(2)));
        assert!(with_sentinel(text, "", "eyJnew").is_err());
    }
}
