//! What a guest writes to stdout and stderr goes to the log: a line at a time, escaped and cut, with a cap a request.
//!
//! A guest cannot forge a log line, colour a terminal or fill a disk with it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};

use super::component::Loaded;
use crate::limits::{LOG_LINES_PER_REQUEST, LOG_TEXT};
use crate::rpc::runtime::Line;

/// Where one stream of one request goes.
#[derive(Debug, Clone)]
pub struct GuestLog {
    who: Arc<Loaded>,
    stream: &'static str,
    lines: Arc<AtomicU32>,
}

/// One writer; collects until a line is whole.
#[derive(Debug)]
struct Writer {
    log: GuestLog,
    line: Vec<u8>,
    cut: bool,
}

impl GuestLog {
    /// stdout and stderr of one request, with one cap for both.
    pub fn pair(who: &Arc<Loaded>) -> (Self, Self) {
        let lines = Arc::new(AtomicU32::new(0));
        let log = |stream| Self { who: Arc::clone(who), stream, lines: Arc::clone(&lines) };
        (log("stdout"), log("stderr"))
    }
}

impl IsTerminal for GuestLog {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestLog {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(Writer { log: self.clone(), line: Vec::new(), cut: false })
    }
}

impl Writer {
    fn take(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let room = LOG_TEXT.saturating_sub(self.line.len());
            self.cut |= text.len() > room;
            self.line.extend_from_slice(text.get(..room).unwrap_or(text));
            if ended {
                self.flush_line();
            }
        }
    }

    fn flush_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let cut = std::mem::take(&mut self.cut);
        let count = self.log.lines.fetch_add(1, Ordering::Relaxed);
        let (component, instance, stream) = (self.log.who.name(), self.log.who.instance(), self.log.stream);
        match count {
            n if n < LOG_LINES_PER_REQUEST => {
                let text = escape(&line, cut);
                tracing::info!(target: "guest", component, instance, stream, text);
                let at_ms = i64::try_from(crate::clock::now().unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
                let (component, instance, stream) = (component.to_owned(), instance.to_owned(), stream.to_owned());
                self.log.who.shared().lines.keep(Line { at_ms, component, instance, stream, text });
            }
            LOG_LINES_PER_REQUEST => {
                tracing::warn!(target: "guest", component, instance, "writes more lines than a request may: the rest is dropped");
            }
            _ => {}
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.flush_line();
        }
    }
}

impl AsyncWrite for Writer {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Printable text of whatever bytes: control characters and invalid UTF-8 escaped, a mark where it was cut.
pub fn escape(line: &[u8], cut: bool) -> String {
    let mut text: String = String::from_utf8_lossy(line).chars().flat_map(char::escape_debug).collect();
    if cut {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn escapes_leave_nothing_that_a_terminal_would_obey() {
        let text = escape(b"\x1b[31mred\x07\r\xff\0", true);
        assert!(text.chars().all(|c| !c.is_control()), "{text:?}");
        assert!(text.ends_with('…'));
    }
}
