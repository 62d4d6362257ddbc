//! Messages that wait for a place: so many, and so many bytes. What does not fit is dropped and counted.

use std::collections::VecDeque;

use crate::limits::{MESSAGES_WAITING, MESSAGES_WAITING_BYTES};

/// A bounded queue.
#[derive(Debug)]
pub(super) struct Backlog<T> {
    queue: VecDeque<(T, usize)>,
    bytes: usize,
}

impl<T> Backlog<T> {
    /// Puts something behind the rest; false: there is no room for it.
    pub(super) fn push(&mut self, item: T, bytes: usize) -> bool {
        let all = self.bytes.saturating_add(bytes);
        if self.queue.len() >= MESSAGES_WAITING || all > MESSAGES_WAITING_BYTES {
            return false;
        }
        self.bytes = all;
        self.queue.push_back((item, bytes));
        true
    }

    /// The first.
    pub(super) fn pop(&mut self) -> Option<T> {
        let (item, bytes) = self.queue.pop_front()?;
        self.bytes = self.bytes.saturating_sub(bytes);
        Some(item)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}

impl<T> Default for Backlog<T> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), bytes: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_count_and_bytes_hold_and_room_comes_back() {
        let mut backlog = Backlog::default();
        for n in 0..MESSAGES_WAITING {
            assert!(backlog.push(n, 1));
        }
        assert!(!backlog.push(0, 0));
        assert_eq!(backlog.pop(), Some(0));
        assert!(backlog.push(0, 0) && backlog.len() == MESSAGES_WAITING);
        let mut backlog = Backlog::default();
        assert!(backlog.push((), MESSAGES_WAITING_BYTES));
        assert!(!backlog.push((), 1));
        assert!(backlog.pop().is_some() && backlog.is_empty());
        assert!(!backlog.push((), MESSAGES_WAITING_BYTES + 1) && !backlog.push((), usize::MAX));
        assert!(backlog.push((), MESSAGES_WAITING_BYTES));
    }
}
