//! `[messaging]`: messages of components over NATS. Absent: there are none.

use serde::{Deserialize, Serialize};

use super::problems::Problems;

/// `[messaging]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Messaging {
    /// A connection for each component, with its own X.509-SVID, so that the server enforces its permissions too. Otherwise all
    /// share the connection of `[nats.data]`.
    pub per_component: bool,
    /// With `per_component`: the account that every component must land in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Messages of one component that are handled at once; further ones wait.
    pub concurrent: u32,
    /// Bytes of one message.
    pub message_bytes: u32,
    /// Longest wait for an answer, in milliseconds.
    pub request_ms: u64,
}

impl Default for Messaging {
    fn default() -> Self {
        Self { per_component: false, account: None, concurrent: 32, message_bytes: 1 << 20, request_ms: 30_000 }
    }
}

impl Messaging {
    /// Says what is wrong.
    pub(super) fn check(self, nats: Option<&super::Nats>, problems: &mut Problems) -> Self {
        let rows = [
            ("concurrent", u64::from(self.concurrent), 1, 10_000),
            ("message_bytes", u64::from(self.message_bytes), 1, 64 << 20),
            ("request_ms", self.request_ms, 10, 3_600_000),
        ];
        for (name, value, least, most) in rows {
            if value < least || value > most {
                problems.add(&format!("messaging.{name}"), format!("is {value}, must be {least} to {most}"), None);
            }
        }
        match nats {
            None => problems.add("messaging", "needs [nats]", Some("name the servers under [nats]")),
            Some(nats) if self.per_component => {
                if nats.danger_plaintext {
                    let hint = "use tls:// and leave danger_plaintext out";
                    problems.add("messaging.per_component", "an SVID cannot be shown without TLS", Some(hint));
                }
            }
            Some(nats) => match &nats.data {
                None => {
                    let hint = "add [nats.data] with account and auth, or set per_component = true";
                    problems.add("messaging", "needs a connection", Some(hint));
                }
                Some(data) => {
                    // Only then are they nobody's to subscribe to.
                    let is_inbox = |prefix: &String| prefix.starts_with("_INBOX");
                    if data.inbox_prefix.as_ref().is_some_and(|prefix| !is_inbox(prefix)) {
                        let hint = "inboxes of components begin with _INBOX, such as _INBOX_h1";
                        problems.add("nats.data.inbox_prefix", "could be granted to a component", Some(hint));
                    }
                }
            },
        }
        match (&self.account, self.per_component) {
            (None, true) => {
                let hint = "name the account whose users are the components, such as account = \"APPS\"";
                problems.add("messaging.account", "is missing", Some(hint));
            }
            (Some(_), false) => {
                problems.add("messaging.account", "has no meaning without per_component", Some("leave it out"));
            }
            (Some(account), true)
                if account.is_empty() || account.starts_with('$') || account.contains(char::is_whitespace) =>
            {
                let hint = "give components an account of their own";
                problems.add("messaging.account", "is no account for components", Some(hint));
            }
            _ => {}
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Nats;

    fn problems(text: &str, nats: Option<&str>) -> String {
        let mut problems = Problems::new(Path::new("/etc/p/portcullis.toml"));
        let nats: Option<Nats> = nats.map(|text| toml::from_str(text).unwrap());
        toml::from_str::<Messaging>(text).unwrap().check(nats.as_ref(), &mut problems);
        if problems.is_empty() { String::new() } else { problems.into_error().to_string() }
    }

    const HOST: &str = "servers = [\"tls://n.example\"]\naccount = \"HOSTS\"\ntls.ca = \"ca\"\nauth.svid = true\n";

    #[test]
    fn a_shared_connection_and_one_for_each_component_can_be_configured() {
        let data = format!("{HOST}[data]\naccount = \"APPS\"\nauth.credentials = \"c\"\n");
        assert_eq!(problems("", Some(&data)), "");
        assert_eq!(problems("per_component = true\naccount = \"APPS\"", Some(HOST)), "");
    }

    #[test]
    fn what_cannot_work_or_would_not_be_enforced_is_refused() {
        let open = format!("{HOST}[data]\naccount = \"A\"\ninbox_prefix = \"answers\"\nauth.credentials = \"c\"\n");
        let plain =
            HOST.replace("tls://n.example", "nats://127.0.0.1").replace("tls.ca = \"ca\"", "danger_plaintext = true");
        for (text, nats, why) in [
            ("", None, "needs [nats]"),
            ("", Some(HOST), "needs a connection"),
            ("", Some(open.as_str()), "could be granted"),
            ("per_component = true", Some(HOST), "account"),
            ("account = \"APPS\"", Some(HOST), "no meaning"),
            ("per_component = true\naccount = \"$G\"", Some(HOST), "no account for components"),
            ("per_component = true\naccount = \"A\"", Some(plain.as_str()), "without TLS"),
            ("concurrent = 0", Some(HOST), "messaging.concurrent"),
            ("message_bytes = 0", Some(HOST), "messaging.message_bytes"),
            ("request_ms = 3600001", Some(HOST), "messaging.request_ms"),
        ] {
            let found = problems(text, nats);
            assert!(found.contains(why), "{text}: {found}");
        }
    }
}
