//! What is dangerous in a configuration, each with the reason and what to do.

use std::collections::BTreeSet;

use serde::Serialize;

use super::preload;
use super::value::{Entry, Map, Value};
use crate::shown;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// A way in, or a secret in the clear.
    Danger,
    /// Worth a look.
    Note,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// A stable name.
    pub code: &'static str,
    /// `FILE:LINE`, or the file where nothing is there to point at.
    pub place: String,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub hint: &'static str,
}

/// What is known besides the text.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// The files that were read, the first one first.
    pub files: Vec<String>,
    /// Those of them that others on the machine can read.
    pub readable_by_others: Vec<String>,
    /// The version of the server, where it is known.
    pub version: Option<String>,
}

/// Everything that is dangerous, the worst first.
pub fn check(config: &Map, context: &Context) -> Vec<Finding> {
    let mut look = Look { config, context, found: Vec::new() };
    look.files();
    look.tls();
    look.listeners();
    look.passwords();
    look.timeout();
    look.anonymous();
    match (config.entry(&["operator", "operators", "trusted"]), config.map(AUTHORIZATION).and_then(callout_of)) {
        (Some(operator), callout) => look.operator(operator, callout),
        (None, Some(callout)) => look.accounts_mode(callout),
        (None, None) => look.add(
            Level::Danger,
            "callout.absent",
            None,
            "there is no auth_callout: logins are decided by this file alone",
            "`portcullis callout init` writes a configuration with one",
        ),
    }
    look.found.sort();
    look.found.dedup();
    look.found
}

struct Look<'a> {
    config: &'a Map,
    context: &'a Context,
    found: Vec<Finding>,
}

/// A user of the file.
struct User<'a> {
    account: &'a str,
    name: &'a str,
    entry: &'a Map,
    place: &'a Entry,
}

impl<'a> Look<'a> {
    fn add(
        &mut self,
        level: Level,
        code: &'static str,
        at: Option<&Entry>,
        reason: impl Into<String>,
        hint: &'static str,
    ) {
        let name = |file: usize| self.context.files.get(file).map_or("server.conf", String::as_str).to_owned();
        let place = at.map_or_else(|| name(0), |entry| format!("{}:{}", name(entry.file), entry.line));
        let reason = shown::inside(&reason.into(), 400);
        self.found.push(Finding { level, code, place, reason, hint });
    }

    fn danger(&mut self, code: &'static str, at: Option<&Entry>, reason: impl Into<String>, hint: &'static str) {
        self.add(Level::Danger, code, at, reason, hint);
    }

    fn files(&mut self) {
        for file in self.context.readable_by_others.clone() {
            let reason = format!("{file} can be read by everybody on the machine");
            self.danger("file.readable", None, reason, "chmod 600 it, or 640 with a group of the server's own");
        }
        if let Some(version) = self.context.version.clone()
            && !is_recent(&version)
        {
            let reason = format!("version {version} has known holes in what a callout rests on");
            self.danger("server.old", None, reason, "use 2.12.7 or later, or 2.14.0 or later");
        }
        let mut doubles = Vec::new();
        double_keys(self.config, &mut doubles);
        for entry in doubles {
            let reason = format!("`{}` is there twice in one block: the server takes the last", entry.key);
            self.add(Level::Danger, "key.twice", Some(entry), reason, "keep one");
        }
    }

    fn tls(&mut self) {
        let Some(entry) = self.config.entry(&["tls"]) else {
            let reason = "there is no TLS: credentials and what they open cross the network in the clear";
            self.danger("tls.absent", None, reason, "add a tls block with verify, ca_file and handshake_first");
            return;
        };
        let Some(tls) = entry.value.as_map() else {
            self.danger("tls.unknown", Some(entry), "the tls block is not in this file", "write it out, or include it");
            return;
        };
        let verify = tls.is_on(&["verify"]) || tls.is_on(&["verify_and_map"]);
        if verify && tls.get(&["ca_file", "ca_cert_file"]).is_none() {
            let reason = "`verify` without `ca_file` trusts every public authority of the machine for clients";
            self.danger("tls.no-ca", Some(entry), reason, "name the authorities of your trust domains in ca_file");
        }
        if !verify {
            let reason = "without `verify` no certificate is asked for: nobody can show an X.509-SVID here, and tokens alone count";
            self.add(
                Level::Note,
                "tls.no-verify",
                Some(entry),
                reason,
                "set verify: true, unless this listener is for tokens",
            );
        }
        let first = tls.entry(&["handshake_first", "first", "immediate"]);
        let is_first = first.is_some_and(|first| first.value.is_on());
        if !is_first {
            let reason = "without `handshake_first: true` version, addresses and nonce are told to everybody, and a client that \
                          forgets TLS sends its credential in the clear";
            self.danger(
                "tls.not-first",
                first.or(Some(entry)),
                reason,
                "set handshake_first: true, and tls_first in clients",
            );
        }
        if tls.text(&["min_version"]).is_none_or(|version| version != "1.3") {
            let reason = "TLS below 1.3 is taken: client certificates are then readable on the network";
            self.add(Level::Note, "tls.version", Some(entry), reason, "set min_version: \"1.3\"");
        }
        if tls.is_on(&["insecure"]) || self.config.is_on(&["allow_non_tls"]) {
            let reason = "TLS is not demanded, or not checked";
            self.danger("tls.optional", Some(entry), reason, "drop allow_non_tls and insecure");
        }
    }

