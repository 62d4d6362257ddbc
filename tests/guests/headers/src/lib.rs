//! Adds response headers: `?n=N` of them (1 if absent), with values of `&size=BYTES` (8 if absent), all under one name
//! with `&name=NAME`.
//!
//! Answers with `{"added":K,"refused":null}`; when the host took one header no more, `added` says how many it had taken
//! and `refused` is the name of the header error. (wasmtime ends the guest instead when all of them are too large.)

use guest_http::{Answer, Target, begin, write_all};
use wasip2::http::types::{Fields, HeaderError, IncomingRequest, OutgoingBody, ResponseOutparam};

struct Headers;

wasip2::http::proxy::export!(Headers);

impl wasip2::exports::http::incoming_handler::Guest for Headers {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = Target::of(&request);
        let fields = Fields::new();
        let (added, refused) = add(&fields, &target);
        let report = Answer::json(200, format_args!("{{\"added\":{added},\"refused\":{refused}}}\n"));
        let Some((body, stream)) = begin(out, report.status, fields) else { return };
        let written = write_all(&stream, &report.body);
        drop(stream);
        if written.is_ok() {
            let _ = OutgoingBody::finish(body, None);
        }
    }
}

/// Adds until all are in or one is refused: how many are in, and the refusal as JSON.
fn add(fields: &Fields, target: &Target) -> (u32, &'static str) {
    let name = target.query("name");
    let value = vec![b'v'; target.number("size", 8) as usize];
    for number in 0..target.number("n", 1) {
        let name = name.clone().unwrap_or_else(|| format!("x-header-{number}"));
        match fields.append(&name, &value) {
            Ok(()) => {}
            Err(HeaderError::InvalidSyntax) => return (number, "\"invalid-syntax\""),
            Err(HeaderError::Forbidden) => return (number, "\"forbidden\""),
            Err(HeaderError::Immutable) => return (number, "\"immutable\""),
        }
    }
    (target.number("n", 1), "null")
}
