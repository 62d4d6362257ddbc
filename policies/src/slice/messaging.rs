//! Messages: who may publish, ask and receive. Reserved subjects are refused in code first, and by a guard again.
//!
//! What is published has a literal subject. A subscription in a queue group is asked about twice, without the group and with it, and
//! needs both: a rule about the one says nothing about the other.

use cedar_policy::RestrictedExpression;

use super::Slice;
use crate::asked::Asked;
use crate::decide::Action;
use crate::denial::{self, Denial, Guard, RESERVED_SUBJECT};
use crate::grant::{AskFor, By, Grant, Publish, Subscribe};
use crate::subject::{Subject, SubjectPattern};

impl Slice {
    /// May a message be published?
    pub fn publish(&self, subject: &str) -> Result<Grant<Publish>, Denial> {
        let (by, subject) = self.send(Action::Publish, subject, &|| Asked::Publish { subject: subject.to_owned() })?;
        Ok(self.grant(by, Publish { subject }))
    }

    /// May a message be published, and one answer to it received?
    pub fn request(&self, subject: &str) -> Result<Grant<AskFor>, Denial> {
        let (by, subject) = self.send(Action::Request, subject, &|| Asked::Request { subject: subject.to_owned() })?;
        Ok(self.grant(by, AskFor { subject }))
    }

    /// May the messages of a subject or a pattern be received, in a queue group where one is named?
    pub fn subscribe(&self, subject: &str, queue: &str) -> Result<Grant<Subscribe>, Denial> {
        let asked = || Asked::Subscribe { subject: subject.to_owned(), queue: queue.to_owned() };
        let _ready = self.ready(&asked)?;
        // A group's name is a word of the protocol, as a subject is.
        let is_group = queue.is_empty() || queue.parse::<Subject>().is_ok();
        let Some(pattern) = subject.parse::<SubjectPattern>().ok().filter(|_| is_group) else {
            return Err(self.malformed(&asked()));
        };
        let plain = || Asked::Subscribe { subject: subject.to_owned(), queue: String::new() };
        let mut by = self.decide_messages(Action::Subscribe, &pattern, "", &plain)?;
        if !queue.is_empty() {
            by = self.decide_messages(Action::Subscribe, &pattern, queue, &asked)?;
        }
        Ok(self.grant(by, Subscribe { pattern, queue: queue.to_owned() }))
    }

    /// What the component's grants have it receive. Each is still to be asked about.
    pub fn subscriptions(&self) -> Vec<SubjectPattern> {
        self.state.as_ref().map_or_else(|_| Vec::new(), |ready| ready.subscriptions())
    }

    fn send(&self, action: Action, subject: &str, asked: &dyn Fn() -> Asked) -> Result<(By, Subject), Denial> {
        let _ready = self.ready(asked)?;
        let Ok(subject) = subject.parse::<Subject>() else { return Err(self.malformed(&asked())) };
        let by = self.decide_messages(action, &SubjectPattern::from(subject.clone()), "", asked)?;
        Ok((by, subject))
    }

    fn decide_messages(
        &self,
        action: Action,
        pattern: &SubjectPattern,
        queue: &str,
        asked: &dyn Fn() -> Asked,
    ) -> Result<By, Denial> {
        let ready = self.ready(asked)?;
        if pattern.reaches_reserved() {
            let meta = ready.compiled.meta(RESERVED_SUBJECT);
            let guard =
                meta.map(|meta| Guard { id: meta.id.clone(), reason: meta.reason.clone(), owner: meta.owner.clone() });
            return Err(self.forbidden(&asked(), guard.unwrap_or_else(|| denial::code_guard(RESERVED_SUBJECT))));
        }
        let group = (action == Action::Subscribe).then(|| RestrictedExpression::new_string(queue.to_owned()));
        self.decide(asked, || ready.decide_subject(action, pattern, group.map(|group| ("queue", group))))
    }
}

#[cfg(test)]
mod tests {
    use crate::denial::{Denial, DenialKind};
    use crate::testing::slice;

    const GRANTS: &str = "publish = [\"orders.*.new\", \"log.a\"]\nrequest = [\"stock.>\"]\nsubscribe = [\"orders.>\"]";

    fn code<A>(answer: Result<A, Denial>) -> String {
        answer.map_or_else(|denial| denial.code().to_string(), |_| "allowed".to_owned())
    }

