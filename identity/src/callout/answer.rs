//! The answer: a decision about somebody proven, signed as the server demands and sealed for it alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis_nkey::PublicKey;
use time::OffsetDateTime;

use super::credential::Proven;
use super::request::Request;
use crate::limits::CALLOUT_CLOCK_SKEW;
use crate::nats_jwt::{
    AccountName, AccountSigner, Denial, NatsJwtError, Outcome, Rights, SignerError, UserName, UserToken,
};
use crate::xkey::{XKey, XKeyError};

/// Makes answers.
#[derive(Debug)]
pub struct Answers {
    signer: AccountSigner,
    xkey: Option<Arc<XKey>>,
    targets: Targets,
}

/// The accounts that somebody may be placed in.
#[derive(Debug)]
pub enum Targets {
    /// Accounts mode: those of the server's configuration, by name. The key that answers places into any of them, so this list
    /// is all that keeps somebody out of an account; the system account and the callout's own are not put in it.
    Named(BTreeSet<AccountName>),
    /// Operator mode: each with a key of its own; an account may have several roles, each with a scoped signing key.
    Signed(BTreeMap<(AccountName, Option<String>), Target>),
}

/// An account in operator mode.
#[derive(Debug)]
pub struct Target {
    signer: AccountSigner,
    scoped: bool,
}

/// What was decided about somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Where to.
    pub account: AccountName,
    /// As what: names a scoped signing key of the account.
    pub role: Option<String>,
    /// What it may do there.
    pub rights: Rights,
    /// Until when, if its credentials last so long.
    pub expires_at: OffsetDateTime,
}

/// The bytes to reply with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    payload: Vec<u8>,
    expires_at: Option<OffsetDateTime>,
}

/// Why there is no answer. Configuration erred, or it took too long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Not among the accounts.
    #[error("nobody is placed into the account {0} here")]
    Account(AccountName),
    /// The system account, or that of the callout.
    #[error("nobody is placed into the system account or the callout's own")]
    Reserved,
    /// Permissions for a scoped signing key, or tags for another.
    #[error(
        "the decision's rights do not fit the account's key: a scoped signing key takes tags, any other permissions"
    )]
    Rights,
    /// Nobody waits any more.
    #[error("the server does not wait for the answer any more")]
    Late,
    /// A token could not be made.
    #[error(transparent)]
    Token(#[from] NatsJwtError),
    /// It could not be sealed.
    #[error(transparent)]
    Seal(#[from] XKeyError),
}

impl AnswerError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Account(_) => "add the account to the callout's configuration, or place into one that is there",
            Self::Reserved => "give workloads an account of their own",
            Self::Rights => "see that roles and signing keys of the callout's configuration fit together",
            Self::Late => "start more replicas of the callout",
            Self::Token(error) => error.hint(),
            Self::Seal(error) => error.hint(),
        }
    }
}

impl Target {
    /// An account whose users get explicit permissions.
    pub fn explicit(signer: AccountSigner) -> Self {
        Self { signer, scoped: false }
    }

    /// An account with a scoped signing key: its users get what the key's template says.
    pub fn scoped(signer: AccountSigner) -> Result<Self, SignerError> {
        if signer.is_signing_key() { Ok(Self { signer, scoped: true }) } else { Err(SignerError::OwnKey) }
    }
}

impl Answers {
    /// In accounts mode: `issuer` is `auth_callout.issuer`. `reserved`: the system account and the callout's own.
    pub fn accounts_mode(
        issuer: AccountSigner,
        xkey: Option<Arc<XKey>>,
        accounts: BTreeSet<AccountName>,
        reserved: &BTreeSet<AccountName>,
    ) -> Result<Self, AnswerError> {
        if issuer.is_signing_key() {
            return Err(NatsJwtError::from(SignerError::SigningKey).into());
        }
        if !accounts.is_disjoint(reserved) {
            return Err(AnswerError::Reserved);
        }
        Ok(Self { signer: issuer, xkey, targets: Targets::Named(accounts) })
    }

    /// In operator mode: `signer` is of the account with the callout. `system`: the key of the system account.
    pub fn operator_mode(
        signer: AccountSigner,
        xkey: Option<Arc<XKey>>,
        accounts: BTreeMap<(AccountName, Option<String>), Target>,
        system: Option<PublicKey>,
    ) -> Result<Self, AnswerError> {
        let reserved = |account| account == signer.of_account() || Some(account) == system;
        if accounts.values().any(|target| reserved(target.signer.of_account())) {
            return Err(AnswerError::Reserved);
        }
        Ok(Self { signer, xkey, targets: Targets::Signed(accounts) })
    }

    /// Lets somebody in. It ends with the first of its credentials, at the latest.
    pub fn allow(
        &self,
        request: &Request,
        proven: &Proven,
        decision: Decision,
        now: OffsetDateTime,
    ) -> Result<Answer, AnswerError> {
        in_time(request, now)?;
        let expires_at = decision.expires_at.min(proven.not_after());
        let name = UserName::from(proven.spiffe_id());
        let explicit = matches!(decision.rights, Rights::Explicit(_));
        let user = UserToken::new(request.user_nkey(), name, decision.rights, expires_at)?;
        let token = match &self.targets {
            Targets::Named(accounts) if !accounts.contains(&decision.account) => {
                return Err(AnswerError::Account(decision.account));
            }
            Targets::Named(_) if !explicit => return Err(AnswerError::Rights),
            Targets::Named(_) => user.in_account(decision.account).sign(&self.signer, now)?,
            Targets::Signed(accounts) => match accounts.get(&(decision.account.clone(), decision.role)) {
                None => return Err(AnswerError::Account(decision.account)),
                Some(target) if target.scoped == explicit => return Err(AnswerError::Rights),
                Some(target) => user.sign(&target.signer, now)?,
            },
        };
        self.answer(request, Outcome::User(&token), Some(expires_at), now)
    }

    /// Refuses somebody.
    pub fn deny(&self, request: &Request, denial: Denial, now: OffsetDateTime) -> Result<Answer, AnswerError> {
        in_time(request, now)?;
        self.answer(request, Outcome::Denied(denial), None, now)
    }

    fn answer(
        &self,
        request: &Request,
        outcome: Outcome<'_>,
        expires_at: Option<OffsetDateTime>,
        now: OffsetDateTime,
    ) -> Result<Answer, AnswerError> {
        let token = outcome.sign(&self.signer, request.user_nkey(), request.server_id(), now)?;
        let payload = match (&self.xkey, request.server_xkey()) {
            (Some(xkey), Some(server)) => xkey.seal(&server, token.as_bytes())?,
            (None, None) => token.into_bytes(),
            // Never in plain text where a key is configured, and no request got here without it.
            _ => return Err(XKeyError::Peer.into()),
        };
        Ok(Answer { payload, expires_at })
    }
}

impl Answer {
    /// The bytes.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The bytes, to send.
    pub fn into_payload(self) -> Vec<u8> {
        self.payload
    }

    /// When the user that was let in must come again; `None`: nobody was.
    pub fn expires_at(&self) -> Option<OffsetDateTime> {
        self.expires_at
    }
}

fn in_time(request: &Request, now: OffsetDateTime) -> Result<(), AnswerError> {
    if now >= request.expires_at() + CALLOUT_CLOCK_SKEW { Err(AnswerError::Late) } else { Ok(()) }
}
