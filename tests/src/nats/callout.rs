//! The smallest auth callout there can be: it shows a test what arrived, and answers as the test says. Not the product's.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

use super::operator::token;

/// The issuer of answers, with its server configuration.
#[derive(Debug)]
pub struct Callout {
    key: KeyPair,
}

impl Callout {
    /// A new issuer.
    pub fn new() -> Self {
        Self { key: KeyPair::new_account() }
    }

    /// The part of a server's configuration about it: the callout logs in as `callout` with the password `callout`. One nkey user
    /// makes the server send nonces.
    pub fn config(&self, timeout: &str) -> String {
        let (issuer, other) = (self.key.public_key(), KeyPair::new_user().public_key());
        format!(
            "accounts {{ AUTH {{ users: [ {{ user: callout, password: callout }} ] }}, APP {{}}, OTHER {{ users: [ {{ nkey: {other} }} ] }}, SYS {{}} }}
            system_account: SYS
            authorization {{ timeout: {timeout}, auth_callout {{ issuer: {issuer}, account: AUTH, auth_users: [ callout ] }} }}"
        )
    }

    /// The claims of a request.
    pub fn request(payload: &[u8]) -> Value {
        let text = String::from_utf8_lossy(payload);
        let claims = text.split('.').nth(1).map(|part| URL_SAFE_NO_PAD.decode(part).expect("base64url"));
        serde_json::from_slice(&claims.unwrap_or_default()).expect("claims")
    }

    /// The answer that lets whoever asks in: into this account, under this name.
    pub fn allow(&self, request: &Value, account: &str, name: &str) -> String {
        let text = |pointer: &str| request.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (user, server) = (text("/nats/user_nkey"), text("/nats/server_id/id"));
        let all = json!({ "allow": [">"] });
        let nats =
            json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": all, "sub": all });
        let issuer = self.key.public_key();
        let inner = token(&self.key, json!({ "iss": issuer, "sub": user, "aud": account, "name": name, "nats": nats }));
        let nats = json!({ "type": "authorization_response", "version": 2, "jwt": inner });
        token(&self.key, json!({ "iss": issuer, "sub": user, "aud": server, "nats": nats }))
    }
}

impl Default for Callout {
    fn default() -> Self {
        Self::new()
    }
}
