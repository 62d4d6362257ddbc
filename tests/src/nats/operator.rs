//! NATS's decentralised authentication, made by hand: an operator, accounts, users and credentials files. The tokens are put
//! together here, apart from the product's own codec, so that the two check one another on the real server.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

/// An operator with accounts. Its server configuration comes from [`Operator::config`].
#[derive(Debug)]
pub struct Operator {
    key: KeyPair,
    accounts: Vec<(String, String)>,
    system: String,
}

/// An account.
#[derive(Debug)]
pub struct Account {
    /// Its key: `A...`.
    pub key: KeyPair,
    /// Its name.
    pub name: String,
}

impl Operator {
    /// An operator without accounts but the system's.
    pub fn new() -> Self {
        let mut operator = Self { key: KeyPair::new_operator(), accounts: Vec::new(), system: String::new() };
        let system = operator.account("SYS", json!({}));
        operator.system = system.key.public_key();
        operator
    }

    /// An account; `nats` is merged into the `nats` member of its claims (`limits`, `authorization`, ...).
    pub fn account(&mut self, name: &str, nats: Value) -> Account {
        let account = Account { key: KeyPair::new_account(), name: name.to_owned() };
        self.update(&account, nats);
        account
    }

    /// Issues an account's token anew.
    pub fn update(&mut self, account: &Account, nats: Value) {
        let mut claims = json!({ "type": "account", "version": 2, "limits": unlimited() });
        merge(&mut claims, nats);
        let id = account.key.public_key();
        let body = json!({ "iss": self.key.public_key(), "sub": id, "name": account.name, "nats": claims });
        self.accounts.retain(|(known, _)| *known != id);
        self.accounts.push((id, token(&self.key, body)));
    }

    /// The part of a server's configuration about operator and accounts (resolver MEMORY).
    pub fn config(&self) -> String {
        let id = self.key.public_key();
        let nats = json!({ "type": "operator", "version": 2, "system_account": self.system });
        let operator = token(&self.key, json!({ "iss": id, "sub": id, "name": "O", "nats": nats }));
        let mut text = format!("operator: {operator}\nsystem_account: {}\nresolver: MEMORY\n", self.system);
        text.push_str("resolver_preload {\n");
        for (id, token) in &self.accounts {
            let _ = writeln!(text, "  {id}: {token}");
        }
        text.push_str("}\n");
        text
    }
}

impl Default for Operator {
    fn default() -> Self {
        Self::new()
    }
}

impl Account {
    /// A user's token: `name`, and `nats` merged into its claims (`pub`, `sub`, ...); `exp` in seconds since 1970.
    pub fn user(&self, user: &KeyPair, name: &str, nats: Value, exp: Option<i64>) -> String {
        let mut claims = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 });
        merge(&mut claims, nats);
        let mut body = json!({ "iss": self.key.public_key(), "sub": user.public_key(), "name": name, "nats": claims });
        if let Some(exp) = exp {
            merge(&mut body, json!({ "exp": exp }));
        }
        token(&self.key, body)
    }

    /// A credentials file of a new user.
    pub fn credentials(&self, name: &str, nats: Value, exp: Option<i64>) -> String {
        let user = KeyPair::new_user();
        credentials(&self.user(&user, name, nats, exp), &user)
    }
}

/// A credentials file: a token, and the seed of a key that fits it or not.
pub fn credentials(token: &str, user: &KeyPair) -> String {
    let seed = user.seed().expect("a key with a seed");
    let mut text = format!("-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n");
    text.push_str("************************* IMPORTANT *************************\nNKEY Seed printed below can be used to sign and prove identity.\n");
    let _ = write!(text, "\n-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n");
    text
}

/// A NATS token (JWT, version 2), signed by a key. `iat` and `jti` are added where they are not there.
pub fn token(key: &KeyPair, mut claims: Value) -> String {
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let members = claims.as_object_mut().expect("claims are an object");
    members.entry("iat").or_insert(now.into());
    members.entry("jti").or_insert(KeyPair::new_user().public_key().into());
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(&json!({ "typ": "JWT", "alg": "ed25519-nkey" })), encode(&claims));
    let signature = key.sign(signed.as_bytes()).expect("a key with a seed signs");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn unlimited() -> Value {
    json!({ "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1 })
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
