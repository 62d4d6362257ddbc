//! Answers to a request: a whole one at once, or a head whose body the guest goes on to write.

use wasip2::http::types::{Fields, OutgoingBody, OutgoingResponse, ResponseOutparam};
use wasip2::io::streams::{OutputStream, StreamError};

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into().into_bytes() }
    }

    pub fn json(status: u16, body: impl ToString) -> Self {
        Self { status, content_type: "application/json", body: body.to_string().into_bytes() }
    }

    /// Sends the answer. What the host refuses to take is lost: there is nobody left to tell.
    pub fn send(self, out: ResponseOutparam) {
        let fields = Fields::new();
        let _ = fields.append("content-type", self.content_type.as_bytes());
        let Some((body, stream)) = begin(out, self.status, fields) else { return };
        let written = write_all(&stream, &self.body);
        drop(stream);
        if written.is_ok() {
            let _ = OutgoingBody::finish(body, None);
        }
    }
}

/// Sets the response head and hands back its body with the stream to write to.
pub fn begin(out: ResponseOutparam, status: u16, fields: Fields) -> Option<(OutgoingBody, OutputStream)> {
    let response = OutgoingResponse::new(fields);
    response.set_status_code(status).ok()?;
    let body = response.body().ok()?;
    let stream = body.write().ok()?;
    ResponseOutparam::set(out, Ok(response));
    Some((body, stream))
}

/// Writes every byte, in pieces of the size that `blocking-write-and-flush` takes.
pub fn write_all(stream: &OutputStream, bytes: &[u8]) -> Result<(), StreamError> {
    bytes.chunks(BLOCKING_WRITE_BYTES).try_for_each(|piece| stream.blocking_write_and_flush(piece))
}

/// The most that one `blocking-write-and-flush` may carry (wasi:io).
const BLOCKING_WRITE_BYTES: usize = 4096;