    fn listeners(&mut self) {
        for (keys, code, what) in [
            (&["leafnodes", "leaf"][..], "listener.leafnodes", "leaf nodes"),
            (&["websocket", "ws"][..], "listener.websocket", "web sockets"),
            (&["mqtt"][..], "listener.mqtt", "MQTT"),
        ] {
            let Some(entry) = self.config.entry(keys) else { continue };
            let Some(block) = entry.value.as_map() else {
                let reason = format!("the block for {what} is not in this file");
                self.danger(code, Some(entry), reason, "write it out");
                continue;
            };
            if block.get(&["port", "listen"]).is_none() {
                continue;
            }
            if block.get(&["tls"]).is_none() || block.is_on(&["no_tls"]) {
                let reason = format!("the listener for {what} has no TLS of its own");
                self.danger(code, Some(entry), reason, "give it a tls block, or take the listener away");
            }
            if code == "listener.leafnodes" && block.get(&["authorization"]).is_none() {
                let reason =
                    "leaf nodes log in through the callout like clients: a whole server with clients of its own";
                self.danger(
                    code,
                    Some(entry),
                    reason,
                    "give leafnodes an authorization block, or a role with kinds = [\"leafnode\"] and know why",
                );
            }
            let reason = format!("a listener for {what} is open: its logins go to the callout too");
            self.add(Level::Note, code, Some(entry), reason, "close it where no role has it in `types` or `kinds`");
            if block.get(&["no_auth_user"]).is_some() {
                let reason = format!("{what} without a credential become a user of this file");
                self.danger("auth.no-auth-user", Some(entry), reason, "drop no_auth_user");
            }
        }
        for (keys, what) in [(&["cluster"][..], "routes"), (&["gateway"][..], "gateways")] {
            let Some(entry) = self.config.entry(keys) else { continue };
            let block = entry.value.as_map();
            if block.is_some_and(|block| block.get(&["tls"]).is_none() && block.get(&["port", "listen"]).is_some()) {
                let reason = format!("{what} have no TLS: requests of the callout and users' tokens cross them");
                self.danger("listener.routes", Some(entry), reason, "give the block tls with verify and ca_file");
            }
        }
        for keys in [&["http", "http_port", "monitor_port"][..]] {
            let Some(entry) = self.config.entry(keys) else { continue };
            let local = entry
                .value
                .as_text()
                .is_some_and(|text| text.contains("127.0.0.1") || text.contains("localhost") || text.contains("[::1]"));
            if !local {
                let reason = "the monitoring port shows who is connected to everybody who reaches it; `verify` does not cover it";
                self.danger(
                    "listener.monitoring",
                    Some(entry),
                    reason,
                    "listen on 127.0.0.1, or use https_port behind a proxy",
                );
            }
        }
        if self.config.is_on(&["trace"]) || self.config.is_on(&["trace_verbose"]) {
            let entry = self.config.entry(&["trace", "trace_verbose"]);
            let reason = "the trace writes what clients send into the log, JWTs in clear text";
            self.danger("log.trace", entry, reason, "switch it off");
        }
    }

    fn passwords(&mut self) {
        let mut found = Vec::new();
        plain_secrets(self.config, false, &mut found);
        for entry in found {
            let reason = format!("`{}` is a secret in clear text", entry.key);
            self.danger(
                "secret.plain",
                Some(entry),
                reason,
                "use nkeys or certificates; or a bcrypt hash (nats server passwd)",
            );
        }
    }

