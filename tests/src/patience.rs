//! How long tests wait on a machine that does other things too.
//!
//! A wait ends as soon as what it waits for is so. When it is given up says nothing about the product: so that is late. What the
//! product promises in time is measured beside it, and compared with [`promised`].

use std::time::{Duration, Instant};

/// When a wait is given up.
pub const LONG: Duration = Duration::from_secs(90);

/// A promised time as it is on this machine now. Where more wants to run than there are processors, each step waits for its turn.
pub fn promised(time: Duration) -> Duration {
    time.mul_f64((2.0 * load()).max(1.0))
}

/// What wants to run for each processor: in the last minute or now, whichever is more.
fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut fields = text.split_whitespace();
    let minute: f64 = fields.next().and_then(|load| load.parse().ok()).unwrap_or_default();
    let now: f64 = fields.nth(2).and_then(|now| now.split('/').next()?.parse().ok()).unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    minute.max(now) / processors as f64
}

/// Waits until something is so; gives how long that took. `more` is said where it never is.
pub fn until(what: &str, mut so: impl FnMut() -> bool, more: impl Fn() -> String) -> Duration {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < LONG, "{what}: not within {LONG:?}\n{}", more());
        std::thread::sleep(Duration::from_millis(20));
    }
    began.elapsed()
}

/// The rounds of [`best_of`] and [`best_of_async`]: one that is disturbed says nothing.
pub const ROUNDS: usize = 5;

/// Does something until it took no longer than is promised, some times at most. Each round says how long it took.
pub fn best_of(promise: Duration, mut once: impl FnMut(usize) -> Duration) -> Duration {
    let mut all = Vec::new();
    for round in 0..ROUNDS {
        let took = once(round);
        if took <= promised(promise) {
            return took;
        }
        all.push(took);
    }
    panic!("{promise:?} are promised, and it took {all:?}");
}

/// The same for what is awaited.
pub async fn best_of_async(promise: Duration, mut once: impl AsyncFnMut(usize) -> Duration) -> Duration {
    let mut all = Vec::new();
    for round in 0..ROUNDS {
        let took = once(round).await;
        if took <= promised(promise) {
            return took;
        }
        all.push(took);
    }
    panic!("{promise:?} are promised, and it took {all:?}");
}
