//! What the server says of a connection: whom it takes us for, and what it denied.
//!
//! A connection counts only after `$SYS.REQ.USER.INFO` named the account and the user that the configuration expects. That the
//! client library calls it connected proves nothing: it does so before the server has decided.

use serde::Deserialize;

use super::cause::Cause;
use crate::limits::LOG_TEXT;

/// Whom the server takes us for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Name of the server, or its id.
    pub server: String,
    /// Its version.
    pub version: String,
    /// The account.
    pub account: String,
    /// The user.
    pub user: String,
}

/// Something that the server denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// Publishing to a subject.
    Publish {
        /// The subject.
        subject: String,
    },
    /// Subscribing to a subject.
    Subscribe {
        /// The subject.
        subject: String,
        /// In this queue group.
        queue: Option<String>,
    },
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    server: Server,
    #[serde(default)]
    data: Option<Data>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Server {
    name: String,
    id: String,
    ver: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Data {
    user: String,
    account: String,
}

impl Standing {
    /// Reads the answer to `$SYS.REQ.USER.INFO` and compares it with what is expected.
    pub fn check(reply: &[u8], account: &str, user: Option<&str>) -> Result<Self, Cause> {
        let parsed = if reply.len() <= MOST_REPLY { serde_json::from_slice::<Reply>(reply).ok() } else { None };
        let Some(Reply { server, data: Some(data) }) = parsed else { return Err(Cause::Unverified) };
        if data.account != account {
            return Err(Cause::WrongAccount { expected: account.to_owned(), found: shown(&data.account) });
        }
        if let Some(user) = user.filter(|user| *user != data.user) {
            return Err(Cause::WrongUser { expected: user.to_owned(), found: shown(&data.user) });
        }
        let name = if server.name.is_empty() { &server.id } else { &server.name };
        let (server, version) = (shown(name), shown(&server.ver));
        Ok(Self { server, version, account: data.account, user: shown(&data.user) })
    }
}

impl Denied {
    /// Reads the text of a server's `-ERR`; `None`: it is about something else.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = strip(text, "Permissions Violation for ")?;
        if let Some(rest) = strip(rest, "Publish to ") {
            return Some(Self::Publish { subject: quoted(rest)?.0.to_owned() });
        }
        let (subject, rest) = quoted(strip(rest, "Subscription to ")?)?;
        let queue = rest.trim_start().strip_prefix("using queue ").and_then(quoted);
        Some(Self::Subscribe { subject: subject.to_owned(), queue: queue.map(|(queue, _)| queue.to_owned()) })
    }
}

fn strip<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// What is in quotes at the beginning, and what comes after.
fn quoted(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('"')?.split_once('"')
}

fn shown(text: &str) -> String {
    if text.is_empty() {
        return "nobody".to_owned();
    }
    text.chars().take(LOG_TEXT).flat_map(char::escape_debug).collect()
}

/// Largest answer that is looked at; it lists permissions.
const MOST_REPLY: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &str = r#"{"server":{"name":"n1","id":"NA","ver":"2.15.1"},"data":{"user":"spiffe://a/h","account":"APP","permissions":{}}}"#;

    #[test]
    fn only_the_expected_account_and_user_stand() {
        let standing = Standing::check(REPLY.as_bytes(), "APP", Some("spiffe://a/h")).unwrap();
        assert_eq!((standing.server.as_str(), standing.version.as_str()), ("n1", "2.15.1"));
        assert!(Standing::check(REPLY.as_bytes(), "APP", None).is_ok());
        let code =
            |reply: &str, account: &str, user| Standing::check(reply.as_bytes(), account, user).unwrap_err().code();
        assert_eq!(code(REPLY, "OTHER", None), "wrong-account");
        assert_eq!(code(REPLY, "APP", Some("spiffe://a/other")), "wrong-user");
        assert_eq!(code(&REPLY.replace("APP", "$G"), "APP", None), "wrong-account");
        assert_eq!(code(&REPLY.replace("APP", ""), "APP", None), "wrong-account");
        for other in ["", "{}", "[]", r#"{"server":{},"error":{"code":503}}"#, "null"] {
            assert_eq!(code(other, "APP", None), "unverified", "{other}");
        }
        let huge = format!("{REPLY}{}", " ".repeat(MOST_REPLY));
        assert_eq!(code(&huge, "APP", None), "unverified");
    }

    #[test]
    fn denials_of_the_server_are_read() {
        let publish = |subject: &str| Some(Denied::Publish { subject: subject.to_owned() });
        let subscribe = |subject: &str, queue: Option<&str>| {
            Some(Denied::Subscribe { subject: subject.to_owned(), queue: queue.map(str::to_owned) })
        };
        for (text, read) in [
            ("Permissions Violation for Publish to \"a.b\"", publish("a.b")),
            ("permissions violation for publish to \"a\"", publish("a")),
            ("Permissions Violation for Subscription to \"a.>\"", subscribe("a.>", None)),
            ("Permissions Violation for Subscription to \"a\" using queue \"q\"", subscribe("a", Some("q"))),
            ("Permissions Violation for Publish to a", None),
            ("Permissions Violation for Publish to \"a", None),
            ("Authorization Violation", None),
            ("", None),
        ] {
            assert_eq!(Denied::parse(text), read, "{text}");
        }
    }
}
