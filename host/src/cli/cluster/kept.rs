//! What is stored at a place of a cluster, as far as an operator can judge it, and which version may follow it.
//!
//! INVARIANT: no version is published that is not above the stored one: hosts would refuse it, and the next one would be counted
//! from it. What cannot be read, or is signed for something else, is replaced only with a version that the operator names.

use portcullis_cluster::{Manifest, Place, PolicyDocument, RevocationList};
use portcullis_identity::statement::{Envelope, Expected, Signers, StatementError, check};
use time::OffsetDateTime;

use crate::cli::error::{CliError, exit};

/// What is stored at a place.
#[derive(Debug)]
pub enum Kept<T> {
    /// Nothing was ever.
    Nothing,
    /// Something was.
    Deleted,
    /// No value of this place.
    Unreadable {
        /// Stable code.
        code: &'static str,
        /// Why.
        why: String,
    },
    /// A document. `doubt` says why this operator cannot tell whether its signer may say so: hosts can.
    Document {
        /// What it says.
        document: T,
        /// Why it is not certain.
        doubt: Option<String>,
    },
}

/// A payload that is stored under a version.
pub trait Versioned: Sized {
    /// What names its version on the command line.
    const FLAG: &'static str;
    /// Whether what follows takes over what is stored: signing it on is vouching for it.
    const CARRIED: bool;
    /// Reads a payload.
    fn read(payload: &[u8], at: &Place) -> Result<Self, String>;
    /// Its version.
    fn number(&self) -> u64;
}

impl Versioned for Manifest {
    const FLAG: &'static str = "--version";
    const CARRIED: bool = false;

    fn read(payload: &[u8], at: &Place) -> Result<Self, String> {
        let manifest = Self::parse(payload).map_err(|error| error.to_string())?;
        match at {
            Place::App(name) if name == manifest.component() => Ok(manifest),
            _ => Err("it is about another component".to_owned()),
        }
    }

    fn number(&self) -> u64 {
        self.version()
    }
}

impl Versioned for RevocationList {
    const FLAG: &'static str = "--epoch";
    const CARRIED: bool = true;

    fn read(payload: &[u8], _at: &Place) -> Result<Self, String> {
        Self::parse(payload).map_err(|error| error.to_string())
    }

    fn number(&self) -> u64 {
        self.epoch()
    }
}

impl Versioned for PolicyDocument {
    const FLAG: &'static str = "--version";
    const CARRIED: bool = false;

    fn read(payload: &[u8], _at: &Place) -> Result<Self, String> {
        Self::parse(payload).map_err(|error| error.to_string())
    }

    fn number(&self) -> u64 {
        self.version()
    }
}

impl<T: Versioned> Kept<T> {
    /// Judges a stored value; an empty one was deleted.
    pub fn judge(value: &[u8], at: &Place, audience: &str, signers: &Signers, now: OffsetDateTime) -> Self {
        if value.is_empty() {
            return Self::Deleted;
        }
        let refused = |error: &StatementError| Self::Unreadable { code: error.code(), why: error.to_string() };
        let Envelope { statement, payload } = match Envelope::parse(value) {
            Ok(envelope) => envelope,
            Err(error) => return refused(&error),
        };
        let (version, doubt) =
            match check(&statement, &payload, &Expected::kept(audience, &at.statement()), signers, now) {
                Ok(statement) => (statement.version(), None),
                // Another operator, or one whose certificate ended: which of them hosts believe is not known here.
                Err(
                    error @ (StatementError::UnknownKey(_)
                    | StatementError::Chain(_)
                    | StatementError::Expired
                    | StatementError::NotYetValid
                    | StatementError::TooLong),
                ) => (None, Some(error.to_string())),
                Err(error) => return refused(&error),
            };
        match T::read(&payload, at) {
            Ok(document) if doubt.is_some() || version == Some(document.number()) => Self::Document { document, doubt },
            Ok(_) => Self::Unreadable { code: "cluster.mismatch", why: "it is signed for another version".to_owned() },
            Err(why) => Self::Unreadable { code: "cluster.malformed", why },
        }
    }

