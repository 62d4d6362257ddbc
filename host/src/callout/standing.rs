//! Whether the callout is ready, and if not, why: every cause by its name, set and taken back by whoever finds it.

use std::collections::BTreeMap;
use std::sync::Mutex;

/// The causes that hold.
#[derive(Debug, Default)]
pub struct Problems(Mutex<BTreeMap<&'static str, String>>);

impl Problems {
    /// Something is wrong.
    pub fn set(&self, cause: &'static str, why: impl Into<String>) {
        if let Ok(mut all) = self.0.lock() {
            all.insert(cause, why.into());
        }
    }

    /// It is not any more.
    pub fn clear(&self, cause: &'static str) {
        if let Ok(mut all) = self.0.lock() {
            all.remove(cause);
        }
    }

    /// Whether nothing is wrong.
    pub fn are_none(&self) -> bool {
        self.0.lock().is_ok_and(|all| all.is_empty())
    }

    /// What is wrong, a line each.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().map_or_else(
            |_| vec!["internal: poisoned".to_owned()],
            |all| all.iter().map(|(cause, why)| format!("{cause}: {why}")).collect(),
        )
    }
}
