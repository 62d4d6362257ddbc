//! Slices that grant whatever is asked: what the gate costs is measured against them (`tests/bench/gate.py`).
//!
//! Only in builds with the feature `bench-ungated`. Nothing turns it on by itself; CI refuses it.

use std::sync::Arc;

use crate::allowed::Allowed;
use crate::component::ComponentFacts;
use crate::engine::PolicySet;
use crate::grant::By;
use crate::slice::Slice;

impl PolicySet {
    /// A slice that grants whatever is asked.
    pub fn ungated_slice(&self, facts: &ComponentFacts) -> Arc<Slice> {
        Arc::new(Slice::ungated(facts, self.generation()))
    }
}

/// Nobody's permission.
pub(crate) fn nobody() -> By {
    static NOBODY: std::sync::LazyLock<Arc<Allowed>> = std::sync::LazyLock::new(|| Arc::new(Allowed::new(Vec::new())));
    By::policies(Arc::clone(&NOBODY))
}