    /// The version of what is published next: the one that was asked for, or one more than the stored one.
    pub fn next(&self, asked: Option<u64>, at: &Place) -> Result<u64, CliError> {
        let (flag, place) = (T::FLAG, at.statement());
        match (self, asked) {
            (Self::Nothing, asked) => Ok(asked.unwrap_or(1)),
            (Self::Deleted | Self::Unreadable { .. }, Some(asked)) => Ok(asked),
            (Self::Deleted, None) => Err(CliError::usage(format!(
                "what was at {place} was deleted: which version hosts have seen is not known"
            ))
            .with_hint(format!("name a higher one with {flag}"))),
            (Self::Unreadable { code, why }, None) => Err(CliError::new(
                exit::SIGNATURE,
                code,
                format!("what is at {place} is no value of a cluster: {why}"),
            )
            .with_hint(format!(
                "somebody wrote there who should not; a new value replaces it, above all that hosts have seen: name that with {flag}"
            ))),
            (Self::Document { document, doubt }, asked) => {
                let stored = document.number();
                let next = stored.checked_add(1).ok_or_else(|| {
                    CliError::usage(format!("{stored} is stored at {place}: nothing is above it"))
                        .with_hint("whoever administers the bucket has to remove that value; a version is named then")
                })?;
                match asked {
                    // Somebody may have left out whom hosts refuse: it is signed on by whoever looked at it and says so.
                    None if T::CARRIED && doubt.is_some() => {
                        let why = doubt.as_deref().unwrap_or_default();
                        let message = format!("what is stored at {place} is not proven, and would be taken over: {why}");
                        let hint = format!("see that it names all that is revoked, then say so by {flag} {next}");
                        Err(CliError::new(exit::SIGNATURE, "cluster.unproven", message).with_hint(hint))
                    }
                    None => Ok(next),
                    Some(asked) if asked > stored => Ok(asked),
                    Some(asked) => Err(CliError::usage(format!(
                        "{flag} {asked} is not above {stored}, which is stored at {place}: hosts would refuse it"
                    ))
                    .with_hint(format!("leave {flag} out for {next}, or name a higher one"))),
                }
            }
        }
    }

    /// What is to be said before something follows it.
    pub fn remark(&self, at: &Place) -> Option<String> {
        let place = at.statement();
        match self {
            Self::Nothing | Self::Document { doubt: None, .. } => None,
            Self::Deleted => {
                Some(format!("what was at {place} was deleted; hosts refuse what is not above what they saw"))
            }
            Self::Unreadable { why, .. } => Some(format!(
                "what is at {place} is no value of a cluster ({why}) and is replaced; hosts refuse what is not above what they saw"
            )),
            Self::Document { document, doubt: Some(why) } => Some(format!(
                "{} at {place} is signed by somebody whom this operator cannot check ({why}); what follows is counted from it",
                document.number()
            )),
        }
    }

    /// What it says, where it can be read.
    pub fn document(&self) -> Option<&T> {
        match self {
            Self::Document { document, .. } => Some(document),
            Self::Nothing | Self::Deleted | Self::Unreadable { .. } => None,
        }
    }

    /// Whether something was there that cannot be known any more.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Deleted | Self::Unreadable { .. })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use portcullis_cluster::RevocationEdit;
    use portcullis_identity::TrustBundle;
    use portcullis_identity::statement::{Draft, Jti, UserSeed};

    use super::*;

    const AUDIENCE: &str = "cluster:test";

    fn now() -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    fn seed() -> UserSeed {
        UserSeed::parse(&portcullis_nkey::KeyPair::generate(portcullis_nkey::Kind::User).unwrap().seed()).unwrap()
    }

    fn list(epoch: u64) -> RevocationList {
        RevocationList::empty(0).at(epoch, &RevocationEdit::default(), &RevocationEdit::default()).unwrap()
    }

