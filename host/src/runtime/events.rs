//! The ring between the request path and the supervisor's audit log: in order, bounded, and what does not fit is counted.

use std::sync::atomic::{AtomicU64, Ordering};

use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use ulid::Ulid;

use crate::limits::EVENT_RING;
use crate::rpc::runtime::{Event, event::What};

/// The request path's end of the ring.
#[derive(Debug)]
pub struct Events {
    ring: mpsc::Sender<Event>,
    lost: AtomicU64,
    lost_ever: AtomicU64,
    tail: Mutex<mpsc::Receiver<Event>>,
}

impl Events {
    /// An empty ring.
    pub fn new() -> Self {
        let (ring, tail) = mpsc::channel(EVENT_RING);
        Self { ring, lost: AtomicU64::new(0), lost_ever: AtomicU64::new(0), tail: Mutex::new(tail) }
    }

    /// Reports a refusal or a failure and returns the reference under which the operator finds it. Never waits.
    pub fn report(&self, instance: &str, generation: u64, code: &str, what: What) -> String {
        self.put(Event {
            instance: instance.to_owned(),
            generation,
            code: code.to_owned(),
            what: Some(what),
            ..Event::default()
        })
    }

    /// Reports what audit mode let through, with the code of the refusal that it stands for.
    pub fn let_through(&self, instance: &str, generation: u64, code: &str, what: What) {
        let event = Event {
            instance: instance.to_owned(),
            generation,
            code: code.to_owned(),
            what: Some(what),
            ..Event::default()
        };
        self.put(Event { let_through: true, ..event });
    }

    /// Reports what was at work and is ended, since policy does not grant it any more.
    pub fn ended(&self, instance: &str, generation: u64, code: &str, what: What) -> String {
        let event = Event {
            instance: instance.to_owned(),
            generation,
            code: code.to_owned(),
            what: Some(what),
            ..Event::default()
        };
        self.put(Event { ended: true, ..event })
    }

    fn put(&self, event: Event) -> String {
        let reference = Ulid::generate().to_string();
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let event = Event { reference: reference.clone(), lost, ..event };
        if self.ring.try_send(event).is_err() {
            self.lost.fetch_add(lost.saturating_add(1), Ordering::Relaxed);
            self.lost_ever.fetch_add(1, Ordering::Relaxed);
        }
        reference
    }

    /// How many events did not fit, since the start.
    pub fn lost(&self) -> u64 {
        self.lost_ever.load(Ordering::Relaxed)
    }

    /// Waits until the ring is empty, at most so long.
    pub async fn handed_over(&self, within: Duration) {
        let empty = async {
            while self.ring.capacity() < self.ring.max_capacity() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(within, empty).await;
    }

    /// The next event; one reader at a time.
    pub async fn next(&self) -> Option<Event> {
        self.tail.lock().await.recv().await
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::runtime::Call;

    fn call() -> What {
        What::Call(Call { caller: String::new() })
    }

    #[tokio::test]
    async fn events_come_in_order_with_distinct_references() {
        let events = Events::new();
        let (a, b) = (events.report("i", 1, "A", call()), events.report("i", 1, "B", call()));
        assert_ne!(a, b);
        assert_eq!(events.next().await.unwrap().reference, a);
        assert_eq!(events.next().await.unwrap().code, "B");
    }

    #[tokio::test]
    async fn what_does_not_fit_is_counted_and_the_count_travels_with_the_next() {
        let events = Events::new();
        for _ in 0..EVENT_RING + 3 {
            events.report("i", 1, "A", call());
        }
        assert_eq!(events.lost(), 3);
        for _ in 0..EVENT_RING {
            assert_eq!(events.next().await.unwrap().lost, 0);
        }
        events.report("i", 1, "A", call());
        assert_eq!(events.next().await.unwrap().lost, 3);
        events.report("i", 1, "A", call());
        assert_eq!(events.next().await.unwrap().lost, 0);
    }
}
