//! Takes memory, a mebibyte at a time and every byte of it written, until it gets no more.
//!
//! Answers with how far it got: `{"mebibytes":N}`. `?n=N` stops after N mebibytes; `/abort` asks in the way that ends in
//! a trap when it is refused, as most programs do.

use guest_http::{Answer, Target};
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

struct Balloon;

wasip2::http::proxy::export!(Balloon);

impl wasip2::exports::http::incoming_handler::Guest for Balloon {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = Target::of(&request);
        let wanted = target.number("n", ADDRESS_SPACE_MEBIBYTES) as usize;
        let got = if target.path() == "/abort" { inflate_or_abort(wanted) } else { inflate(wanted) };
        Answer::json(200, format_args!("{{\"mebibytes\":{got}}}\n")).send(out);
    }
}

fn inflate(wanted: usize) -> usize {
    let mut blocks: Vec<Vec<u8>> = Vec::with_capacity(ADDRESS_SPACE_MEBIBYTES as usize);
    while blocks.len() < wanted {
        let mut block = Vec::new();
        if block.try_reserve_exact(MEBIBYTE).is_err() {
            break;
        }
        block.resize(MEBIBYTE, 0xA5);
        blocks.push(std::hint::black_box(block));
    }
    blocks.len()
}

fn inflate_or_abort(wanted: usize) -> usize {
    let blocks: Vec<Vec<u8>> = (0..wanted).map(|_| std::hint::black_box(vec![0xA5; MEBIBYTE])).collect();
    blocks.len()
}

const MEBIBYTE: usize = 1 << 20;

/// What a 32-bit memory can hold at the most.
const ADDRESS_SPACE_MEBIBYTES: u32 = 4096;
