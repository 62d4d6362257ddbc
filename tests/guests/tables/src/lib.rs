//! Makes host resources and keeps them, until the host makes no more: header lists, or on `/timers` timers.
//!
//! A constructor has no way to say no, so the host can only end the guest. `?n=N` stops after N and answers
//! `{"handles":N}`.

use guest_http::{Answer, Target};
use wasip2::clocks::monotonic_clock;
use wasip2::http::types::{Fields, IncomingRequest, ResponseOutparam};

struct Tables;

wasip2::http::proxy::export!(Tables);

impl wasip2::exports::http::incoming_handler::Guest for Tables {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = Target::of(&request);
        let wanted = target.number("n", u32::MAX);
        let timers = target.path() == "/timers";
        for _ in 0..wanted {
            if timers {
                std::mem::forget(monotonic_clock::subscribe_duration(HOUR_NANOSECONDS));
            } else {
                std::mem::forget(Fields::new());
            }
        }
        Answer::json(200, format_args!("{{\"handles\":{wanted}}}\n")).send(out);
    }
}

const HOUR_NANOSECONDS: u64 = 3600 * 1_000_000_000;
