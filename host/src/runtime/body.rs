//! Bodies in both directions: with a size cap and a longest pause on the way in, and owning the guest on the way out.
//!
//! The response body owns the guest's call and drives it while the client reads: when the client goes away, hyper drops the
//! body and with it the guest. Timers are made only when there is something to wait for.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use wasmtime_wasi_http::Error;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::guest::{GuestCall, GuestFailure};
use super::standing::Standing;

/// A body that ends with an error when its sender pauses too long.
#[derive(Debug)]
pub struct Idle<B> {
    body: B,
    longest: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    room: u64,
    most: u64,
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The sender paused too long.
    #[error("the sender of the body paused for too long")]
    Idle,
    /// More came than is taken.
    #[error("the body is larger than {0} bytes")]
    TooLarge(u64),
    /// The connection broke.
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
}

impl<B> Idle<B> {
    /// Any size, with a longest pause.
    pub fn new(body: B, longest: Duration) -> Self {
        Self::capped(body, longest, u64::MAX)
    }

    /// At most `most` bytes, with a longest pause.
    pub fn capped(body: B, longest: Duration, most: u64) -> Self {
        Self { body, longest, timer: None, room: most, most }
    }
}

impl<B> Body for Idle<B>
where
    B: Body<Data = Bytes, Error = hyper::Error> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.timer = None;
            let Some(frame) = frame else { return Poll::Ready(None) };
            let frame = frame?;
            if let Some(data) = frame.data_ref() {
                let size = u64::try_from(data.len()).unwrap_or(u64::MAX);
                match this.room.checked_sub(size) {
                    Some(room) => this.room = room,
                    None => return Poll::Ready(Some(Err(BodyError::TooLarge(this.most)))),
                }
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(this.longest)));
        ready!(timer.as_mut().poll(cx));
        this.timer = None;
        Poll::Ready(Some(Err(BodyError::Idle)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer, whoever wrote it.
pub enum ResponseBody {
    /// Text of the host's own.
    Text(Option<Bytes>),
    /// A guest's body, with the guest that writes it.
    Guest(Box<GuestBody>),
}

/// A guest's body.
pub struct GuestBody {
    body: HyperOutgoingBody,
    call: Option<GuestCall>,
    deadline: Pin<Box<Sleep>>,
    standing: Option<Standing>,
    drained: bool,
    ended: bool,
    on_failure: Box<dyn FnOnce(&GuestFailure) + Send>,
}

impl GuestBody {
    /// `on_failure` is told if the guest fails after its response head. The body breaks off when `standing` is over.
    pub fn new(
        body: HyperOutgoingBody,
        call: Option<GuestCall>,
        deadline: Pin<Box<Sleep>>,
        standing: impl Into<Option<Standing>>,
        on_failure: Box<dyn FnOnce(&GuestFailure) + Send>,
    ) -> Self {
        Self { body, call, deadline, standing: standing.into(), drained: false, ended: false, on_failure }
    }

    fn fail(&mut self, failure: &GuestFailure) -> Error {
        let told = std::mem::replace(&mut self.on_failure, Box::new(|_| {}));
        told(failure);
        self.ended = true;
        self.call = None;
        Error::InternalError(None)
    }

    fn over(&mut self) -> Error {
        self.ended = true;
        self.call = None;
        Error::HttpRequestDenied
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.standing.as_mut().is_some_and(|standing| standing.check().is_some()) {
            return Poll::Ready(Some(Err(self.over())));
        }
        if self.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(self.fail(&GuestFailure::Late))));
        }
        if let Some(call) = &mut self.call
            && let Poll::Ready(done) = Pin::new(call).poll(cx)
        {
            self.call = None;
            if let Err(failure) = done {
                return Poll::Ready(Some(Err(self.fail(&failure))));
            }
        }
        if !self.drained
            && let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx)
        {
            self.drained = frame.is_none();
            if frame.is_some() {
                return Poll::Ready(frame);
            }
        }
        // A body ends in the same way whether its guest finished it or died: where the guest is dead, its outcome counts.
        if self.drained && !self.call.as_ref().is_some_and(GuestCall::is_ending) {
            self.ended = true;
            return Poll::Ready(None);
        }
        if self.standing.as_mut().is_some_and(|standing| standing.poll_over(cx).is_ready()) {
            return Poll::Ready(Some(Err(self.over())));
        }
        Poll::Pending
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.get_mut() {
            ResponseBody::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            ResponseBody::Guest(guest) => guest.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ResponseBody::Text(text) => text.is_none(),
            ResponseBody::Guest(guest) => guest.ended || (guest.call.is_none() && guest.body.is_end_stream()),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            ResponseBody::Guest(guest) => guest.body.size_hint(),
        }
    }
}

impl Drop for GuestBody {
    /// A guest that still works after its body ended may finish within the request's time; one whose client left may not.
    fn drop(&mut self) {
        if self.ended
            && let Some(call) = self.call.take()
        {
            call.detach(self.deadline.deadline().saturating_duration_since(Instant::now()));
        }
    }
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ResponseBody::Text(_) => "ResponseBody::Text",
            ResponseBody::Guest(_) => "ResponseBody::Guest",
        })
    }
}

impl std::fmt::Debug for GuestBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestBody").field("call", &self.call).field("ended", &self.ended).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::guest::{Lanes, Meter};
    use super::*;
    use http_body_util::BodyExt;

    struct Chunks(Vec<&'static [u8]>, bool);

    impl Body for Chunks {
        type Data = Bytes;
        type Error = hyper::Error;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
            if self.0.is_empty() {
                return if self.1 { Poll::Pending } else { Poll::Ready(None) };
            }
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(self.0.remove(0))))))
        }
    }

    #[tokio::test]
    async fn a_body_at_its_limit_passes_and_one_byte_more_does_not() {
        let idle = Duration::from_secs(5);
        let fits = Idle::capped(Chunks(vec![b"ab", b"cd"], false), idle, 4).collect().await;
        assert_eq!(fits.unwrap().to_bytes(), "abcd");
        let over = Idle::capped(Chunks(vec![b"ab", b"cde"], false), idle, 4).collect().await;
        assert!(matches!(over, Err(BodyError::TooLarge(4))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_pauses_too_long_is_cut_off() {
        let stuck = Idle::new(Chunks(vec![b"ab"], true), Duration::from_secs(5)).collect().await;
        assert!(matches!(stuck, Err(BodyError::Idle)));
    }

    /// A guest's body that has ended, while the outcome of its call, which has ended too, is still on its way.
    fn ended_with(outcome: Result<(), &'static str>) -> ResponseBody {
        let lanes = Arc::new(Lanes::new(tokio::runtime::Handle::current()));
        let meter = Arc::new(Meter::default());
        drop(meter.ending());
        let call = Box::pin(async move {
            tokio::task::yield_now().await;
            outcome.map_err(wasmtime::Error::msg)
        });
        let call = GuestCall::new(call, meter, lanes);
        let body =
            http_body_util::Empty::new().map_err(|never: std::convert::Infallible| match never {}).boxed_unsync();
        let deadline = Box::pin(tokio::time::sleep(Duration::from_secs(5)));
        ResponseBody::Guest(Box::new(GuestBody::new(body, Some(call), deadline, None, Box::new(|_| {}))))
    }

    #[tokio::test]
    async fn a_body_that_ended_because_its_guest_died_is_broken_not_complete() {
        assert!(ended_with(Err("trap")).collect().await.is_err());
        assert!(ended_with(Ok(())).collect().await.is_ok());
    }
}
