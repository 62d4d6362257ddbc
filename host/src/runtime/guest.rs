//! One call of a guest as a future that nothing else has to wait for.
//!
//! It is polled inline by the connection that wants its answer: no task, no queue, no wake across threads. A guest that is
//! still computing when the epoch ticks loses that place: its future moves to a runtime of low-priority threads and the
//! connection waits for it there. A guest that uses up its processor time traps. Panics end here.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use tokio::task::{AbortHandle, JoinHandle};
use wasmtime::{Store, UpdateDeadline};

/// What a guest did instead of answering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestFailure {
    /// It used up its processor time.
    CpuTime,
    /// It trapped; the text is wasmtime's, first line.
    Trap(String),
    /// The host failed inside a call of the guest.
    Panic(String),
    /// Its answer, or the end of it, did not come in time.
    Late,
    /// The process is stopping.
    Cancelled,
}

/// The call's future, erased.
pub type CallFuture = Pin<Box<dyn Future<Output = wasmtime::Result<()>> + Send>>;

/// Where guests run that overran, and how often that happened.
#[derive(Debug)]
pub struct Lanes {
    low: tokio::runtime::Handle,
    demotions: AtomicU64,
}

/// Counts what one call uses: epoch ticks, which demote it, and processor time from then on, which ends it.
///
/// Processor time is that of the thread, so a guest does not pay for the time that its neighbours hold the processor.
#[derive(Debug, Default)]
pub struct Meter {
    ticks: AtomicU64,
    cpu_nanos: AtomicU64,
    ended: AtomicBool,
}

/// Kept by a call's future beside its store; says that the call has ended before the store is dropped.
#[derive(Debug)]
pub struct Ending(Arc<Meter>);

/// A guest at work.
pub struct GuestCall {
    lane: Lane,
    meter: Arc<Meter>,
    lanes: Arc<Lanes>,
}

enum Lane {
    Inline(CallFuture),
    Low { join: JoinHandle<Result<(), GuestFailure>>, abort: AbortHandle },
    Done,
}

#[derive(Debug)]
struct CpuTimeUsedUp;

impl Lanes {
    /// `low` is a runtime whose threads have a low priority.
    pub fn new(low: tokio::runtime::Handle) -> Self {
        Self { low, demotions: AtomicU64::new(0) }
    }

    /// How many calls were moved to the low-priority threads.
    pub fn demotions(&self) -> u64 {
        self.demotions.load(Ordering::Relaxed)
    }
}

impl Meter {
    /// Arms a store: the first epoch tick demotes; at each further one, a call that used more than `most` traps.
    pub fn arm<T: 'static>(self: &Arc<Self>, store: &mut Store<T>, most: Duration) {
        let meter = Arc::clone(self);
        let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |_| {
            meter.ticks.fetch_add(1, Ordering::Relaxed);
            if meter.cpu_nanos.load(Ordering::Relaxed) > most {
                return Err(wasmtime::Error::new(CpuTimeUsedUp));
            }
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
        });
    }

    /// To be dropped before the store is.
    pub fn ending(self: &Arc<Self>) -> Ending {
        Ending(Arc::clone(self))
    }

    fn overran(&self) -> bool {
        self.ticks.load(Ordering::Relaxed) > 0
    }
}

impl GuestCall {
    /// Wraps a call that has not been polled yet.
    pub fn new(future: CallFuture, meter: Arc<Meter>, lanes: Arc<Lanes>) -> Self {
        Self { lane: Lane::Inline(future), meter, lanes }
    }

    /// Lets the guest go on behind the response for at most `rest`; afterwards it is dropped.
    pub fn detach(mut self, rest: Duration) {
        match std::mem::replace(&mut self.lane, Lane::Done) {
            Lane::Inline(future) => {
                let metered = Metered { future, meter: Arc::clone(&self.meter) };
                self.lanes.low.spawn(async move {
                    let _ = tokio::time::timeout(rest, AssertUnwindSafe(metered).catch_unwind()).await;
                });
            }
            Lane::Low { join, abort } => {
                self.lanes.low.spawn(async move {
                    if tokio::time::timeout(rest, join).await.is_err() {
                        abort.abort();
                    }
                });
            }
            Lane::Done => {}
        }
    }
}

impl Future for GuestCall {
    type Output = Result<(), GuestFailure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            match &mut this.lane {
                Lane::Inline(future) => match std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
                    Ok(Poll::Ready(done)) => {
                        this.lane = Lane::Done;
                        return Poll::Ready(done.map_err(failure));
                    }
                    Ok(Poll::Pending) if this.meter.overran() => this.demote(),
                    Ok(Poll::Pending) => return Poll::Pending,
                    Err(panic) => {
                        this.lane = Lane::Done;
                        return Poll::Ready(Err(panicked(panic.as_ref())));
                    }
                },
                Lane::Low { join, .. } => {
                    let done = std::task::ready!(Pin::new(join).poll(cx));
                    this.lane = Lane::Done;
                    return Poll::Ready(done.unwrap_or(Err(GuestFailure::Cancelled)));
                }
                Lane::Done => return Poll::Ready(Err(GuestFailure::Cancelled)),
            }
        }
    }
}