    fn value(seed: &UserSeed, place: &Place, version: u64, payload: &[u8]) -> Vec<u8> {
        let jti: Jti = ulid::Ulid::generate().to_string().parse().unwrap();
        let place = place.statement();
        let life = Duration::from_secs(3600);
        let draft = Draft::by_nkey(seed.public(), AUDIENCE, &place, jti, life, payload).unwrap().version(version);
        let statement = draft.token(&seed.sign(draft.signing_input().as_bytes()));
        Envelope { statement, payload: payload.to_vec() }.to_json().into_bytes()
    }

    fn judged(bytes: &[u8], known: &UserSeed) -> Kept<RevocationList> {
        let signers = Signers::new(Arc::new(TrustBundle::new()), [known.public()]);
        Kept::judge(bytes, &Place::Revoked, AUDIENCE, &signers, now())
    }

    #[test]
    fn only_what_is_above_the_stored_version_follows_it() {
        let own = seed();
        let kept = judged(&value(&own, &Place::Revoked, 5, &list(5).to_json()), &own);
        assert_eq!(kept.next(None, &Place::Revoked).unwrap(), 6);
        assert_eq!(kept.next(Some(9), &Place::Revoked).unwrap(), 9);
        for low in [0, 2, 5] {
            let error = kept.next(Some(low), &Place::Revoked).unwrap_err();
            assert_eq!(error.exit(), exit::USAGE);
            assert!(error.message().contains("is not above 5"), "{error}");
            assert!(error.hint().unwrap().contains("leave --epoch out for 6"), "{error}");
        }
        assert_eq!(kept.remark(&Place::Revoked), None);
        let last = judged(&value(&own, &Place::Revoked, u64::MAX, &list(u64::MAX).to_json()), &own);
        assert!(last.next(None, &Place::Revoked).is_err() && last.next(Some(7), &Place::Revoked).is_err());
        assert_eq!(Kept::<RevocationList>::Nothing.next(None, &Place::Revoked).unwrap(), 1);
    }

    #[test]
    fn a_list_of_somebody_else_is_signed_on_by_whoever_says_so_alone() {
        let kept = judged(&value(&seed(), &Place::Revoked, 5, &list(5).to_json()), &seed());
        let error = kept.next(None, &Place::Revoked).unwrap_err();
        assert_eq!((error.exit(), error.code()), (exit::SIGNATURE, "cluster.unproven"));
        assert!(error.hint().unwrap().contains("--epoch 6"), "{error}");
        assert_eq!(kept.next(Some(6), &Place::Revoked).unwrap(), 6);
        assert!(kept.next(Some(5), &Place::Revoked).is_err());
        assert!(kept.remark(&Place::Revoked).unwrap().contains("whom this operator cannot check"));
    }

    #[test]
    fn what_is_no_value_of_the_place_is_replaced_by_a_named_version_alone() {
        let own = seed();
        let payload = list(5).to_json();
        let app = Place::App("shop:cart".parse().unwrap());
        for (what, bytes) in [
            ("bytes", b"hello".to_vec()),
            ("a payload alone", payload.clone()),
            ("of another place", value(&own, &app, 5, &payload)),
            ("of another version", value(&own, &Place::Revoked, 4, &payload)),
            ("no list", value(&own, &Place::Revoked, 5, b"{}")),
            ("deleted", Vec::new()),
        ] {
            let kept = judged(&bytes, &own);
            assert!(kept.is_lost() && kept.document().is_none(), "{what}: {kept:?}");
            let error = kept.next(None, &Place::Revoked).unwrap_err();
            assert!(error.hint().unwrap().contains("--epoch"), "{what}: {error}");
            assert_eq!(kept.next(Some(3), &Place::Revoked).unwrap(), 3, "{what}");
            assert!(kept.remark(&Place::Revoked).is_some(), "{what}");
        }
    }
}
