//! What the callout counts, and the page that shows it.

use std::sync::atomic::{AtomicI64, Ordering};

use super::standing::Problems;
use crate::metrics::{Counter, Histogram, Kind, Page};

/// Counts of one callout.
#[derive(Debug, Default)]
pub struct Counts {
    /// Let in.
    pub allowed: Counter,
    /// Not let in: what the credential or the policy says.
    pub denied: Counter,
    /// Not answered in earnest: not from a server, seen before, malformed.
    pub rejected: Counter,
    /// Denied at once for lack of room.
    pub busy: Counter,
    /// Denied because the answer would have come too late.
    pub late: Counter,
    /// Connections ended after a revocation.
    pub kicked: Counter,
    /// Records that found no room in the audit log. Denials only: a yes waits, or becomes a no.
    pub records_lost: Counter,
    /// From the arrival of a request to its answer.
    pub took: Histogram,
    /// At work now.
    pub at_work: AtomicI64,
    /// When the first of what it logs in with ends, in seconds since 1970. Zero: never.
    ends: AtomicI64,
}

impl Counts {
    /// When the first of what it logs in with ends.
    pub fn ends_at(&self, at: Option<i64>) {
        self.ends.store(at.unwrap_or_default(), Ordering::Relaxed);
    }

    /// What became of all requests that it took, each counted once.
    pub fn in_words(&self) -> String {
        let [allowed, denied, rejected, busy, late] =
            [&self.allowed, &self.denied, &self.rejected, &self.busy, &self.late].map(Counter::get);
        format!("{allowed} let in, {denied} denied, {rejected} not taken, {busy} without room, {late} too late")
    }

    /// The page.
    pub fn page(&self, generation: u64, problems: &Problems) -> String {
        let mut page = Page::default();
        let ready = u64::from(problems.are_none());
        page.number("portcullis_callout_ready", Kind::Gauge, "Whether the callout answers.", ready);
        page.number("portcullis_callout_policy_generation", Kind::Gauge, "The roles in force.", generation);
        page.family(
            "portcullis_callout_requests_total",
            Kind::Counter,
            "Requests of servers, by what became of them.",
            [
                (&[("result", "allowed")][..], self.allowed.get()),
                (&[("result", "denied")][..], self.denied.get()),
                (&[("result", "rejected")][..], self.rejected.get()),
                (&[("result", "busy")][..], self.busy.get()),
                (&[("result", "late")][..], self.late.get()),
            ],
        );
        let at_work = u64::try_from(self.at_work.load(Ordering::Relaxed)).unwrap_or_default();
        page.number("portcullis_callout_requests_in_flight", Kind::Gauge, "Requests at work.", at_work);
        page.number(
            "portcullis_callout_kicked_total",
            Kind::Counter,
            "Connections that were ended.",
            self.kicked.get(),
        );
        page.number(
            "portcullis_callout_records_lost_total",
            Kind::Counter,
            "Denials that found no room in the audit log.",
            self.records_lost.get(),
        );
        let ends = u64::try_from(self.ends.load(Ordering::Relaxed)).unwrap_or_default();
        page.number(
            "portcullis_callout_login_ends_seconds",
            Kind::Gauge,
            "When the first credential or certificate that the callout shows ends, since 1970; 0: never.",
            ends,
        );
        page.histograms(
            "portcullis_callout_seconds",
            "From the arrival of a request to its answer.",
            [(&[][..], &self.took)],
        );
        page.into_text()
    }
}