    fn timeout(&mut self) {
        let authorization = self.config.map(AUTHORIZATION);
        let entry = authorization.and_then(|block| block.entry(&["timeout"]));
        let hint = "set authorization { timeout: 1.5 }";
        match entry.map(|entry| entry.value.seconds()) {
            Some(Some(seconds)) if seconds < 2.0 && seconds > 0.0 => {}
            Some(Some(_)) => {
                let reason =
                    "authorization.timeout is 2 s or more: some clients take the server's first PING for being let in";
                self.danger("auth.timeout", entry, reason, hint);
            }
            Some(None) => self.danger("auth.timeout", entry, "authorization.timeout cannot be read", hint),
            None => {
                let reason = "authorization.timeout is not set: with TLS it is 3 s, and some clients take the server's first PING at 2 s for being let in";
                self.danger("auth.timeout", self.config.entry(AUTHORIZATION), reason, hint);
            }
        }
    }

    fn anonymous(&mut self) {
        if let Some(entry) = self.config.entry(&["no_auth_user"]) {
            let reason = "whoever shows nothing becomes a user of this file, past the callout";
            self.danger("auth.no-auth-user", Some(entry), reason, "drop no_auth_user");
        }
        let users = self.users();
        let spiffe = users.iter().any(|user| user.name.starts_with("spiffe://"));
        for user in &users {
            if spiffe && user.name.contains('=') {
                let reason = format!(
                    "`{}` is a user by the subject of a certificate beside users by SPIFFE ID: a certificate whose SPIFFE ID is no \
                     user falls through to its subject, and all SVIDs of SPIRE share one",
                    user.name
                );
                self.danger("tls.dn-user", Some(user.place), reason, "name users by SPIFFE ID only");
            }
            let by_certificate = user.entry.get(&["nkey", "password", "pass"]).is_none();
            let maps = self.config.map(&["tls"]).is_some_and(|tls| tls.is_on(&["verify_and_map"]));
            if by_certificate && !maps {
                let reason = format!(
                    "`{}` has no password and no nkey, and no certificate is mapped to it here: an empty password is its password",
                    user.name
                );
                self.danger(
                    "user.empty-password",
                    Some(user.place),
                    reason,
                    "give it an nkey, or set verify_and_map: true",
                );
            }
        }
    }

