//! Traps before it has answered anything.
//!
//! The path says how: `/stack` by endless recursion, `/bounds` by a write outside its memory, `/panic` as most programs
//! do, any other path by `unreachable`.

use std::hint::black_box;

use guest_http::Target;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

struct Trap;

wasip2::http::proxy::export!(Trap);

impl wasip2::exports::http::incoming_handler::Guest for Trap {
    fn handle(request: IncomingRequest, _out: ResponseOutparam) {
        match Target::of(&request).path() {
            "/stack" => {
                black_box(deeper(black_box(1)));
            }
            "/bounds" => write_outside(),
            "/panic" => panic!("this guest fails on purpose"),
            _ => std::arch::wasm32::unreachable(),
        }
    }
}

/// Calls itself until the stack ends. The addition after the call keeps it from becoming a loop.
#[inline(never)]
fn deeper(depth: u64) -> u64 {
    if black_box(depth) == 0 { 0 } else { deeper(depth.wrapping_add(1)).wrapping_add(black_box(1)) }
}

/// Writes to the last address there is, which this small memory never reaches.
fn write_outside() {
    let last = std::ptr::without_provenance_mut::<u32>(usize::MAX - 3);
    // SAFETY: a volatile write outside all of Rust's memory, to where the machine has none: it traps.
    unsafe { last.write_volatile(0) }
}
