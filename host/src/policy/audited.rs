//! Which components are in audit mode, and until when; and which slice of a policy follows from that.
//!
//! Decides nothing but that: an entry that has ended, that reaches further than audit mode may, or that is more than a host may
//! have at once is as if it were not there, so that every doubt ends in the strict slice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use portcullis_policies::{ComponentFacts, PolicySet, Slice, is_component_name};
use time::OffsetDateTime;

use crate::limits::{AUDIT_MODE_COMPONENTS, AUDIT_MODE_MOST};

/// Components in audit mode by their claimed names, each with its end in seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audited(BTreeMap<String, i64>);

impl Audited {
    /// What another process says is in audit mode. What cannot be right is left out.
    pub fn pushed(entries: impl Iterator<Item = (String, i64)>, now: OffsetDateTime) -> Self {
        let latest = (now + AUDIT_MODE_MOST).unix_timestamp().saturating_add(1);
        let mut audited = Self::default();
        for (component, until) in entries.filter(|(name, until)| is_component_name(name) && *until <= latest) {
            audited.begin(component, until);
        }
        audited.at(now)
    }

    /// Puts a component into audit mode; says whether there is room for it.
    pub fn begin(&mut self, component: String, until: i64) -> bool {
        if self.0.len() >= AUDIT_MODE_COMPONENTS && !self.0.contains_key(&component) {
            return false;
        }
        self.0.insert(component, until);
        true
    }

    /// Takes a component out of audit mode; says whether it was in it.
    pub fn end(&mut self, component: &str) -> bool {
        self.0.remove(component).is_some()
    }

    /// Those that have not ended yet.
    pub fn at(&self, now: OffsetDateTime) -> Self {
        let now = now.unix_timestamp_nanos();
        Self(
            self.iter()
                .filter(|(_, until)| is_ahead(*until, now))
                .map(|(name, until)| (name.to_owned(), until))
                .collect(),
        )
    }

    /// Whether a component is in audit mode now.
    pub fn holds(&self, component: &str, now: OffsetDateTime) -> bool {
        self.until(component).is_some_and(|until| is_ahead(until, now.unix_timestamp_nanos()))
    }

    /// The end of a component's audit mode, past or not.
    pub fn until(&self, component: &str) -> Option<i64> {
        self.0.get(component).copied()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, until)| (name.as_str(), *until))
    }

    /// The slice of a component: audited where its audit mode has not ended, else strict.
    pub fn slice(&self, set: &PolicySet, facts: &ComponentFacts, now: OffsetDateTime) -> Arc<Slice> {
        if self.holds(&facts.name, now) { set.audited_slice(facts) } else { set.slice(facts) }
    }
}

/// How long from now until an end, nothing if that is past.
pub fn left(until: i64, now: OffsetDateTime) -> Duration {
    let nanos = i128::from(until).saturating_mul(NANOS).saturating_sub(now.unix_timestamp_nanos());
    u64::try_from(nanos).map(Duration::from_nanos).unwrap_or_default()
}

fn is_ahead(until: i64, now_nanos: i128) -> bool {
    i128::from(until).saturating_mul(NANOS) > now_nanos
}

const NANOS: i128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = time::macros::datetime!(2026-06-01 12:00:00 UTC);

    fn pushed(entries: &[(&str, i64)]) -> Vec<(String, i64)> {
        let start = NOW.unix_timestamp();
        let entries = entries.iter().map(|(name, after)| ((*name).to_owned(), start + after));
        Audited::pushed(entries, NOW).iter().map(|(name, until)| (name.to_owned(), until - start)).collect()
    }

    #[test]
    fn what_is_over_what_is_too_long_and_what_is_no_name_is_left_out() {
        let most = i64::try_from(AUDIT_MODE_MOST.as_secs()).unwrap();
        let entries =
            [("a:a", 1), ("a:b", 0), ("a:c", -5), ("a:d", most), ("a:e", most + 2), ("nobody", 5), ("A:F", 5), ("", 5)];
        assert_eq!(pushed(&entries), [("a:a".to_owned(), 1), ("a:d".to_owned(), most)]);
    }

    #[test]
    fn more_than_a_host_may_have_at_once_are_left_out() {
        let names: Vec<String> = (0..AUDIT_MODE_COMPONENTS + 1).map(|n| format!("a:c{n:04}")).collect();
        let entries: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), 10)).collect();
        assert_eq!(pushed(&entries).len(), AUDIT_MODE_COMPONENTS);
        let mut audited = Audited::pushed(entries.iter().map(|(name, _)| ((*name).to_owned(), i64::MAX)), NOW);
        assert_eq!(audited.iter().count(), 0);
        assert!(names.iter().take(AUDIT_MODE_COMPONENTS).all(|name| audited.begin(name.clone(), 1)));
        assert!(!audited.begin("a:other".to_owned(), 1));
        assert!(audited.begin("a:c0000".to_owned(), 2), "one that is in it may go on");
        assert!(audited.end("a:c0000") && !audited.end("a:c0000") && audited.begin("a:other".to_owned(), 1));
    }

    #[test]
    fn a_slice_is_audited_until_the_end_and_strict_from_then_on() {
        let facts = ComponentFacts {
            name: "a:a".to_owned(),
            digest: format!("sha256:{}", "0".repeat(64)),
            spiffe_id: "spiffe://example.org/a".to_owned(),
            signer: "S".to_owned(),
            signer_group: "g".to_owned(),
            instance: "i".to_owned(),
        };
        let mut audited = Audited::default();
        audited.begin("a:a".to_owned(), NOW.unix_timestamp() + 2);
        let set = PolicySet::deny_all(1);
        let is = |facts: &ComponentFacts, after: Duration| audited.slice(&set, facts, NOW + after).is_audited();
        assert!(is(&facts, Duration::ZERO) && is(&facts, Duration::from_millis(1999)));
        assert!(!is(&facts, Duration::from_secs(2)) && !is(&facts, Duration::from_secs(3)));
        let other = ComponentFacts { name: "a:b".to_owned(), ..facts };
        assert!(!is(&other, Duration::ZERO));
        assert_eq!(left(NOW.unix_timestamp() + 2, NOW), Duration::from_secs(2));
        assert_eq!(left(NOW.unix_timestamp() - 2, NOW), Duration::ZERO);
        // What is no time ahead that can be waited for is over.
        assert!(left(i64::MIN, NOW).is_zero() && left(i64::MAX, NOW).is_zero());
    }
}