    fn users(&self) -> Vec<User<'a>> {
        let accounts = self.config.map(&["accounts"]);
        let accounts = accounts.into_iter().flat_map(|accounts| &accounts.entries);
        let of_accounts = accounts.flat_map(|account| {
            let users = account.value.as_map().and_then(|block| block.entry(&["users"]));
            users.into_iter().flat_map(move |users| users_of(&account.key, users))
        });
        let authorization = self.config.map(AUTHORIZATION);
        let top = authorization.and_then(|block| block.entry(&["users"])).into_iter();
        of_accounts.chain(top.flat_map(|users| users_of("$G", users))).collect()
    }

    fn accounts_mode(&mut self, callout: &'a Entry) {
        let Some(block) = callout.value.as_map() else {
            self.danger("callout.unknown", Some(callout), "the auth_callout block is not in this file", "write it out");
            return;
        };
        if block.get(&["xkey"]).is_none() {
            let reason = "no xkey: every credential crosses the callout account in clear text";
            self.danger(
                "callout.no-xkey",
                Some(callout),
                reason,
                "set xkey to the public key (X..) of the callout's xkey",
            );
        }
        let account = block.text(&["account"]);
        if account.is_none_or(|account| account.starts_with('$')) {
            let reason = "the callout account is the default account $G, where everybody without an account is";
            self.danger("callout.default-account", Some(callout), reason, "make an account for the callout alone");
        }
        let account = account.unwrap_or("$G");
        let system = self.config.text(&["system_account", "system"]).unwrap_or("$SYS");
        if account == system {
            self.danger(
                "callout.system-account",
                Some(callout),
                "the callout account is the system account",
                "make one for it alone",
            );
        }
        let accounts = self.config.map(&["accounts"]);
        if account != "$G" && accounts.and_then(|all| all.entry(&[account])).is_none() {
            let reason = format!("the callout account {account} is not among `accounts`");
            self.danger("callout.no-account", Some(callout), reason, "define it");
        }
        let auth_users: BTreeSet<&str> = block
            .get(&["auth_users", "users"])
            .into_iter()
            .flat_map(Value::elements)
            .filter_map(Value::as_text)
            .collect();
        if auth_users.is_empty() {
            self.danger(
                "callout.no-users",
                Some(callout),
                "auth_users is empty: the callout itself cannot log in",
                "name its nkey",
            );
        }
        if let Some(allowed) = block.entry(&["allowed_accounts"]) {
            let named = allowed.value.elements().iter().any(|one| one.as_text() == Some(account));
            if !named {
                let reason = "allowed_accounts leaves the callout account out: then its other users may publish requests of the callout";
                self.danger(
                    "callout.allowed-accounts",
                    Some(allowed),
                    reason,
                    "drop allowed_accounts: it is no list of accounts to place into",
                );
            } else {
                let reason = "allowed_accounts is no list of accounts to place into: it says whose configured users go to the callout too";
                self.add(Level::Note, "callout.allowed-accounts", Some(allowed), reason, "drop it");
            }
        }
        let users = self.users();
        let of_callout: Vec<&User<'_>> = users.iter().filter(|user| user.account == account).collect();
        if of_callout.len() > 1 {
            let reason =
                format!("{} users in the callout account: each can answer logins, or forge requests", of_callout.len());
            self.danger(
                "callout.many-users",
                of_callout.get(1).map(|user| user.place),
                reason,
                "keep exactly one user in it",
            );
        }
        for user in &of_callout {
            self.least(user);
        }
        for user in users.iter().filter(|user| !auth_users.contains(user.name)) {
            let reason = format!(
                "`{}` of {} is not in auth_users: its login goes to the callout, with the right password and with a wrong one alike",
                user.name, user.account
            );
            self.danger("callout.user-outside", Some(user.place), reason, "put it into auth_users, or take it away");
        }
        let nkey = |name: &str| name.len() == 56 && name.starts_with('U');
        if !users.iter().any(|user| nkey(user.name)) {
            let reason = "no user has an nkey: the server's nonce is empty, and a signature over it can be replayed";
            self.danger("auth.no-nonce", Some(callout), reason, "give the callout's own user an nkey");
        }
        if !users.iter().any(|user| user.account == system) {
            let reason =
                "the system account has no user: the callout can neither tell servers from others nor end connections";
            self.add(
                Level::Note,
                "callout.no-system-user",
                self.config.entry(&["system_account"]),
                reason,
                "add one with PING, CONNZ and KICK",
            );
        }
        for own in accounts.into_iter().flat_map(|all| &all.entries).filter(|own| own.key == account) {
            let shares = own.value.as_map().is_some_and(|own| own.get(&["imports", "exports"]).is_some());
            if shares {
                let reason = "the callout account imports or exports: others reach into it";
                self.danger("callout.shared-account", Some(own), reason, "keep it apart");
            }
        }
    }

    /// The callout's own user needs three rights and an answer.
    fn least(&mut self, user: &User<'_>) {
        let hint = "allow subscribe \"$SYS.REQ.USER.AUTH callout\" and its inbox, publish \"$SYS.REQ.USER.INFO\", and allow_responses { max: 1 }";
        let Some(permissions) = user.entry.map(&["permissions", "permission"]) else {
            let reason = format!("`{}`, the callout's user, may do everything in its account", user.name);
            self.danger("callout.permissions", Some(user.place), reason, hint);
            return;
        };
        let allowed = |keys: &[&str]| -> Option<Vec<String>> {
            let value = permissions.get(keys)?;
            let list = value.as_map().map_or(Some(value), |block| block.get(&["allow"]))?;
            Some(list.elements().iter().filter_map(Value::as_text).map(str::to_owned).collect())
        };
        let subscribe = allowed(&["subscribe", "sub", "import"]);
        let publish = allowed(&["publish", "pub", "export"]);
        let narrow = |subjects: &Option<Vec<String>>, plain: &[&str]| {
            subjects.as_ref().is_some_and(|all| {
                all.iter().all(|one| {
                    let subject = one.split(' ').next().unwrap_or_default();
                    plain.contains(&subject) || (subject.starts_with("_INBOX_") && !subject.starts_with("_INBOX_*"))
                })
            })
        };
        let answers = permissions.get(&["allow_responses", "allow_response"]).is_some();
        if !narrow(&subscribe, &["$SYS.REQ.USER.AUTH"])
            || !(narrow(&publish, &["$SYS.REQ.USER.INFO"]) || (publish.is_none() && answers))
        {
            let reason = format!("`{}`, the callout's user, may do more than answer logins", user.name);
            self.danger("callout.permissions", Some(user.place), reason, hint);
        }
    }

    fn operator(&mut self, operator: &'a Entry, callout: Option<&'a Entry>) {
        if let Some(callout) = callout {
            let reason = "auth_callout in the file means nothing in operator mode: the account's JWT says it";
            self.danger(
                "callout.wrong-mode",
                Some(callout),
                reason,
                "drop the block; set authorization in the account's JWT",
            );
        }
        let preload = self.config.map(&["resolver_preload"]);
        let mut any = false;
        for entry in preload.into_iter().flat_map(|preload| &preload.entries) {
            let Some(claims) = entry.value.as_text().and_then(preload::claims) else {
                self.danger("operator.preload", Some(entry), "this is no account JWT", "push the account anew");
                continue;
            };
            let authorization = claims.pointer("/nats/authorization").and_then(serde_json::Value::as_object);
            let users = authorization.and_then(|block| block.get("auth_users")).and_then(serde_json::Value::as_array);
            let Some((block, users)) = authorization.zip(users).filter(|(_, users)| !users.is_empty()) else {
                continue;
            };
            any = true;
            if block.get("xkey").and_then(serde_json::Value::as_str).is_none_or(str::is_empty) {
                let reason = "no xkey: every credential crosses the callout account in clear text";
                self.danger("callout.no-xkey", Some(entry), reason, "set authorization.xkey in the account's JWT");
            }
            if users.len() > 1 {
                let reason =
                    format!("{} users of the callout account bypass it and can forge its requests", users.len());
                self.danger("callout.many-users", Some(entry), reason, "keep exactly one");
            }
            let allowed = block.get("allowed_accounts").and_then(serde_json::Value::as_array);
            let system = self.config.text(&["system_account", "system"]).unwrap_or_default();
            for account in allowed.into_iter().flatten().filter_map(serde_json::Value::as_str) {
                if account == "*" || account == system {
                    let reason =
                        "allowed_accounts has every account, or the system account: the callout can place into them";
                    self.danger(
                        "callout.allowed-accounts",
                        Some(entry),
                        reason,
                        "name the accounts, without the system's",
                    );
                }
            }
        }
        if !any {
            let reason =
                "no account of resolver_preload has an auth callout; those of another resolver are not looked at";
            self.add(Level::Note, "callout.absent", Some(operator), reason, "see `authorization` in the account's JWT");
        }
    }
}

