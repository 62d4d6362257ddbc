//! Streams the request body back as it comes in, never holding more than one piece of it.
//!
//! Tells what it saw of the head in `x-method`, `x-path` and `x-headers` (their number). A request body that breaks off
//! leaves the response unfinished, so that the host has to end it as broken, not as complete.

use guest_http::{begin, write_all};
use wasip2::http::types::{Fields, IncomingRequest, Method, OutgoingBody, ResponseOutparam};
use wasip2::io::streams::StreamError;

struct Echo;

wasip2::http::proxy::export!(Echo);

impl wasip2::exports::http::incoming_handler::Guest for Echo {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let fields = Fields::new();
        let path = request.path_with_query().unwrap_or_default();
        let _ = fields.append("x-method", method_name(&request.method()).as_bytes());
        let _ = fields.append("x-path", path.as_bytes());
        let _ = fields.append("x-headers", request.headers().entries().len().to_string().as_bytes());
        let Some((outgoing, output)) = begin(out, 200, fields) else { return };
        let Ok(incoming) = request.consume() else { return };
        let Ok(input) = incoming.stream() else { return };
        loop {
            match input.blocking_read(PIECE_BYTES) {
                Ok(piece) if write_all(&output, &piece).is_ok() => {}
                Err(StreamError::Closed) => break,
                Ok(_) | Err(_) => return,
            }
        }
        drop(output);
        let _ = OutgoingBody::finish(outgoing, None);
    }
}

fn method_name(method: &Method) -> &str {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
        Method::Other(name) => name,
    }
}

const PIECE_BYTES: u64 = 64 * 1024;
