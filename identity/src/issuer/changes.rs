//! What a rotation changed: for whoever publishes the bundle, replaces SVIDs and writes the audit.

use crate::authority::{AuthorityChange, AuthorityEvent, AuthorityKind};
use crate::journal::Entry;
use crate::rotation_error::RotationError;

/// What changed.
#[derive(Debug, Default)]
pub struct Changes {
    /// The bundle is another one: publish it.
    pub bundle: bool,
    /// The SVID epoch grew: every SVID that is held must be replaced.
    pub svids: bool,
    /// Trust was taken away: publish before anything else, whether or not it can be written or recorded.
    pub withdrawn: bool,
    /// What happened to which authority, in order.
    pub events: Vec<AuthorityEvent>,
    /// What should have happened and did not; it is tried again at the next tick.
    pub failures: Vec<RotationFailure>,
}

/// What should have happened and did not.
#[derive(Debug)]
pub struct RotationFailure {
    /// For which kind of authority; `None` when it is about the state as a whole.
    pub kind: Option<AuthorityKind>,
    /// Why.
    pub error: RotationError,
}

impl Changes {
    /// Whether nothing changed and nothing failed.
    pub fn is_empty(&self) -> bool {
        !self.bundle && !self.svids && self.events.is_empty() && self.failures.is_empty()
    }

    pub(super) fn event(&mut self, entry: &Entry, change: AuthorityChange) {
        let (kind, slot, id, not_after) = (entry.kind, entry.slot, entry.id.clone(), entry.not_after);
        self.events.push(AuthorityEvent { kind, slot, id, change, not_after });
    }

    pub(super) fn failed(&mut self, kind: Option<AuthorityKind>, error: impl Into<RotationError>) {
        self.failures.push(RotationFailure { kind, error: error.into() });
    }
}
