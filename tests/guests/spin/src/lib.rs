//! Never ends: an endless loop, by the path's choice in one of three places. Any other path is answered at once, so that
//! one component can be honest and hostile in the same measurement.
//!
//! `/spin` loops before it answers, `/spin/body` after the response head and the first bytes, `/spin/calls` through host
//! calls without end.

use guest_http::{Answer, Target, begin, write_all};
use wasip2::http::types::{Fields, IncomingRequest, ResponseOutparam};

struct Spin;

wasip2::http::proxy::export!(Spin);

impl wasip2::exports::http::incoming_handler::Guest for Spin {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        match Target::of(&request).path() {
            "/spin" => spin(),
            "/spin/body" => {
                let begun = begin(out, 200, Fields::new());
                if let Some((_, stream)) = &begun {
                    let _ = write_all(stream, b"and then\n");
                }
                spin()
            }
            "/spin/calls" => loop {
                drop(Fields::new());
            },
            _ => Answer::text(200, "Hello, world!\n").send(out),
        }
    }
}

fn spin() -> ! {
    #[expect(clippy::empty_loop, reason = "an endless loop is what this guest is for")]
    loop {}
}
