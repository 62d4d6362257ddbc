//! Follows what an HTTP/2 client sends and rewrites `:authority` values. How the octets come makes no difference, their number
//! and the heads of frames never change, little is held back, and what was rewritten once is not rewritten again.
//! The first octet says how large the pieces are; the client's preface comes before the others.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_identity::limits::AUTHORITY_HOLD_BYTES;
use portcullis_identity::workload_api::AuthorityFilter;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn passed(octets: &[u8], piece: usize) -> (Vec<u8>, bool) {
    let (mut filter, mut out, mut held) = (AuthorityFilter::new(), Vec::new(), Vec::new());
    for piece in octets.chunks(piece) {
        let new = held.len();
        held.extend_from_slice(piece);
        let ready = filter.follow(&mut held, new);
        out.extend(held.drain(..ready));
        assert!(held.len() <= AUTHORITY_HOLD_BYTES);
    }
    out.extend(held);
    (out, filter.is_lost())
}

fn heads(octets: &[u8]) -> Vec<&[u8]> {
    let (mut heads, mut rest) = (Vec::new(), octets.get(PREFACE.len()..).unwrap_or_default());
    while let [a, b, c, _, _, _, _, _, _, ..] = rest {
        let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let (head, later) = rest.split_at(9);
        heads.push(head);
        rest = later.get(len..).unwrap_or_default();
    }
    heads
}

fuzz_target!(|input: &[u8]| {
    let Some((piece, octets)) = input.split_first() else { return };
    let wire = [PREFACE, octets].concat();
    let (out, lost) = passed(&wire, usize::from(*piece) + 1);
    assert_eq!(out.len(), wire.len());
    assert_eq!((&out, lost), (&passed(&wire, wire.len()).0, passed(&wire, 1).1));
    if !lost {
        assert_eq!(heads(&out), heads(&wire));
        assert_eq!(passed(&out, 7), (out, false));
    }
});
