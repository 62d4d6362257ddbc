//! Whose inbox is whose. Answers to operators come to subjects that the server lets each of them hear alone: with one inbox for all,
//! who may see one component would read what others are told of another. Derived from whom the server takes an operator for, so that an
//! administrator can compute it: `_INBOX_op_` and the first 20 digits of the SHA-256 of that name.
//!
//! An underscore is in no host's name: no inbox of a host, `_INBOX_HOST`, is one of these.

use portcullis_identity::SpiffeId;
use ring::digest::{SHA256, digest};

use super::key::Key;
use crate::config::Nats;
use crate::config::nats::NatsLink;
use crate::nats::Settings;
use crate::nats::secrets::Secrets;

/// The prefix of the inbox of whoever logs in to NATS as `who`: a SPIFFE ID, the public half of a user's nkey, or the name of a user.
pub fn prefix(who: &str) -> String {
    let hash = digest(&SHA256, who.as_bytes());
    let token: String = hash.as_ref().iter().take(TOKEN_BYTES).map(|byte| format!("{byte:02x}")).collect();
    format!("_INBOX_op_{token}")
}

/// Whom the server takes an operator for: as the file says, or as what is shown says. With a token, or a certificate that is no
/// X.509-SVID, nothing says so, and it is who signs.
pub fn who(link: &NatsLink, key: &Key) -> String {
    let said = link.user.clone().filter(|user| user != "*");
    said.or_else(|| Secrets::new(link.auth.clone()).says()).unwrap_or_else(|| key.issuer())
}

/// Settings of an operator's connection. `own`: what an SVID of the connection must say.
pub fn settings(nats: &Nats, key: &Key, own: &SpiffeId, ca: Option<String>) -> Settings {
    let settings = Settings::of(nats, &nats.host, own, NAME, ca);
    match nats.host.inbox_prefix {
        Some(_) => settings,
        None => Settings { inbox_prefix: prefix(&who(&nats.host, key)), ..settings },
    }
}

/// What the server's lists of connections call an operator's.
const NAME: &str = "operator";
/// Bytes of a hash in an inbox, as in those of components.
const TOKEN_BYTES: usize = 10;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use portcullis_nkey::{KeyPair, Kind};

    use super::*;
    use crate::cli::files;
    use crate::config::operator::OperatorConfig;

    fn opened(folder: &Path, more: &str) -> (Key, Settings) {
        let text = format!(
            "version = 1\ntrust_domain = \"a.example\"\nbundle = \"b\"\ncluster = \"c\"\n[key]\nnkey = \"signer.nk\"\n[nats]\nservers = [\"tls://n:1\"]\naccount = \"A\"\ntls.ca = \"ca\"\n{more}\n"
        );
        let config = OperatorConfig::parse(&text, &folder.join("operator.toml")).unwrap();
        let key = Key::read(&config).unwrap();
        let own = "spiffe://a.example/operator".parse().unwrap();
        let settings = settings(&config.nats.unwrap(), &key, &own, None);
        (key, settings)
    }

    #[test]
    fn each_operator_has_an_inbox_of_its_own_by_whom_the_server_takes_it_for() {
        let temp = tempfile::tempdir().unwrap();
        let put =
            |name: &str, text: &str| files::write(&temp.path().join(name), text.as_bytes(), 0o600, false).unwrap();
        let (signer, login) = (KeyPair::generate(Kind::User).unwrap(), KeyPair::generate(Kind::User).unwrap());
        put("signer.nk", &signer.seed());
        put("login.nk", &login.seed());
        put("secret", "secret");
        let (login, ann) = (login.public().to_string(), "spiffe://a.example/operator/ann");
        let by_user = format!("user = \"{ann}\"\nauth.token = \"secret\"");
        for (more, who) in [
            ("auth.nkey = \"login.nk\"", login.as_str()),
            ("user = \"*\"\nauth.nkey = \"login.nk\"", login.as_str()),
            ("auth.user = \"bob\"\nauth.password = \"secret\"", "bob"),
            (by_user.as_str(), ann),
        ] {
            assert_eq!(opened(temp.path(), more).1.inbox_prefix, prefix(who), "{more}");
        }
        let (key, settings) = opened(temp.path(), "auth.token = \"secret\"");
        assert_eq!(settings.inbox_prefix, prefix(&key.issuer()), "a token says nothing");
        let explicit = "inbox_prefix = \"_INBOX_operator\"\nauth.nkey = \"login.nk\"";
        assert_eq!(opened(temp.path(), explicit).1.inbox_prefix, "_INBOX_operator");
    }

    #[test]
    fn an_inbox_is_what_an_administrator_can_compute_and_nobody_elses() {
        // printf %s spiffe://prod.example/ops/ann | sha256sum | cut -c1-20
        assert_eq!(prefix("spiffe://prod.example/ops/ann"), "_INBOX_op_30e9b914fa3455601c97");
        let all: std::collections::BTreeSet<_> = ["ann", "Ann", "ann ", "h1", ""].map(prefix).into();
        assert_eq!(all.len(), 5);
        assert!(all.iter().all(|prefix| !portcullis_policies::is_host_name(prefix.trim_start_matches("_INBOX_"))));
    }
}
