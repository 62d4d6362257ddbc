//! Operator mode: the accounts as JWTs of an operator, a scoped signing key for each role, logins with an end.

use std::fmt::Write as _;

use portcullis_identity::XKey;
use portcullis_identity::nats_jwt::{
    AccountName, AccountSigner, AccountToken, CalloutBlock, OperatorToken, Permissions, Responses, SigningKey,
    SubjectTemplate, Subscription,
};
use portcullis_nkey::{KeyPair, Kind};
use time::OffsetDateTime;

use super::{CALLOUT, InitError, Made, STREAMS, Wanted, domains, ends, fill, keys, made, pair, secret, subjects};
use crate::callout::site_user::SiteUser;
use crate::cli::cluster::of_operator;
use crate::control::inbox;

/// Everything of a site but what both modes have.
pub(super) fn files(wanted: &Wanted, account: AccountName, now: OffsetDateTime) -> Result<Vec<Made>, InitError> {
    let operator = pair(Kind::Operator)?;
    let (system, auth, apps) = (pair(Kind::Account)?, pair(Kind::Account)?, pair(Kind::Account)?);
    let (issuer, hosts, operators) = (pair(Kind::Account)?, pair(Kind::Account)?, pair(Kind::Account)?);
    let (callout, revoker, sentinel) = (pair(Kind::User)?, pair(Kind::User)?, pair(Kind::User)?);
    let xkey = XKey::generate().map_err(keys)?;
    let name = |text: &str| text.parse::<AccountName>().map_err(keys);
    let operator_token = OperatorToken::new(name("operator")?, system.public()).map_err(keys)?;
    let operator_token = operator_token.sign(&operator, false, now).map_err(keys)?;
    let block = CalloutBlock {
        auth_users: vec![callout.public()],
        allowed_accounts: vec![apps.public()],
        xkey: Some(xkey.public()),
    };
    let auth_token = AccountToken::new(auth.public(), name("AUTH")?)
        .and_then(|token| token.signing_keys(vec![SigningKey::Unscoped(issuer.public())]))
        .and_then(|token| token.callout(block))
        .and_then(|token| token.sign(&operator, now))
        .map_err(keys)?;
    let scope = SigningKey::Scoped { key: hosts.public(), role: "hosts".to_owned(), template: template(wanted)? };
    let mut scopes = vec![scope];
    if wanted.operator.is_some() {
        let (role, template) = ("operators".to_owned(), operators_template(wanted)?);
        scopes.push(SigningKey::Scoped { key: operators.public(), role, template });
    }
    let apps_token = AccountToken::new(apps.public(), account)
        .map(|token| if wanted.store.is_some() { token.jetstream(STREAMS) } else { token })
        .and_then(|token| token.signing_keys(scopes))
        .and_then(|token| token.sign(&operator, now))
        .map_err(keys)?;
    let system_token =
        AccountToken::new(system.public(), name("SYS")?).and_then(|token| token.sign(&operator, now)).map_err(keys)?;
    let (system_key, auth_key, apps_key) = (system.public(), auth.public(), apps.public());
    let until = ends(wanted, now);
    let seeds = [secret("offline/account-auth.nk", auth.seed()), secret("offline/account-sys.nk", system.seed())];
    let (auth, system) = (AccountSigner::account(auth).map_err(keys)?, AccountSigner::account(system).map_err(keys)?);
    let token = |user: SiteUser, key: &KeyPair, signer| user.token(key.public(), signer, until, now).map_err(keys);
    let callout_token = token(SiteUser::Callout, &callout, &auth)?;
    let revoker_token = token(SiteUser::Revoker, &revoker, &system)?;
    let sentinel_token = token(SiteUser::Sentinel, &sentinel, &auth)?;
    let scoped = made("keys/account-apps.jwt", format!("{apps_token}\n"));
    let values = [
        ("OPERATOR_JWT", operator_token),
        ("SYSTEM_KEY", system_key.to_string()),
        ("AUTH_KEY", auth_key.to_string()),
        ("APPS_KEY", apps_key.to_string()),
        ("SYSTEM_JWT", system_token),
        ("AUTH_JWT", auth_token),
        ("APPS_JWT", apps_token),
        ("SENTINEL", sentinel_token),
    ];
    let mut signers = String::new();
    let _ = write!(
        signers,
        "\n# The key that places hosts into {}: the server gives what the key's template says, whatever the token says.\n\
         [[signer]]\naccount = \"{}\"\npublic = \"{apps_key}\"\nkey = \"keys/hosts.nk\"\nrole = \"hosts\"\njwt = \"keys/account-apps.jwt\"\n",
        wanted.account, wanted.account
    );
    if wanted.operator.is_some() {
        let _ = write!(
            signers,
            "\n# The same for operators of the cluster.\n[[signer]]\naccount = \"{}\"\npublic = \"{apps_key}\"\nkey = \"keys/operators.nk\"\n\
             role = \"operators\"\njwt = \"keys/account-apps.jwt\"\n",
            wanted.account
        );
    }
    let config = [
        ("MODE", "operator".to_owned()),
        ("OWN", auth_key.to_string()),
        ("SYSTEM_KEY", format!("system_key = \"{system_key}\"\n")),
        ("LOGIN", login("callout")),
        ("SYSTEM", login("revoker")),
        ("SIGNERS", signers),
    ];
    let operators = wanted.operator.is_some().then(|| secret("keys/operators.nk", operators.seed()));
    let files = vec![
        made("server.conf", fill(OPERATOR, wanted, &values)),
        made("callout.toml", fill(CALLOUT, wanted, &config) + &domains(wanted)),
        secret("keys/issuer.nk", issuer.seed()),
        secret("keys/hosts.nk", hosts.seed()),
        scoped,
        secret("keys/callout.xk", xkey.seed()),
        secret("keys/callout.nk", callout.seed()),
        secret("keys/revoker.nk", revoker.seed()),
        made("login/callout.jwt", format!("{callout_token}\n")),
        made("login/revoker.jwt", format!("{revoker_token}\n")),
        secret("offline/operator.nk", operator.seed()),
        secret("offline/account-apps.nk", apps.seed()),
    ];
    Ok(files.into_iter().chain(seeds).chain(operators).collect())
}

