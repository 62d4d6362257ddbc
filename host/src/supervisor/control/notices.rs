//! What the host has to say about starts: why one failed lately, where operators look for it. Bounded, newest kept.

use std::collections::VecDeque;
use std::sync::Mutex;

use crate::clock;
use crate::limits::{CONTROL_NOTICES, CONTROL_REFUSED};
use crate::rpc::control::{Component, LogLine};
use crate::supervisor::refused::Refused;

/// Failed starts.
#[derive(Debug, Default)]
pub struct Notices {
    lines: Mutex<VecDeque<LogLine>>,
    refused: Mutex<VecDeque<Component>>,
}

impl Notices {
    /// Remembers why something did not start. `what`: its name where it is known, else its file.
    pub fn refused(&self, what: &str, digest: &str, refused: &Refused) {
        let at_ms = i64::try_from(clock::now().unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
        let detail = refused.shown();
        if let Ok(mut lines) = self.lines.lock() {
            for text in detail.lines().chain(refused.hint.lines()) {
                if lines.len() >= CONTROL_NOTICES {
                    lines.pop_front();
                }
                let (component, stream) = (what.to_owned(), "host".to_owned());
                lines.push_back(LogLine { at_ms, component, instance: String::new(), stream, text: text.to_owned() });
            }
        }
        if let Ok(mut list) = self.refused.lock() {
            list.retain(|old| old.name != what);
            if list.len() >= CONTROL_REFUSED {
                list.pop_front();
            }
            let (name, digest, state) = (what.to_owned(), digest.to_owned(), "refused".to_owned());
            list.push_back(Component { name, digest, state, detail, ..Component::default() });
        }
    }

    /// It runs now.
    pub fn started(&self, what: &str) {
        if let Ok(mut list) = self.refused.lock() {
            list.retain(|old| old.name != what);
        }
    }

    /// What failed and has not been started since.
    pub fn list(&self) -> Vec<Component> {
        self.refused.lock().map(|list| list.iter().cloned().collect()).unwrap_or_default()
    }

    /// The lines about a component, or all.
    pub fn lines(&self, target: &str) -> Vec<LogLine> {
        let Ok(lines) = self.lines.lock() else { return Vec::new() };
        lines.iter().filter(|line| target.is_empty() || line.component == target).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_reasons_are_kept_and_a_start_that_works_ends_the_complaint() {
        let notices = Notices::default();
        for n in 0..CONTROL_NOTICES + 2 {
            notices.refused(&format!("shop:c{n}"), "", &Refused { hint: String::new(), ..Refused::internal("no") });
        }
        assert_eq!((notices.lines("").len(), notices.list().len()), (CONTROL_NOTICES, CONTROL_REFUSED));
        let last = format!("shop:c{}", CONTROL_NOTICES + 1);
        assert_eq!(notices.lines(&last)[0].text, "host.internal: no");
        notices.started(&last);
        assert!(notices.list().iter().all(|component| component.name != last));
        assert!(notices.lines("shop:c0").is_empty(), "the oldest made room");
    }
}
