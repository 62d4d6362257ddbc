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

#[cfg(test)]
mod tests {
    use portcullis_nkey::{KeyPair, Kind};
    use serde_json::json;

    use super::*;
    use crate::callout::forge::{Domain, Forge, MINUTE, NOW, at, now, trusting};
    use crate::nats_jwt::{Permissions, Response, Tag, TokenType, Verified};

    struct Site {
        forge: Forge,
        request: Request,
        proven: Proven,
    }

    fn site() -> Site {
        let (forge, domain) = (Forge::new(), Domain::new("td-a.test"));
        let token = domain.token(&json!({"sub": "spiffe://td-a.test/host/h1", "aud": "callout", "exp": NOW + 300}));
        let request = forge.shows(|nats| nats["connect_opts"]["auth_token"] = json!(token));
        let proven = request.prove(&trusting(&domain, &[]), &"callout".parse().unwrap(), now()).unwrap();
        Site { forge, request, proven }
    }

    fn pair() -> KeyPair {
        KeyPair::generate(Kind::Account).unwrap()
    }

    fn name(text: &str) -> AccountName {
        text.parse().unwrap()
    }

    fn decision(account: &str, role: Option<&str>, rights: Rights, ends: i64) -> Decision {
        Decision { account: name(account), role: role.map(str::to_owned), rights, expires_at: at(ends) }
    }

    fn nothing() -> Rights {
        Rights::Explicit(Permissions::none())
    }

    fn named(site: &Site, xkey: bool) -> Answers {
        let xkey = xkey.then(|| Arc::clone(&site.forge.ours));
        let signer = AccountSigner::account(pair()).unwrap();
        Answers::accounts_mode(signer, xkey, [name("APP")].into(), &[name("SYS")].into()).unwrap()
    }

    fn opened(site: &Site, answer: &Answer) -> Response {
        let plain = site.forge.server_xkey.open(&site.forge.ours.public(), answer.payload()).unwrap();
        Response::parse(std::str::from_utf8(&plain).unwrap()).unwrap()
    }

    #[test]
    fn who_is_let_in_gets_one_users_token_sealed_for_the_server() {
        let site = site();
        let answers = named(&site, true);
        let answer = answers.allow(&site.request, &site.proven, decision("APP", None, nothing(), 60), now()).unwrap();
        let response = opened(&site, &answer);
        assert_eq!((response.user, response.server), (site.forge.user, site.forge.server.public()));
        let user = Verified::parse(&response.outcome.unwrap(), TokenType::User).unwrap();
        assert_eq!((user.subject(), user.audience()), (site.forge.user, Some("APP")));
        assert_eq!(user.issuer(), response.issuer_account);
        assert_eq!(user.name(), Some("spiffe://td-a.test/host/h1"));
        assert_eq!((user.expires_at(), answer.expires_at()), (Some(at(60)), Some(at(60))));
        assert_eq!(user.nats().get("sub"), Some(&json!({"deny": [">"]})));
    }

    #[test]
    fn a_user_ends_with_its_credential_at_the_latest() {
        let site = site();
        let long = decision("APP", None, nothing(), 3600);
        let answer = named(&site, true).allow(&site.request, &site.proven, long, now()).unwrap();
        let user = Verified::parse(&opened(&site, &answer).outcome.unwrap(), TokenType::User).unwrap();
        assert_eq!(user.expires_at(), Some(at(300)));
        let over = decision("APP", None, nothing(), 0);
        let refused = named(&site, true).allow(&site.request, &site.proven, over, now());
        assert_eq!(refused, Err(AnswerError::Token(NatsJwtError::AlreadyOver)));
    }

    #[test]
    fn a_refusal_is_one_of_few_texts() {
        let site = site();
        for denial in Denial::ALL {
            let answer = named(&site, true).deny(&site.request, denial, now()).unwrap();
            assert_eq!(opened(&site, &answer).outcome, Err(denial.text().to_owned()));
            assert_eq!(answer.expires_at(), None);
        }
    }

