//! What was worked out once and stays true: a bounded table without a lock, which is only ever added to.
//!
//! It belongs to something that never changes, such as a slice. What finds no place is worked out anew each time.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::OnceLock;

/// Values by key.
pub(crate) struct Remembered<K, V> {
    slots: OnceLock<Slots<K, V>>,
    places: usize,
    hasher: RandomState,
}

type Slots<K, V> = Box<[OnceLock<Box<(K, V)>>]>;

impl<K, V> Remembered<K, V> {
    /// A table of so many places, which takes up nothing until the first is taken.
    pub(crate) fn new(places: usize) -> Self {
        Self { slots: OnceLock::new(), places: places.max(1), hasher: RandomState::new() }
    }

    /// How many it has.
    #[cfg(test)]
    pub(crate) fn places(&self) -> usize {
        self.places
    }

    /// The value of a key.
    pub(crate) fn get<Q: Hash + ?Sized>(&self, key: &Q, is: impl Fn(&K) -> bool) -> Option<&V> {
        let slots = self.slots.get()?;
        for slot in self.probe(slots, key) {
            match slot.get() {
                Some(taken) if is(&taken.0) => return Some(&taken.1),
                Some(_) => {}
                None => return None,
            }
        }
        None
    }

    /// Remembers a value where there is a place for it. `hashed` must hash as what it will be asked for by.
    pub(crate) fn put<Q: Hash + ?Sized>(&self, hashed: &Q, key: K, value: V) {
        let slots = self.slots.get_or_init(|| (0..self.places).map(|_| OnceLock::new()).collect());
        let mut pair = Box::new((key, value));
        for slot in self.probe(slots, hashed) {
            match slot.set(pair) {
                Ok(()) => return,
                // Taken, perhaps just now by the same key: then it is there twice, and the first is found.
                Err(back) => pair = back,
            }
        }
    }

    fn probe<'a, Q: Hash + ?Sized>(
        &self,
        slots: &'a Slots<K, V>,
        key: &Q,
    ) -> impl Iterator<Item = &'a OnceLock<Box<(K, V)>>> {
        let start = usize::try_from(self.hasher.hash_one(key) % self.places as u64).unwrap_or(0);
        let (before, from) = slots.split_at_checked(start).unwrap_or((slots, &[]));
        from.iter().chain(before).take(PROBES)
    }
}

const PROBES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_found_and_more_than_the_places_are_forgotten() {
        let table = Remembered::new(64);
        for n in 0..256_u32 {
            assert_eq!(table.get(&n, |own| *own == n), None);
            table.put(&n, n, n * 2);
        }
        let found: Vec<u32> = (0..256).filter(|n| table.get(n, |own| own == n) == Some(&(n * 2))).collect();
        assert!(found.len() > 32 && found.len() <= 64, "{}", found.len());
        assert!((0..256).all(|n| table.get(&n, |own| *own == n).is_none_or(|value| *value == n * 2)));
    }

    #[test]
    fn many_threads_may_put_the_same() {
        let table = Remembered::new(8);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1_000).for_each(|_| table.put("a", 1, 2)));
            }
        });
        assert_eq!(table.get("a", |own| *own == 1), Some(&2));
    }
}
