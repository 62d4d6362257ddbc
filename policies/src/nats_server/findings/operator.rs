//! Operator mode: what the accounts' JWTs say.

use serde_json::Value;

use super::super::preload;
use super::super::value::Entry;
use super::{Level, Look};

impl<'a> Look<'a> {
    pub(super) fn operator(&mut self, operator: &'a Entry, callout: Option<&'a Entry>) {
        if let Some(callout) = callout {
            let reason = "auth_callout in the file means nothing in operator mode: the account's JWT says it";
            let hint = "drop the block; set authorization in the account's JWT";
            self.danger("callout.wrong-mode", Some(callout), reason, hint);
        }
        let preload = self.config.map(&["resolver_preload"]);
        let mut read = Vec::new();
        for entry in preload.into_iter().flat_map(|preload| &preload.entries) {
            match entry.value.as_text().and_then(preload::claims) {
                Some(claims) => read.push((entry, claims)),
                None => {
                    let reason = "this is no account JWT";
                    self.danger("operator.preload", Some(entry), reason, "push the account anew");
                }
            }
        }
        let (mut callouts, mut places) = (Vec::new(), Vec::new());
        for (entry, claims) in &read {
            self.end("the account's JWT", entry, claims, "issue it anew, and reload the server");
            let authorization = claims.pointer("/nats/authorization");
            let list = |name| authorization.and_then(|block| block.get(name)).and_then(Value::as_array);
            let Some(users) = list("auth_users").filter(|users| !users.is_empty()) else { continue };
            callouts.push(entry.key.clone());
            let accounts = list("allowed_accounts").map(Vec::as_slice).unwrap_or_default();
            places.extend(accounts.iter().filter_map(Value::as_str).map(str::to_owned));
            let xkey = authorization.and_then(|block| block.get("xkey")).and_then(Value::as_str);
            self.callout_account(entry, users.len(), accounts, xkey.filter(|xkey| !xkey.is_empty()));
        }
        if callouts.is_empty() {
            let reason =
                "no account of resolver_preload has an auth callout; those of another resolver are not looked at";
            self.add(Level::Note, "callout.absent", Some(operator), reason, "see `authorization` in the account's JWT");
        }
        for (entry, claims) in read.iter().filter(|(entry, _)| places.contains(&entry.key)) {
            self.signing_keys(entry, claims);
        }
        self.sentinel(&callouts);
    }

    fn callout_account(&mut self, entry: &Entry, users: usize, accounts: &[Value], xkey: Option<&str>) {
        if xkey.is_none() {
            let reason = "no xkey: every credential crosses the callout account in clear text";
            self.danger("callout.no-xkey", Some(entry), reason, "set authorization.xkey in the account's JWT");
        }
        if users > 1 {
            let reason = format!("{users} users of the callout account bypass it and can forge its requests");
            self.danger("callout.many-users", Some(entry), reason, "keep exactly one");
        }
        let system = self.config.text(&["system_account", "system"]).unwrap_or_default();
        if entry.key == system {
            let reason = "the callout account is the system account";
            self.danger("callout.system-account", Some(entry), reason, "make one for it alone");
        }
        if accounts.iter().filter_map(Value::as_str).any(|account| account == "*" || account == system) {
            let reason = "allowed_accounts has every account, or the system account: the callout can place into them";
            let hint = "name the accounts, without the system's";
            self.danger("callout.allowed-accounts", Some(entry), reason, hint);
        }
    }

    /// Keys that sign users of an account that the callout places into.
    fn signing_keys(&mut self, entry: &Entry, claims: &Value) {
        let keys =
            claims.pointer("/nats/signing_keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for key in keys {
            let Some(template) = key.get("template") else {
                let reason =
                    "this account has a signing key without a scope: whoever has it makes users with every right";
                let hint = "make it a scoped one, with a template for each role";
                self.add(Level::Note, "operator.unscoped-key", Some(entry), reason, hint);
                continue;
            };
            for (direction, what) in [("pub", "publish"), ("sub", "subscribe to")] {
                let list = |name: &str| {
                    let list = template.pointer(&format!("/{direction}/{name}")).and_then(Value::as_array);
                    list.map(Vec::as_slice).unwrap_or_default()
                };
                let is_confined =
                    !list("allow").is_empty() || list("deny").iter().any(|subject| subject.as_str() == Some(">"));
                if !is_confined {
                    let reason = format!(
                        "the template of a signing key does not say what its users may {what}: they may everything"
                    );
                    let hint = "give the template a list of what is allowed, or deny \">\"";
                    self.danger("operator.open-template", Some(entry), reason, hint);
                }
            }
        }
    }
}