impl GuestCall {
    /// Whether the call is over, however it ended, although its outcome may still be on its way from another thread.
    pub fn is_ending(&self) -> bool {
        self.meter.ended.load(Ordering::Acquire)
    }

    fn demote(&mut self) {
        if let Lane::Inline(future) = std::mem::replace(&mut self.lane, Lane::Done) {
            self.lanes.demotions.fetch_add(1, Ordering::Relaxed);
            let metered = Metered { future, meter: Arc::clone(&self.meter) };
            let join = self.lanes.low.spawn(async move {
                match AssertUnwindSafe(metered).catch_unwind().await {
                    Ok(done) => done.map_err(failure),
                    Err(panic) => Err(panicked(panic.as_ref())),
                }
            });
            self.lane = Lane::Low { abort: join.abort_handle(), join };
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
    }
}

/// A call on the low-priority threads, with its processor time counted. Every tick ends a poll, so the count is never
/// further behind than one tick.
struct Metered {
    future: CallFuture,
    meter: Arc<Meter>,
}

impl Future for Metered {
    type Output = wasmtime::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let before = thread_cpu_nanos();
        let polled = self.future.as_mut().poll(cx);
        self.meter.cpu_nanos.fetch_add(thread_cpu_nanos().saturating_sub(before), Ordering::Relaxed);
        polled
    }
}

/// Processor time of the calling thread.
fn thread_cpu_nanos() -> u64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let nanos = i128::from(used.tv_sec) * 1_000_000_000 + i128::from(used.tv_nsec);
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

impl Drop for GuestCall {
    fn drop(&mut self) {
        if let Lane::Low { abort, .. } = &self.lane {
            abort.abort();
        }
    }
}

impl fmt::Debug for GuestCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lane = match self.lane {
            Lane::Inline(_) => "inline",
            Lane::Low { .. } => "low",
            Lane::Done => "done",
        };
        f.debug_struct("GuestCall").field("lane", &lane).field("meter", &self.meter).finish_non_exhaustive()
    }
}

impl GuestFailure {
    /// A stable word for logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            GuestFailure::CpuTime => "cpu-time",
            GuestFailure::Trap(_) => "trap",
            GuestFailure::Panic(_) => "panic",
            GuestFailure::Late => "time-out",
            GuestFailure::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for GuestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GuestFailure::CpuTime => f.write_str("the guest used up its processor time"),
            GuestFailure::Trap(why) => write!(f, "the guest trapped: {why}"),
            GuestFailure::Panic(why) => write!(f, "the host failed in a call of the guest: {why}"),
            GuestFailure::Late => f.write_str("the guest did not answer in time"),
            GuestFailure::Cancelled => f.write_str("the call was cancelled"),
        }
    }
}

impl fmt::Display for CpuTimeUsedUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("processor time used up")
    }
}

impl std::error::Error for CpuTimeUsedUp {}

fn failure(error: wasmtime::Error) -> GuestFailure {
    if error.downcast_ref::<CpuTimeUsedUp>().is_some() {
        return GuestFailure::CpuTime;
    }
    let text = match error.downcast_ref::<wasmtime::Trap>() {
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    };
    GuestFailure::Trap(super::stdio::escape(text.lines().next().unwrap_or_default().as_bytes(), false))
}

fn panicked(panic: &(dyn Any + Send)) -> GuestFailure {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    tracing::error!(text, "a host function panicked; the request is lost, the process goes on");
    GuestFailure::Panic(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(future: CallFuture) -> (GuestCall, Arc<Lanes>, Arc<Meter>) {
        let lanes = Arc::new(Lanes::new(tokio::runtime::Handle::current()));
        let meter = Arc::new(Meter::default());
        (GuestCall::new(future, Arc::clone(&meter), Arc::clone(&lanes)), lanes, meter)
    }

    #[tokio::test]
    async fn a_call_that_ends_at_once_stays_inline() {
        let (call, lanes, _) = call(Box::pin(async { Ok(()) }));
        assert_eq!(call.await, Ok(()));
        assert_eq!(lanes.demotions(), 0);
    }

    #[tokio::test]
    async fn a_call_that_overran_finishes_on_the_low_lane() {
        let (call, lanes, meter) = call(Box::pin(async {
            tokio::task::yield_now().await;
            Ok(())
        }));
        meter.ticks.store(1, Ordering::Relaxed);
        assert_eq!(call.await, Ok(()));
        assert_eq!(lanes.demotions(), 1);
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_of_that_call() {
        let (call, _, _) = call(Box::pin(async { panic!("boom") }));
        assert_eq!(call.await, Err(GuestFailure::Panic("boom".to_owned())));
    }

    #[tokio::test]
    async fn dropping_a_demoted_call_ends_its_guest() {
        let alive = Arc::new(());
        let inside = Arc::clone(&alive);
        let (mut call, _, meter) = call(Box::pin(async move {
            let _inside = inside;
            std::future::pending::<()>().await;
            Ok(())
        }));
        meter.ticks.store(1, Ordering::Relaxed);
        assert!(futures::poll!(&mut call).is_pending());
        drop(call);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(Arc::strong_count(&alive), 1);
    }
}
