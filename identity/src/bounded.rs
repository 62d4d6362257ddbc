//! Calls into somebody else's code that may never come back, each with a deadline: one thread of its own makes them, one after
//! the other. A call that is not back in time is given up; until it is back, every further one fails at once, so that whoever
//! waits under a lock waits once.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The thread, and the state that only it touches.
pub(crate) struct Bounded<S> {
    jobs: Mutex<Option<Sender<Job<S>>>>,
    given_up: Arc<AtomicUsize>,
    within: Duration,
}

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// Why there is no outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stuck {
    /// This call is not back in time.
    Slow,
    /// An earlier one is not back yet.
    Before,
    /// The thread is gone.
    Gone,
}

impl<S: Send + 'static> Bounded<S> {
    /// A thread for calls of at most this length.
    pub(crate) fn new(mut state: S, within: Duration) -> Self {
        let (jobs, todo) = channel::<Job<S>>();
        // Not joined: a call that never comes back must not hold up the end of the process.
        let spawned = std::thread::Builder::new().name("token".to_owned()).spawn(move || {
            while let Ok(job) = todo.recv() {
                job(&mut state);
            }
        });
        let jobs = spawned.ok().map(|_| jobs);
        Self { jobs: Mutex::new(jobs), given_up: Arc::default(), within }
    }

    /// Has the thread do this with its state.
    pub(crate) fn run<T: Send + 'static>(&self, act: impl FnOnce(&mut S) -> T + Send + 'static) -> Result<T, Stuck> {
        if self.is_stuck() {
            return Err(Stuck::Before);
        }
        let (done, outcome) = channel();
        let fate = Arc::new(AtomicU8::new(UNDER_WAY));
        let (own, given_up) = (Arc::clone(&fate), Arc::clone(&self.given_up));
        let job: Job<S> = Box::new(move |state| {
            let acted = act(state);
            let _ = done.send(acted);
            if own.swap(BACK, Ordering::AcqRel) == GIVEN_UP {
                given_up.fetch_sub(1, Ordering::AcqRel);
            }
        });
        let sent = {
            let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
            jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok())
        };
        if !sent {
            return Err(Stuck::Gone);
        }
        match outcome.recv_timeout(self.within) {
            Ok(acted) => Ok(acted),
            Err(RecvTimeoutError::Disconnected) => Err(Stuck::Gone),
            Err(RecvTimeoutError::Timeout) => {
                self.given_up.fetch_add(1, Ordering::AcqRel);
                if fate.swap(GIVEN_UP, Ordering::AcqRel) == BACK {
                    // Back in the moment in which it was given up.
                    self.given_up.fetch_sub(1, Ordering::AcqRel);
                    return outcome.try_recv().map_err(|_| Stuck::Slow);
                }
                Err(Stuck::Slow)
            }
        }
    }

    /// Whether a call that was given up is not back yet.
    pub(crate) fn is_stuck(&self) -> bool {
        self.given_up.load(Ordering::Acquire) > 0
    }
}

const UNDER_WAY: u8 = 0;
const BACK: u8 = 1;
const GIVEN_UP: u8 = 2;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_call_that_does_not_come_back_is_waited_for_once_and_those_after_it_fail_at_once() {
        let bounded = Bounded::new(0_u32, Duration::from_secs(2));
        assert_eq!(
            bounded.run(|count| {
                *count += 1;
                *count
            }),
            Ok(1)
        );
        let (open, gate) = channel::<()>();
        let began = Instant::now();
        assert_eq!(bounded.run(move |_| gate.recv().map_or((), |()| ())), Err(Stuck::Slow));
        assert!(began.elapsed() >= Duration::from_secs(2) && bounded.is_stuck());
        let began = Instant::now();
        assert_eq!(bounded.run(|count| *count), Err(Stuck::Before));
        assert!(began.elapsed() < Duration::from_secs(1), "it waited again");
        // It comes back, and everything goes on with the state that was there.
        open.send(()).unwrap();
        while bounded.is_stuck() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(
            bounded.run(|count| {
                *count += 1;
                *count
            }),
            Ok(2)
        );
    }

    #[test]
    fn a_call_that_panics_ends_the_thread_and_is_an_error() {
        let bounded = Bounded::new((), Duration::from_secs(5));
        assert_eq!(bounded.run(|()| panic!("as the test wants")), Err::<(), _>(Stuck::Gone));
        assert_eq!(bounded.run(|()| ()), Err(Stuck::Gone));
    }
}
