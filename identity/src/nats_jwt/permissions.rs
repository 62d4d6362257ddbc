//! What a user may publish and subscribe to. There is no value without both lists: a server reads an absent list as everything.

use std::fmt::Display;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::subject::{Queue, Subject};
use crate::limits::MAX_NATS_RIGHTS;

/// Exactly what may be published and subscribed to; an empty list is nothing at all. Of [`Subject`]s, or of templates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions<S = Subject> {
    publish: Vec<S>,
    subscribe: Vec<Subscription<S>>,
    responses: Option<Responses>,
}

/// A subject that may be subscribed to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subscription<S = Subject> {
    /// The subject.
    pub subject: S,
    /// The queue group that the subscription must be in.
    pub queue: Option<Queue>,
}

/// May answer the requests that it receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Responses {
    max: u32,
    within: Duration,
}

/// A list is longer than [`MAX_NATS_RIGHTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_NATS_RIGHTS} subjects")]
pub struct TooMany;

impl TooMany {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "use fewer subjects, with wildcards"
    }
}

impl<S: Display> Permissions<S> {
    /// These and no others.
    pub fn new(
        publish: Vec<S>,
        subscribe: Vec<Subscription<S>>,
        responses: Option<Responses>,
    ) -> Result<Self, TooMany> {
        if publish.len() > MAX_NATS_RIGHTS || subscribe.len() > MAX_NATS_RIGHTS {
            return Err(TooMany);
        }
        Ok(Self { publish, subscribe, responses })
    }

    /// None at all.
    pub fn none() -> Self {
        Self { publish: Vec::new(), subscribe: Vec::new(), responses: None }
    }

    /// What may be published to.
    pub fn publish(&self) -> &[S] {
        &self.publish
    }

    /// What may be subscribed to.
    pub fn subscribe(&self) -> &[Subscription<S>] {
        &self.subscribe
    }

    /// The answers that may be given.
    pub fn responses(&self) -> Option<Responses> {
        self.responses
    }

    /// `pub`, `sub` and `resp`.
    pub(super) fn write(&self, into: &mut Map<String, Value>) {
        let publish = self.publish.iter().map(ToString::to_string).collect();
        let subscribe = self.subscribe.iter().map(|right| match &right.queue {
            None => right.subject.to_string(),
            Some(queue) => format!("{} {queue}", right.subject),
        });
        into.insert("pub".to_owned(), listed(publish));
        into.insert("sub".to_owned(), listed(subscribe.collect()));
        if let Some(Responses { max, within }) = self.responses {
            let nanos = i64::try_from(within.as_nanos()).unwrap_or(i64::MAX);
            into.insert("resp".to_owned(), json!({"max": max, "ttl": nanos}));
        }
    }
}

impl Responses {
    /// So many answers to each request, within so much time; at least one, and some time. (Of 0 a server makes its default.)
    pub fn new(max: u32, within: Duration) -> Self {
        Self { max: max.max(1), within: within.max(Duration::from_millis(1)) }
    }

    /// Answers to one request.
    pub fn max(&self) -> u32 {
        self.max
    }

    /// How long after it.
    pub fn within(&self) -> Duration {
        self.within
    }
}

/// A server takes an empty `allow` for an absent one, which is everything: nothing is written as a denial of everything.
fn listed(allow: Vec<String>) -> Value {
    if allow.is_empty() { json!({"deny": [">"]}) } else { json!({"allow": allow}) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(permissions: &Permissions) -> Value {
        let mut map = Map::new();
        permissions.write(&mut map);
        Value::Object(map)
    }

    #[test]
    fn nothing_is_written_as_a_denial_of_everything() {
        assert_eq!(written(&Permissions::none()), json!({"pub": {"deny": [">"]}, "sub": {"deny": [">"]}}));
        let only = Permissions::new(vec!["a".parse().unwrap()], vec![], None).unwrap();
        assert_eq!(written(&only), json!({"pub": {"allow": ["a"]}, "sub": {"deny": [">"]}}));
    }

    #[test]
    fn queue_groups_and_answers_are_written_as_servers_read_them() {
        let subscription = Subscription { subject: "jobs.>".parse().unwrap(), queue: Some("workers".parse().unwrap()) };
        let responses = Some(Responses::new(1, Duration::from_secs(3)));
        let permissions = Permissions::new(vec![], vec![subscription], responses).unwrap();
        let wanted = json!({"pub": {"deny": [">"]}, "sub": {"allow": ["jobs.> workers"]}, "resp": {"max": 1, "ttl": 3_000_000_000_i64}});
        assert_eq!(written(&permissions), wanted);
        let least = Responses::new(0, Duration::ZERO);
        assert!(least.max() == 1 && least.within() > Duration::ZERO, "0 is a default of the server");
    }

    #[test]
    fn the_longest_lists_pass_and_one_more_is_refused() {
        let subjects = |count| vec!["a".parse::<Subject>().unwrap(); count];
        let subscriptions = |count| {
            subjects(count).into_iter().map(|subject| Subscription { subject, queue: None }).collect::<Vec<_>>()
        };
        assert!(Permissions::new(subjects(MAX_NATS_RIGHTS), subscriptions(MAX_NATS_RIGHTS), None).is_ok());
        assert!(Permissions::new(subjects(MAX_NATS_RIGHTS + 1), vec![], None).is_err());
        assert!(Permissions::new(vec![], subscriptions(MAX_NATS_RIGHTS + 1), None).is_err());
    }
}