    #[test]
    fn what_a_pattern_covers_is_granted_and_nothing_else() {
        let slice = slice(&[("a", GRANTS)], "", "a");
        for (subject, expected) in [
            ("orders.eu.new", "allowed"),
            ("log.a", "allowed"),
            ("log.a.b", "M0201"),
            ("log", "M0201"),
            ("orders.eu.old", "M0201"),
            ("orders.new", "M0201"),
            ("orders.eu.x.new", "M0201"),
            ("stock.a", "M0201"),
            // Wildcards are for subscriptions: a message has none.
            ("orders.*.new", "M0309"),
            ("orders.>", "M0309"),
            ("log.a\r\nPUB x 0", "M0309"),
            ("", "M0309"),
        ] {
            assert_eq!(code(slice.publish(subject)), expected, "publish {subject:?}");
        }
        for (subject, expected) in [("stock.a.b", "allowed"), ("stock", "M0202"), ("orders.eu.new", "M0202")] {
            assert_eq!(code(slice.request(subject)), expected, "request {subject:?}");
        }
        for (pattern, expected) in [
            ("orders.>", "allowed"),
            ("orders.eu", "allowed"),
            ("orders.*.new", "allowed"),
            ("orders.eu.>", "allowed"),
            (">", "M0203"),
            ("*.eu", "M0203"),
            ("*.>", "M0203"),
            ("orders", "M0203"),
            ("log.a", "M0203"),
        ] {
            assert_eq!(code(slice.subscribe(pattern, "")), expected, "subscribe {pattern:?}");
            assert_eq!(code(slice.subscribe(pattern, "group")), expected, "subscribe {pattern:?} in a group");
        }
        for group in ["a b", "a\r\n", "*", ">", "a..b"] {
            assert_eq!(code(slice.subscribe("orders.eu", group)), "M0309", "{group:?}");
        }
    }

    #[test]
    fn a_wildcard_subscription_needs_a_wildcard_grant() {
        let slice = slice(&[("a", "subscribe = [\"orders.eu\", \"orders.us\"]")], "", "a");
        assert_eq!(code(slice.subscribe("orders.eu", "")), "allowed");
        for pattern in ["orders.*", "orders.>", ">", "*.eu"] {
            assert_eq!(code(slice.subscribe(pattern, "")), "M0203", "{pattern}");
        }
    }

    #[test]
    fn reserved_subjects_are_refused_under_every_grant_and_every_permit() {
        let all = "publish = [\">\"]\nrequest = [\"*.>\"]\nsubscribe = [\">\"]";
        let raw = "@id(\"all\") @reason(\"r\") @owner(\"o\")\npermit (principal == Host::Component::\"demo:a\", action in Host::Action::\"messaging\", resource is Host::Subject);";
        let slice = slice(&[("a", all)], raw, "a");
        assert_eq!(code(slice.publish("a.b")), "allowed");
        for subject in [
            "$SYS.REQ.USER.AUTH",
            "$JS.API.STREAM.DELETE.x",
            "$KV.b.k",
            "_INBOX.x.y",
            "_INBOX_other.x",
            "_inbox.x",
            "portcullis.test.ctl.h1.start",
        ] {
            assert_eq!(code(slice.publish(subject)), "M0320", "{subject}");
            assert_eq!(code(slice.request(subject)), "M0320", "{subject}");
            assert_eq!(code(slice.subscribe(subject, "g")), "M0320", "{subject}");
        }
        for pattern in ["$SYS.>", "$JS.API.*", "_INBOX.>", "_INBOX_x.*", "portcullis.>"] {
            let denial = slice.subscribe(pattern, "").unwrap_err();
            assert_eq!((denial.kind(), denial.guard()), (DenialKind::Forbidden, Some("guard.reserved-subject")));
            assert!(denial.edit().is_none(), "there is no fix for what a guard forbids");
        }
    }

    #[test]
    fn a_rule_about_one_queue_group_is_none_about_the_plain_subscription() {
        let grant = "@id(\"g\") @reason(\"r\") @owner(\"o\")\npermit (principal == Host::Component::\"demo:a\", action == Host::Action::\"subscribe\", resource in Host::Subject::\"orders.>\") when { context.queue == \"g\" };";
        let only_grouped = slice(&[("a", "load = true")], grant, "a");
        assert_eq!(code(only_grouped.subscribe("orders.eu", "g")), "M0203", "the plain check is not passed");
        let forbid = "@id(\"f\") @reason(\"r\") @owner(\"o\")\nforbid (principal, action == Host::Action::\"subscribe\", resource) when { context.queue == \"g\" };";
        let grouped = slice(&[("a", GRANTS)], forbid, "a");
        assert_eq!(code(grouped.subscribe("orders.eu", "")), "allowed");
        assert_eq!(code(grouped.subscribe("orders.eu", "g")), "M0390");
    }

