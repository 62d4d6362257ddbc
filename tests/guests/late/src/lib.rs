//! Sets a response head of 200, streams some of the body and then traps: too late for a status code to tell of it. The
//! host has to end the body as broken.
//!
//! `?n=N` pieces of 4 KiB come before the trap (4 if absent).

use guest_http::{Target, begin, write_all};
use wasip2::http::types::{Fields, IncomingRequest, ResponseOutparam};

struct Late;

wasip2::http::proxy::export!(Late);

impl wasip2::exports::http::incoming_handler::Guest for Late {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let pieces = Target::of(&request).number("n", 4);
        let begun = begin(out, 200, Fields::new());
        if let Some((_, stream)) = &begun {
            for _ in 0..pieces {
                let _ = write_all(stream, &[b'.'; 4096]);
            }
        }
        std::arch::wasm32::unreachable()
    }
}
