//! What the server denies this host itself, for `status`: a host whose heartbeats or buckets are denied looks connected, and is no
//! part of its cluster. Shown for as long as it goes on: what is denied is tried again.

use std::collections::BTreeMap;
use std::sync::{Mutex, Weak};
use std::time::Instant;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::limits::{LOG_TEXT, NATS_DENIED_SHOWN, NATS_DENIED_SUBJECTS};
use crate::nats::Denied;
use crate::supervisor::Host;

/// What was denied lately, and when.
#[derive(Debug, Default)]
pub struct Denials(Mutex<BTreeMap<(&'static str, String), Instant>>);

impl Denials {
    /// Remembers one.
    fn take(&self, denied: Denied, now: Instant) {
        let (verb, subject) = match denied {
            // An answer that comes too late is denied, too; where it goes is whoever asked's to say.
            Denied::Publish { subject } if !is_of_cluster(&subject) => return,
            Denied::Publish { subject } => ("publishing to", subject),
            Denied::Subscribe { subject, .. } => ("subscribing to", subject),
        };
        let Ok(mut all) = self.0.lock() else { return };
        all.retain(|_, at| now.saturating_duration_since(*at) < NATS_DENIED_SHOWN);
        let key = (verb, subject.chars().take(LOG_TEXT).flat_map(char::escape_debug).collect());
        if all.len() < NATS_DENIED_SUBJECTS || all.contains_key(&key) {
            all.insert(key, now);
        }
    }

    /// A line for each.
    pub fn lines(&self, cluster: &str, now: Instant) -> Vec<String> {
        let Ok(all) = self.0.lock() else { return Vec::new() };
        let recent = all.iter().filter(|(_, at)| now.saturating_duration_since(**at) < NATS_DENIED_SHOWN);
        recent
            .map(|((verb, subject), _)| {
                format!("nats: the server denies {verb} {subject}; hint: {}", hint(subject, cluster))
            })
            .collect()
    }
}

/// Follows what the server denies, for as long as the connection is there.
pub async fn follow(host: Weak<Host>, mut denied: broadcast::Receiver<Denied>) {
    loop {
        match denied.recv().await {
            Ok(what) => {
                let Some(host) = host.upgrade() else { return };
                host.nats.denials.take(what, Instant::now());
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

fn is_of_cluster(subject: &str) -> bool {
    subject.starts_with("portcullis.") || subject.starts_with("$JS.API.DIRECT.")
}

fn hint(subject: &str, cluster: &str) -> String {
    match is_of_cluster(subject) {
        true => format!(
            "give this host's user the subjects of a host, as `portcullis cluster init --print --cluster {cluster}` lists them: in \
             the server's file, in roles.toml of its callout, or in the template of the account's JWT"
        ),
        false => "allow it to this host's user at the server, or in roles.toml of its callout".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(subject: &str) -> Denied {
        Denied::Publish { subject: subject.to_owned() }
    }

    #[test]
    fn a_denied_subject_is_shown_with_its_remedy_while_it_is_denied() {
        let (denials, now) = (Denials::default(), Instant::now());
        assert!(denials.lines("eu", now).is_empty());
        denials.take(publish("$JS.API.DIRECT.GET.KV_x"), now);
        denials.take(publish("_INBOX_of_an_operator.1"), now);
        denials.take(Denied::Subscribe { subject: "jobs\u{1b}".to_owned(), queue: None }, now);
        let lines = denials.lines("eu", now);
        assert!(lines[0].contains("denies publishing to $JS.API.DIRECT.GET.KV_x; hint:"), "{lines:?}");
        assert!(lines[0].contains("cluster init --print --cluster eu"), "{lines:?}");
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(
            lines[1].contains("denies subscribing to jobs\\u{1b};") && !lines[1].contains("cluster init"),
            "{lines:?}"
        );
        let later = now + NATS_DENIED_SHOWN;
        assert!(denials.lines("eu", later).is_empty(), "it is not denied any more");
    }

    #[test]
    fn no_more_subjects_are_kept_than_may_be_and_old_ones_make_room() {
        let (denials, now) = (Denials::default(), Instant::now());
        for n in 0..NATS_DENIED_SUBJECTS + 5 {
            denials.take(publish(&format!("portcullis.eu.evt.{n:03}")), now);
        }
        assert_eq!(denials.lines("eu", now).len(), NATS_DENIED_SUBJECTS);
        let later = now + NATS_DENIED_SHOWN;
        denials.take(publish("portcullis.eu.new"), later);
        assert_eq!(denials.lines("eu", later).len(), 1);
    }
}
