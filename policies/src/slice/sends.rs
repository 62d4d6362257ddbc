//! Requests that were allowed once, remembered for as long as the slice: the same destination and method are allowed again.
//!
//! Nothing that the decision depends on changes within a slice. Refusals are not remembered: their number is not bounded by
//! what is granted. Addresses are: each dial is decided by itself.

use crate::destination::Destination;
use crate::grant::By;
use crate::limits::{REMEMBERED_SENDS, REMEMBERED_SENDS_MOST};
use crate::remembered::Remembered;

/// What allowed a request, and the peer that is demanded.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) by: By,
    pub(super) peer: Option<String>,
}

/// Allowed requests by destination and method.
pub(super) struct Sends {
    table: Option<Remembered<(Destination, String), Sent>>,
}

impl Sends {
    /// For a component with so many destinations.
    pub(super) fn new(destinations: usize) -> Self {
        let places = destinations.saturating_mul(4).clamp(REMEMBERED_SENDS, REMEMBERED_SENDS_MOST);
        Self { table: Some(Remembered::new(places)) }
    }

    /// One that remembers nothing.
    #[cfg(test)]
    pub(super) fn forgetful() -> Self {
        Self { table: None }
    }

    #[cfg(test)]
    fn places(&self) -> usize {
        self.table.as_ref().map_or(0, Remembered::places)
    }

    pub(super) fn get(&self, destination: &Destination, method: &str) -> Option<&Sent> {
        let is = |(own, with): &(Destination, String)| own == destination && with == method;
        self.table.as_ref()?.get(&(destination, method), is)
    }

    pub(super) fn put(&self, destination: &Destination, method: &str, sent: &Sent) {
        if let Some(table) = &self.table {
            table.put(&(destination, method), (destination.clone(), method.to_owned()), sent.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_grows_with_the_destinations_up_to_a_limit() {
        assert_eq!(Sends::new(0).places(), REMEMBERED_SENDS);
        assert_eq!(Sends::new(100).places(), 400);
        assert_eq!(Sends::new(usize::MAX).places(), REMEMBERED_SENDS_MOST);
    }

    #[test]
    fn more_than_there_is_room_for_is_not_remembered_and_nothing_is_mistaken() {
        let sends = Sends::new(usize::MAX);
        let url = |n: usize| Destination::parse_url(&format!("https://h{n}.example")).unwrap();
        for n in 0..2 * REMEMBERED_SENDS_MOST {
            let id = n.to_string();
            sends.put(&url(n), "GET", &Sent { by: By::test(&id), peer: Some(id.clone()) });
        }
        let found = (0..2 * REMEMBERED_SENDS_MOST).filter(|n| {
            let sent = sends.get(&url(*n), "GET");
            assert!(sent.is_none_or(|sent| sent.peer == Some(n.to_string())));
            assert!(sends.get(&url(*n), "POST").is_none());
            sent.is_some()
        });
        let found = found.count();
        assert!(found > REMEMBERED_SENDS_MOST / 2 && found <= REMEMBERED_SENDS_MOST, "{found}");
    }
}
