//! Secrets that are written out.

use super::super::value::{Entry, Map, Value};
use super::Look;

impl Look<'_> {
    pub(super) fn secrets(&mut self) {
        let mut found = Vec::new();
        plain(self.config, "", false, &mut found);
        for entry in found {
            let reason = format!("`{}` is a secret in clear text", entry.key);
            let hint = "use nkeys or certificates; or a bcrypt hash (nats server passwd)";
            self.danger("secret.plain", Some(entry), reason, hint);
        }
    }
}

/// Passwords and tokens that are no hashes, in every block; keys of JetStream; addresses with a password in them.
fn plain<'a>(map: &'a Map, within: &str, in_login: bool, found: &mut Vec<&'a Entry>) {
    for entry in &map.entries {
        let key = entry.key.to_ascii_lowercase();
        let is_secret = matches!(key.as_str(), "password" | "pass" | "passphrase")
            || (key == "token" && in_login)
            || (within == "jetstream"
                && matches!(key.as_str(), "key" | "ek" | "encryption_key" | "prev_key" | "prev_ek"));
        let texts = entry.value.elements().iter().filter_map(Value::as_text);
        let is_plain = |text: &str| is_secret && !text.is_empty() && !is_hash(text);
        if texts.into_iter().any(|text| is_plain(text) || has_password(text)) {
            found.push(entry);
        }
        let is_login = matches!(key.as_str(), "authorization" | "authentication" | "users" | "user");
        for map in entry.value.elements().iter().filter_map(Value::as_map) {
            plain(map, &key, in_login || is_login, found);
        }
    }
}

/// What servers take for a bcrypt hash.
fn is_hash(text: &str) -> bool {
    ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|prefix| text.starts_with(prefix))
}

/// `SCHEME://USER:PASSWORD@HOST`.
fn has_password(text: &str) -> bool {
    let authority = text.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
    authority.rsplit_once('@').is_some_and(|(login, _)| !login.is_empty())
}
