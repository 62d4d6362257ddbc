//! Whether a key of operator mode is what it is taken for: a scoped signing key, whose users get what its template says and no
//! more. A server takes a user of a plain signing key for a user of the whole account, where its token says nothing of rights; so
//! a key with a role is used only where the account's own JWT says that it is confined. Pure: a token and two keys come in.

use portcullis_identity::nats_jwt::{NatsJwtError, TokenType, Verified};
use portcullis_nkey::PublicKey;
use serde_json::Value;

/// Why a key is not taken for a scoped one. The operator erred, or an account's JWT is an old one.
#[derive(Debug, thiserror::Error)]
pub enum ScopeError {
    /// Not an account's JWT.
    #[error("it is no account's JWT: {0}")]
    Token(#[from] NatsJwtError),
    /// Of another account.
    #[error("it is the JWT of the account {0}, not of this one")]
    Account(PublicKey),
    /// The key is not there.
    #[error("it does not name this signing key")]
    Missing,
    /// The key is there twice.
    #[error("it names this signing key more than once")]
    Twice,
    /// The key is there without a scope.
    #[error("it has this signing key without a scope: its users would have the whole account")]
    Plain,
    /// The template leaves something open.
    #[error("the template of this signing key does not say what its users may {0}: they may everything")]
    Open(&'static str),
}

impl ScopeError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Token(error) => error.hint(),
            Self::Account(_) => "give the JWT of the account that `public` names",
            Self::Missing | Self::Twice => {
                "give the account's JWT as it was pushed to the servers last, with this key once"
            }
            Self::Plain => {
                "make it a scoped signing key with a template, or take `role` away: the rights are in the token then"
            }
            Self::Open(_) => "give the template a list of what is allowed, or deny \">\"",
        }
    }
}

/// Demands that `key` is a scoped signing key of `account`, as this JWT of the account says.
pub fn check(jwt: &str, account: PublicKey, key: PublicKey) -> Result<(), ScopeError> {
    let token = Verified::parse(jwt.trim(), TokenType::Account)?;
    if token.subject() != account {
        return Err(ScopeError::Account(token.subject()));
    }
    let key = key.to_string();
    let keys = token.nats().get("signing_keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let is_it = |entry: &&Value| entry.as_str().or_else(|| entry.get("key")?.as_str()) == Some(key.as_str());
    let mut entries = keys.iter().filter(is_it);
    let entry = entries.next().ok_or(ScopeError::Missing)?;
    if entries.next().is_some() {
        return Err(ScopeError::Twice);
    }
    let template = entry.get("template").filter(|_| entry.get("kind").and_then(Value::as_str) == Some("user_scope"));
    let template = template.and_then(Value::as_object).ok_or(ScopeError::Plain)?;
    for (direction, what) in [("pub", "publish"), ("sub", "subscribe to")] {
        if !template.get(direction).is_some_and(is_confined) {
            return Err(ScopeError::Open(what));
        }
    }
    Ok(())
}

/// A list of what is allowed, or everything denied. No list, and an empty one, mean everything to a server.
fn is_confined(permission: &Value) -> bool {
    let list = |name| permission.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    !list("allow").is_empty() || list("deny").iter().any(|subject| subject.as_str() == Some(">"))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use portcullis_nkey::{KeyPair, Kind};
    use serde_json::json;

    use super::*;

    fn token(operator: &KeyPair, account: PublicKey, keys: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let nats = json!({ "type": "account", "version": 2, "signing_keys": keys });
        let claims = json!({ "iss": operator.public().to_string(), "sub": account.to_string(), "nats": nats });
        let signed = format!("{}.{}", part(&json!({ "typ": "JWT", "alg": "ed25519-nkey" })), part(&claims));
        let signature = URL_SAFE_NO_PAD.encode(operator.sign(signed.as_bytes()).unwrap());
        format!("{signed}.{signature}\n")
    }

    #[test]
    fn only_a_scoped_signing_key_with_a_template_that_confines_is_one_for_a_role() {
        let (operator, account) =
            (KeyPair::generate(Kind::Operator).unwrap(), KeyPair::generate(Kind::Account).unwrap());
        let (key, other) = (KeyPair::generate(Kind::Account).unwrap(), KeyPair::generate(Kind::Account).unwrap());
        let (account, key, other) = (account.public(), key.public(), other.public());
        let name = key.to_string();
        let scope = |template: &Value| json!({ "kind": "user_scope", "key": name, "role": "r", "template": template });
        let good = json!({ "pub": { "allow": ["a.>"] }, "sub": { "deny": [">"] } });
        let check = |keys: &Value| super::check(&token(&operator, account, keys), account, key);
        check(&json!([other.to_string(), scope(&good)])).unwrap();
        for (keys, says) in [
            (json!([]), "does not name"),
            (json!(null), "does not name"),
            (json!([other.to_string()]), "does not name"),
            (json!([name]), "without a scope"),
            (json!([scope(&good), name]), "more than once"),
            (json!([{ "kind": "other", "key": name, "template": good }]), "without a scope"),
            (json!([{ "kind": "user_scope", "key": name }]), "without a scope"),
            (json!([scope(&json!({}))]), "publish"),
            (json!([scope(&json!({ "pub": { "allow": ["a"] } }))]), "subscribe"),
            (json!([scope(&json!({ "pub": { "allow": [] }, "sub": { "deny": [">"] } }))]), "publish"),
            (json!([scope(&json!({ "pub": { "deny": ["a"] }, "sub": { "deny": [">"] } }))]), "publish"),
        ] {
            let error = check(&keys).unwrap_err();
            assert!(error.to_string().contains(says) && !error.hint().is_empty(), "{keys}: {error}");
        }
        let elsewhere = token(&operator, other, &json!([scope(&good)]));
        assert!(matches!(super::check(&elsewhere, account, key), Err(ScopeError::Account(_))));
        let real = token(&operator, account, &json!([scope(&good)]));
        let forged = format!("{}.{}", real.rsplit_once('.').unwrap().0, URL_SAFE_NO_PAD.encode([7; 64]));
        assert!(matches!(super::check(&forged, account, key), Err(ScopeError::Token(_))));
    }
}