    #[test]
    fn raw_policies_reach_subjects_by_what_covers_them() {
        let forbid = "@id(\"f\") @reason(\"r\") @owner(\"o\")\nforbid (principal, action in Host::Action::\"messaging\", resource in Host::Subject::\"orders.*.secret\");";
        let slice = slice(&[("a", "publish = [\"orders.>\"]")], forbid, "a");
        assert_eq!(code(slice.publish("orders.eu.open")), "allowed");
        assert_eq!(code(slice.publish("orders.eu.secret")), "M0390");
        // A rule about something narrower is none about the pattern, but about each message under it.
        let wide = self::slice(&[("a", "subscribe = [\">\"]")], forbid, "a");
        assert_eq!(code(wide.subscribe(">", "")), "allowed");
        assert_eq!(code(wide.subscribe("orders.eu.secret", "g")), "M0390");
        assert_eq!(code(wide.subscribe("orders.eu.open", "g")), "allowed");
    }

    #[test]
    fn a_subject_that_no_message_can_lie_in_is_refused_when_it_is_loaded() {
        let compiles = |tail: &str| {
            let text = format!(
                "@id(\"f\") @reason(\"r\") @owner(\"o\")\nforbid (principal, action in Host::Action::\"messaging\", {tail};"
            );
            let source = crate::source::Source { name: "c".to_owned(), text, kind: crate::source::SourceKind::Cedar };
            crate::engine::PolicySet::compile(&[source], 1).is_ok()
        };
        for dead in [
            "resource in Host::Subject::\"orders.e*\")",
            "resource in Host::Subject::\"a.>.b\")",
            "resource) when { resource in Host::Subject::\"orders.*.secret\" }",
            "resource) when { resource in Host::Subject::\">\" }",
            "resource) unless { resource in [Host::Subject::\"a\", Host::Subject::\"a..b\"] }",
        ] {
            assert!(!compiles(dead), "{dead}");
        }
        for fit in [
            "resource in Host::Subject::\"orders.*.secret\")",
            "resource in Host::Subject::\">\")",
            "resource) when { resource in Host::Subject::\"orders.>\" }",
            "resource) when { resource == Host::Subject::\"orders.eu\" }",
        ] {
            assert!(compiles(fit), "{fit}");
        }
    }

    #[test]
    fn subscriptions_are_what_grants_name_without_what_others_cover() {
        let lines = [
            ("a", "subscribe = [\"orders.>\", \"orders.eu\", \"a.*.c\"]"),
            ("a", "subscribe = [\"a.b.*\", \"a.b.c\"]"),
        ];
        let subscriptions = slice(&lines, "", "a").subscriptions();
        let texts: Vec<&str> = subscriptions.iter().map(|pattern| pattern.as_str()).collect();
        assert_eq!(texts, ["a.*.c", "a.b.*", "orders.>"]);
    }

    #[test]
    fn a_refusal_names_the_nearest_grant_and_the_fix_allows_it() {
        let slice = slice(&[("a", GRANTS)], "", "a");
        let denial = slice.publish("stock.a").unwrap_err();
        assert!(
            denial
                .render(&crate::denial::FixContext::default())
                .contains("all matches but the action (grant: request stock.>)")
        );
        for denial in [
            slice.publish("orders.x").unwrap_err(),
            slice.request("b.c").unwrap_err(),
            slice.subscribe("b.*", "g").unwrap_err(),
        ] {
            let edit = crate::edit::GrantEdit {
                reason: "r".to_owned(),
                owner: "o".to_owned(),
                ..denial.edit().unwrap().clone()
            };
            let text = crate::edit::add_grant(&crate::testing::grants(&[("a", GRANTS)]), &edit).unwrap();
            let source = crate::source::Source { name: "g".to_owned(), text, kind: crate::source::SourceKind::Grants };
            let set = crate::engine::PolicySet::compile(&[source], 1).unwrap();
            let again = set.slice(&crate::testing::facts("a"));
            let answer = denial.question().unwrap().ask(&again).unwrap();
            assert!(matches!(answer, crate::question::Answer::Allowed(_)), "{}", answer.why());
        }
    }
}
