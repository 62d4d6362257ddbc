//! A connection whose `:authority` values are rewritten by [`AuthorityFilter`] as they are read. Writing passes through.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::authority_filter::AuthorityFilter;

/// Wraps the server's end of a connection.
#[derive(Debug)]
pub struct AuthorityShim<T> {
    inner: T,
    filter: AuthorityFilter,
    /// Octets that were read: first final ones, then those that may still change.
    octets: Vec<u8>,
    /// How many of them are final.
    done: usize,
    /// How many of those were given out.
    given: usize,
    ended: bool,
    begun: Arc<AtomicBool>,
}

impl<T> AuthorityShim<T> {
    /// Wraps a connection of which nothing was read yet.
    pub fn new(inner: T) -> Self {
        let (filter, begun) = (AuthorityFilter::new(), Arc::default());
        Self { inner, filter, octets: Vec::new(), done: 0, given: 0, ended: false, begun }
    }

    /// Turns true once the client has begun to speak.
    pub fn begun(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.begun)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for AuthorityShim<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.given == this.done && this.filter.is_lost() && this.octets.len() == this.given {
            return Pin::new(&mut this.inner).poll_read(cx, out);
        }
        while this.given == this.done && !this.ended {
            this.octets.drain(..this.given);
            (this.given, this.done) = (0, 0);
            let held = this.octets.len();
            this.octets.resize(held + READ_BYTES, 0);
            let (result, read) = {
                let mut space = ReadBuf::new(this.octets.get_mut(held..).unwrap_or_default());
                let result = Pin::new(&mut this.inner).poll_read(cx, &mut space);
                (result, space.filled().len())
            };
            this.octets.truncate(held + read);
            ready!(result)?;
            if read == 0 {
                // What is held back is the beginning of something that never comes.
                this.ended = true;
                this.done = this.octets.len();
            } else {
                this.done = this.filter.follow(&mut this.octets, held);
                if this.filter.has_begun() {
                    this.begun.store(true, Ordering::Relaxed);
                }
            }
        }
        let ready = this.octets.get(this.given..this.done).unwrap_or_default();
        let taken = ready.get(..out.remaining().min(ready.len())).unwrap_or_default();
        out.put_slice(taken);
        this.given += taken.len();
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for AuthorityShim<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

const READ_BYTES: usize = 16 * 1024;
