//! Users of the file, and ways in that need none.

use super::super::value::{Entry, Map, Value};
use super::listeners::{LEAFNODES, MQTT, WEBSOCKET, is_open};
use super::{AUTHORIZATION, Level, Look};

/// A user of the file.
pub(super) struct User<'a> {
    pub(super) account: &'a str,
    pub(super) name: &'a str,
    pub(super) entry: &'a Map,
    pub(super) place: &'a Entry,
}

impl<'a> Look<'a> {
    pub(super) fn users_and_ways(&mut self) {
        if let Some(entry) = self.config.entry(&["no_auth_user"]) {
            let reason = "whoever shows nothing becomes a user of this file, past the callout";
            self.danger("auth.no-auth-user", Some(entry), reason, "drop no_auth_user");
        }
        if let Some(entry) = self.config.map(AUTHORIZATION).and_then(|block| block.entry(&["token"])) {
            let reason = "a token of the file is known to all who have it, and is nobody's";
            self.danger("auth.token", Some(entry), reason, "drop it: callouts take JWT-SVIDs as tokens");
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
            self.password(user);
        }
    }

    fn password(&mut self, user: &User<'_>) {
        let hint = "give it an nkey, or set verify_and_map: true on every listener";
        let password = user.entry.get(&["password", "pass"]);
        if user.entry.filled(&["nkey"]).is_some() {
            return;
        }
        if let Some(Value::Unknown(variable)) = password {
            let reason = format!(
                "the password of `{}` is that of ${variable} in the server's environment: where that is empty, so is the password",
                user.name
            );
            self.add(Level::Note, "user.empty-password", Some(user.place), reason, hint);
            return;
        }
        if user.entry.filled(&["password", "pass"]).is_some() {
            return;
        }
        let maps = |block: Option<&Map>| {
            block.and_then(|block| block.map(&["tls"])).is_some_and(|tls| tls.is_on(&["verify_and_map"]))
        };
        // Each listener maps certificates for itself.
        let unmapped =
            [(WEBSOCKET, "web sockets"), (MQTT, "MQTT"), (LEAFNODES, "leaf nodes")].into_iter().find(|(keys, _)| {
                let block = self.config.map(keys);
                block.is_some_and(is_open) && !maps(block)
            });
        let here = match (maps(Some(self.config)), unmapped) {
            (false, _) => "here",
            (true, Some((_, what))) => what,
            (true, None) => return,
        };
        let reason = format!(
            "`{}` has no password and no nkey, and no certificate is mapped to it ({here}): an empty password is its password",
            user.name
        );
        self.danger("user.empty-password", Some(user.place), reason, hint);
    }

    pub(super) fn users(&self) -> Vec<User<'a>> {
        let accounts = self.config.map(&["accounts"]);
        let accounts = accounts.into_iter().flat_map(|accounts| &accounts.entries);
        let of_accounts = accounts.flat_map(|account| {
            let users = account.value.as_map().and_then(|block| block.entry(&["users"]));
            users.into_iter().flat_map(move |users| users_of(&account.key, users))
        });
        let authorization = self.config.map(AUTHORIZATION);
        let top = authorization.and_then(|block| block.entry(&["users"])).into_iter();
        // `authorization { user: .., password: .. }` is one, too.
        let single = authorization.and_then(|block| Some((block, block.entry(&["user", "username"])?)));
        let single =
            single.and_then(|(entry, place)| Some(User { account: "$G", name: place.value.as_text()?, entry, place }));
        of_accounts.chain(top.flat_map(|users| users_of("$G", users))).chain(single).collect()
    }
}

fn users_of<'a>(account: &'a str, users: &'a Entry) -> Vec<User<'a>> {
    let all = users.value.elements().iter().filter_map(Value::as_map);
    all.filter_map(|entry| {
        let place = entry.entry(&["nkey"]).filter(|nkey| nkey.value.as_text() != Some(""));
        let place = place.or_else(|| entry.entry(&["user", "username"]))?;
        Some(User { account, name: place.value.as_text()?, entry, place })
    })
    .collect()
}
