//! Never answers: it returns without having set a response. On `/hang` it does not even return, but waits an hour on a
//! timer, which costs no processor time and so is seen by no epoch.

use guest_http::Target;
use wasip2::clocks::monotonic_clock;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

struct Silent;

wasip2::http::proxy::export!(Silent);

impl wasip2::exports::http::incoming_handler::Guest for Silent {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        if Target::of(&request).path() == "/hang" {
            monotonic_clock::subscribe_duration(HOUR_NANOSECONDS).block();
        }
        drop(out);
    }
}

const HOUR_NANOSECONDS: u64 = 3600 * 1_000_000_000;