/// How the callout logs in: its key, and who that is, until when.
fn login(name: &str) -> String {
    format!(
        "nkey = \"keys/{name}.nk\"\n# Read at each connection: `portcullis callout renew` puts a new one there.\njwt = \"login/{name}.jwt\""
    )
}

fn template(wanted: &Wanted) -> Result<Permissions<SubjectTemplate>, InitError> {
    let (publish, subscribe) = subjects(wanted)?;
    let scoped = |text: &String| text.replace("{host}", "{{tag(host)}}").parse::<SubjectTemplate>().map_err(keys);
    let publish = publish.iter().map(scoped).collect::<Result<_, _>>()?;
    let subscribe = subscribe.iter().map(|text| scoped(text).map(|subject| Subscription { subject, queue: None }));
    let answers = Responses::new(1, std::time::Duration::from_secs(150));
    Permissions::new(publish, subscribe.collect::<Result<_, _>>()?, Some(answers)).map_err(keys)
}

/// What an operator of the cluster may publish and hear: the same list that `cluster init` prints.
fn operators_template(wanted: &Wanted) -> Result<Permissions<SubjectTemplate>, InitError> {
    let who = wanted.operator.as_deref().unwrap_or_default();
    let (publish, subscribe) = of_operator(&wanted.cluster.parse().map_err(keys)?, &inbox::prefix(who));
    let literal = |text: &String| text.parse::<SubjectTemplate>().map_err(keys);
    let publish = publish.iter().map(literal).collect::<Result<_, _>>()?;
    let subscribe = subscribe.iter().map(|text| literal(text).map(|subject| Subscription { subject, queue: None }));
    Permissions::new(publish, subscribe.collect::<Result<_, _>>()?, None).map_err(keys)
}

const OPERATOR: &str = include_str!("operator.conf");
