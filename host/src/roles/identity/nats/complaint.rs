//! When it is an error that something cannot be shown to NATS: at once, but for the first SVID of the host, which is made after the
//! process began. While that is young nobody has to do anything; where it lasts, somebody has to.

use std::time::Instant;

use super::NO_SVID;
use crate::limits::NATS_FIRST_SVID;

/// What was complained of, of one connection.
#[derive(Debug)]
pub(super) struct Complaint {
    began: Instant,
    /// Whether everything could be shown once.
    could: bool,
    told: String,
}

impl Complaint {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, could: false, told: String::new() }
    }

    /// Whether this problem is to be told now; empty: there is none.
    pub(super) fn is_due(&mut self, problem: &str, now: Instant) -> bool {
        self.could |= problem.is_empty();
        let first = problem == NO_SVID && !self.could && now.duration_since(self.began) < NATS_FIRST_SVID;
        if first || self.told == problem {
            return false;
        }
        problem.clone_into(&mut self.told);
        !problem.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn that_there_is_no_svid_yet_is_an_error_once_it_lasts_and_anything_else_at_once() {
        let start = Instant::now();
        let late = start + NATS_FIRST_SVID;
        let mut complaint = Complaint::new(start);
        assert!(!complaint.is_due(NO_SVID, start));
        assert!(!complaint.is_due(NO_SVID, late - Duration::from_millis(1)));
        assert!(complaint.is_due(NO_SVID, late));
        assert!(!complaint.is_due(NO_SVID, late), "told once");
        let mut complaint = Complaint::new(start);
        assert!(complaint.is_due("others can read it", start));
        assert!(!complaint.is_due("", start));
        assert!(complaint.is_due("others can read it", start), "again is told again");
        // One that there was and is no more was not on its way.
        assert!(complaint.is_due(NO_SVID, start));
    }
}
