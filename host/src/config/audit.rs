//! `[audit]`: when the audit log goes on in a new file, and how many old ones stay.

use serde::{Deserialize, Serialize};

use super::problems::Problems;
use crate::audit::Parts;

/// Section `[audit]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// Size at which the log goes on in a new file, in MiB: 1 to 65536.
    pub part_mib: u32,
    /// Old files that stay, the youngest; 0: all, for whoever carries them away. The removal of each is a record.
    pub keep_parts: u32,
}

impl Default for Audit {
    fn default() -> Self {
        Self { part_mib: 64, keep_parts: 0 }
    }
}

impl Audit {
    pub(super) fn check(self, problems: &mut Problems) -> Self {
        if !(1..=65_536).contains(&self.part_mib) {
            problems.add("audit.part_mib", format!("is {}, must be 1 to 65536", self.part_mib), None);
        }
        self
    }

    /// As the log takes it.
    pub fn parts(self) -> Parts {
        let keep = usize::try_from(self.keep_parts).unwrap_or(usize::MAX);
        Parts { bytes: u64::from(self.part_mib) << 20, keep }
    }
}
