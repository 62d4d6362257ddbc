//! From what policy gives to what a token says.

use std::time::Duration;

use portcullis_identity::nats_jwt::{Permissions, Responses, SubjectError, Subscription, Tag};
use portcullis_policies::callout::Placement;

/// Whether two placements give the same: everything that goes into an answer, not the generation of the roles, which does not.
pub fn are_the_same(one: &Placement, other: &Placement) -> bool {
    one.workload() == other.workload()
        && one.account() == other.account()
        && one.role() == other.role()
        && one.publish() == other.publish()
        && one.subscribe() == other.subscribe()
        && one.responses() == other.responses()
        && one.captures() == other.captures()
}

/// For a token that says them itself.
pub fn permissions(placement: &Placement) -> Result<Permissions, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let publish = placement.publish().iter().map(|subject| subject.as_str().parse());
    let publish = publish.collect::<Result<Vec<_>, _>>().map_err(|error: SubjectError| text(&error))?;
    let mut subscribe = Vec::new();
    for right in placement.subscribe() {
        subscribe.push(Subscription {
            subject: right.subject.as_str().parse().map_err(|error: SubjectError| text(&error))?,
            queue: match &right.queue {
                None => None,
                Some(queue) => Some(queue.parse().map_err(|error: SubjectError| text(&error))?),
            },
        });
    }
    let responses =
        placement.responses().map(|answers| Responses::new(answers.max, Duration::from_secs(answers.seconds)));
    Permissions::new(publish, subscribe, responses).map_err(|error| text(&error))
}

/// For a token whose rights a template gives: what fills its places.
pub fn tags(placement: &Placement) -> Result<Vec<Tag>, String> {
    let tags = placement.captures().iter().map(|(key, value)| Tag::new(key, value));
    tags.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use portcullis_policies::callout::{self as policy, Accounts, ConnectFacts, CredentialKind, Roles};
    use portcullis_policies::{Source, SourceKind};

    use super::*;

    const ROLES: &str = r#"version = 1
[[role]]
id = "hosts"
reason = "hosts of the cluster"
owner = "team"
who = "spiffe://td-a.test/host/{host}"
account = "APP"
publish = ["lat.evt.{host}.>"]
subscribe = ["lat.ctl.{host}.>"]
responses = 1
lifetime = "1h"
"#;

    fn placed(text: &str, generation: u64) -> Placement {
        let source = Source { name: "roles.toml".to_owned(), text: text.to_owned(), kind: SourceKind::Grants };
        let names = ["APP", "OTHER"].map(|name| name.parse().unwrap()).to_vec();
        let accounts = Accounts::new(names, "SYS".parse().unwrap(), false);
        let roles = Roles::compile(&[source], &[], accounts, generation).unwrap();
        let facts = ConnectFacts {
            workload: "spiffe://td-a.test/host/h1".parse().unwrap(),
            kind: policy::ConnectionKind::Client,
            connection: policy::ConnectionType::Nats,
            ip: "127.0.0.1".parse().unwrap(),
            credentials: BTreeSet::from([CredentialKind::X509]),
            nkey: None,
            nkey_is_bound: false,
        };
        roles.decide(&facts).unwrap()
    }

    #[test]
    fn rights_that_changed_while_an_answer_was_under_way_are_other_rights() {
        let decided = placed(ROLES, 1);
        assert!(are_the_same(&decided, &placed(ROLES, 2)), "only the generation is another");
        for (from, to) in [
            ("id = \"hosts\"", "id = \"others\""),
            ("account = \"APP\"", "account = \"OTHER\""),
            ("\"lat.evt.{host}.>\"", "\"lat.evt.{host}.a\""),
            ("\"lat.ctl.{host}.>\"", "\"lat.ctl.{host}.a\""),
            ("responses = 1\n", ""),
        ] {
            let changed = ROLES.replacen(from, to, 1);
            assert_ne!(changed, ROLES, "{from}");
            assert!(!are_the_same(&decided, &placed(&changed, 2)), "{to}");
        }
    }
}
