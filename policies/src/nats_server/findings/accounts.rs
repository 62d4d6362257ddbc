//! Accounts mode: the callout, its account and its users.

use std::collections::BTreeSet;

use super::super::value::{Entry, Value};
use super::users::User;
use super::{Level, Look};

impl<'a> Look<'a> {
    pub(super) fn accounts_mode(&mut self, callout: &'a Entry) {
        let Some(block) = callout.value.as_map() else {
            self.danger("callout.unknown", Some(callout), "the auth_callout block is not in this file", "write it out");
            return;
        };
        if block.filled(&["xkey"]).is_none() {
            let reason = "no xkey: every credential crosses the callout account in clear text";
            self.danger(
                "callout.no-xkey",
                Some(callout),
                reason,
                "set xkey to the public key (X..) of the callout's xkey",
            );
        }
        let account = block.text(&["account"]).filter(|account| !account.is_empty());
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
        let bypass =
            |user: &&User<'_>| auth_users.contains(user.name) && user.account != account && user.account != system;
        for user in users.iter().filter(bypass) {
            let reason = format!("`{}` of {} is in auth_users: it comes in past the callout", user.name, user.account);
            let hint = "take it from auth_users, unless it is there for when no callout runs";
            self.add(Level::Note, "callout.bypass", Some(user.place), reason, hint);
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
        for user in users.iter().filter(|user| user.account == system && !is_limited(user)) {
            let reason = format!("`{}` may do everything in the system account", user.name);
            let hint = "give the callout's second user PING, CONNZ and KICK, as `portcullis callout init` does";
            self.add(Level::Note, "callout.system-user", Some(user.place), reason, hint);
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
            let Some(block) = own.value.as_map() else { continue };
            if block.get(&["imports", "exports", "mappings", "maps"]).is_some() {
                let reason = "the callout account imports, exports or maps subjects: others reach into it";
                self.danger("callout.shared-account", Some(own), reason, "keep it apart");
            }
            if block
                .get(&["jetstream"])
                .is_some_and(|on| on.as_map().is_some() || on.is_on() || on.as_text() == Some("enabled"))
            {
                let reason = "the callout account has JetStream: a stream there would keep every request";
                self.add(Level::Note, "callout.shared-account", Some(own), reason, "take it away");
            }
        }
        let reason = "accounts mode: whoever has the issuer's key can place a user into any account of this file";
        let hint = "operator mode confines each key to its role: `portcullis callout init --mode operator`";
        self.add(Level::Note, "callout.accounts-mode", Some(callout), reason, hint);
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
            // An empty list is none to a server: everything.
            subjects.as_ref().filter(|all| !all.is_empty()).is_some_and(|all| {
                all.iter().all(|one| {
                    let subject = one.split(' ').next().unwrap_or_default();
                    plain.contains(&subject) || (subject.starts_with("_INBOX_") && !subject.starts_with("_INBOX_*"))
                })
            })
        };
        let answers = permissions.get(&["allow_responses", "allow_response"]);
        if let Some(all) = &subscribe
            && all.iter().any(|one| one.trim() == "$SYS.REQ.USER.AUTH")
        {
            let reason = format!(
                "`{}` may take requests without the queue group: of several callouts each would answer",
                user.name
            );
            self.add(Level::Note, "callout.permissions", Some(user.place), reason, hint);
        }
        let many = answers.and_then(Value::as_map).and_then(|block| block.text(&["max"])).is_some_and(|max| max != "1");
        if many {
            let reason = format!("`{}` may answer each request more than once", user.name);
            self.add(Level::Note, "callout.permissions", Some(user.place), reason, hint);
        }
        let answers = answers.is_some_and(|value| value.as_map().is_some() || value.is_on());
        if !narrow(&subscribe, &["$SYS.REQ.USER.AUTH"])
            || !(narrow(&publish, &["$SYS.REQ.USER.INFO"]) || (publish.is_none() && answers))
        {
            let reason = format!("`{}`, the callout's user, may do more than answer logins", user.name);
            self.danger("callout.permissions", Some(user.place), reason, hint);
        }
    }
}

/// Whether a user's permissions say what it may publish, and subscribe to.
fn is_limited(user: &User<'_>) -> bool {
    let permissions = user.entry.map(&["permissions", "permission"]);
    permissions.is_some_and(|block| {
        block.get(&["publish", "pub", "export"]).is_some() && block.get(&["subscribe", "sub", "import"]).is_some()
    })
}