fn callout_of(authorization: &Map) -> Option<&Entry> {
    authorization.entry(&["auth_callout", "auth_hook"])
}

fn users_of<'a>(account: &'a str, users: &'a Entry) -> Vec<User<'a>> {
    let all = users.value.elements().iter().filter_map(Value::as_map);
    all.filter_map(|entry| {
        let name = entry.text(&["nkey", "user", "username"])?;
        let place = entry.entry(&["nkey", "user", "username"]).unwrap_or(users);
        Some(User { account, name, entry, place })
    })
    .collect()
}

/// Entries whose key an earlier one of the same map has.
fn double_keys<'a>(map: &'a Map, found: &mut Vec<&'a Entry>) {
    let mut seen = BTreeSet::new();
    for entry in &map.entries {
        if !seen.insert(entry.key.to_ascii_lowercase()) {
            found.push(entry);
        }
        for map in entry.value.elements().iter().filter_map(Value::as_map) {
            double_keys(map, found);
        }
    }
}

/// Passwords and tokens that are no hashes, in every block of users.
fn plain_secrets<'a>(map: &'a Map, in_login: bool, found: &mut Vec<&'a Entry>) {
    for entry in &map.entries {
        let key = entry.key.to_ascii_lowercase();
        let is_secret = matches!(key.as_str(), "password" | "pass") || (key == "token" && in_login);
        let text = entry.value.as_text().unwrap_or_default();
        if is_secret && !text.is_empty() && !text.starts_with("$2") {
            found.push(entry);
        }
        let is_login = matches!(key.as_str(), "authorization" | "authentication" | "users" | "user");
        for map in entry.value.elements().iter().filter_map(Value::as_map) {
            plain_secrets(map, in_login || is_login, found);
        }
    }
}

/// 2.12.7 and later of 2.12; 2.14.0 and later.
fn is_recent(version: &str) -> bool {
    let plain = version.trim().trim_start_matches('v');
    let plain = plain.split(['-', '+', ' ']).next().unwrap_or_default();
    let mut parts = plain.split('.').map(|part| part.parse::<u32>().ok());
    match (parts.next().flatten(), parts.next().flatten(), parts.next().flatten()) {
        (Some(2), Some(12), Some(patch)) => patch >= 7,
        (Some(2), Some(minor), Some(_)) => minor >= 14,
        (Some(major), Some(_), Some(_)) => major > 2,
        _ => false,
    }
}

const AUTHORIZATION: &[&str] = &["authorization", "authentication"];

#[cfg(test)]
mod tests;