    #[test]
    fn nobody_is_placed_into_an_account_that_is_not_listed_or_is_reserved() {
        let site = site();
        for account in ["SYS", "OTHER", "AUTH", "app"] {
            let refused =
                named(&site, true).allow(&site.request, &site.proven, decision(account, None, nothing(), 60), now());
            assert_eq!(refused, Err(AnswerError::Account(name(account))));
        }
        let signer = || AccountSigner::account(pair()).unwrap();
        let listed = Answers::accounts_mode(signer(), None, [name("APP"), name("SYS")].into(), &[name("SYS")].into());
        assert_eq!(listed.err(), Some(AnswerError::Reserved));
        let signing = AccountSigner::signing_key(pair(), pair().public()).unwrap();
        assert!(Answers::accounts_mode(signing, None, [name("APP")].into(), &BTreeSet::new()).is_err());
        let own = signer();
        let (callout, system) = (own.of_account(), pair());
        for reserved in [
            AccountSigner::signing_key(pair(), callout).unwrap(),
            AccountSigner::signing_key(pair(), system.public()).unwrap(),
        ] {
            let targets = BTreeMap::from([((name("APP"), None), Target::explicit(reserved))]);
            let own = AccountSigner::signing_key(pair(), callout).unwrap();
            let refused = Answers::operator_mode(own, None, targets, Some(system.public()));
            assert_eq!(refused.err(), Some(AnswerError::Reserved));
        }
    }

    #[test]
    fn a_scoped_key_takes_tags_and_any_other_permissions() {
        let site = site();
        let app = pair().public();
        let signing = || AccountSigner::signing_key(pair(), app).unwrap();
        let targets = BTreeMap::from([
            ((name("APP"), Some("host".to_owned())), Target::scoped(signing()).unwrap()),
            ((name("APP"), None), Target::explicit(signing())),
        ]);
        let signer = AccountSigner::account(pair()).unwrap();
        let answers = Answers::operator_mode(signer, Some(Arc::clone(&site.forge.ours)), targets, None).unwrap();
        let tags = || Rights::Scoped(vec![Tag::new("host", "h1").unwrap()]);
        let allow = |role, rights| answers.allow(&site.request, &site.proven, decision("APP", role, rights, 60), now());
        let answer = allow(Some("host"), tags()).unwrap();
        let user = Verified::parse(&opened(&site, &answer).outcome.unwrap(), TokenType::User).unwrap();
        assert_eq!((user.issuer_account(), user.audience()), (Ok(app), None));
        assert_eq!((user.nats().get("tags"), user.nats().get("pub")), (Some(&json!(["host:h1"])), None));
        assert_eq!(allow(Some("host"), nothing()), Err(AnswerError::Rights));
        assert_eq!(allow(None, tags()), Err(AnswerError::Rights));
        assert_eq!(allow(Some("other"), tags()), Err(AnswerError::Account(name("APP"))));
        assert!(allow(None, nothing()).is_ok());
        assert!(
            Target::scoped(AccountSigner::account(pair()).unwrap()).is_err(),
            "an account's own key has no template"
        );
        let scoped = named(&site, true).allow(&site.request, &site.proven, decision("APP", None, tags(), 60), now());
        assert_eq!(scoped, Err(AnswerError::Rights));
    }

    #[test]
    fn an_answer_is_sealed_or_not_made() {
        let site = site();
        let refused = named(&site, false).deny(&site.request, Denial::Policy, now());
        assert_eq!(refused, Err(AnswerError::Seal(XKeyError::Peer)));
    }

    #[test]
    fn a_late_answer_is_not_made() {
        let site = site();
        let late = site.request.expires_at() + CALLOUT_CLOCK_SKEW;
        let answers = named(&site, true);
        assert_eq!(answers.deny(&site.request, Denial::Busy, late), Err(AnswerError::Late));
        let decided = decision("APP", None, nothing(), 300);
        assert_eq!(answers.allow(&site.request, &site.proven, decided, late), Err(AnswerError::Late));
        assert!(answers.deny(&site.request, Denial::Busy, late - MINUTE).is_ok());
    }
}
