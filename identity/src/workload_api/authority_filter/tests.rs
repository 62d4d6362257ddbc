//! The filter against an HPACK encoder and decoder that others wrote, and against everything that is not HTTP/2.

use httlib_hpack::{Decoder, Encoder};

use super::*;
use crate::workload_api::authority_value::AuthorityValue;

type Headers = Vec<(Vec<u8>, Vec<u8>)>;

/// A small generator of numbers, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % most
    }

    fn one_of<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

/// Passes everything through the filter in pieces, as a connection would.
fn passed(filter: &mut AuthorityFilter, octets: &[u8], mut piece: impl FnMut() -> usize) -> Vec<u8> {
    let (mut out, mut buffer, mut rest) = (Vec::new(), Vec::new(), octets);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(piece().clamp(1, rest.len()));
        rest = later;
        let held = buffer.len();
        buffer.extend_from_slice(now);
        let ready = filter.follow(&mut buffer, held);
        assert!(buffer.len() - ready <= AUTHORITY_HOLD_BYTES);
        out.extend(buffer.drain(..ready));
    }
    out.extend(buffer);
    out
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A block in one HEADERS frame and perhaps some CONTINUATION frames, with and without padding and priority.
fn framed(block: &[u8], stream: u32, random: &mut Random) -> Vec<u8> {
    let mut pieces = Vec::new();
    let mut rest = block;
    while rest.len() > 1 && random.below(3) > 0 {
        let (piece, later) = rest.split_at(1 + random.below(rest.len() - 1));
        pieces.push(piece);
        rest = later;
    }
    pieces.push(rest);
    let last = pieces.len() - 1;
    let mut out = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        let ends = if index == last { END_HEADERS } else { 0 };
        if index > 0 {
            out.extend(frame(CONTINUATION, ends, stream, piece));
            continue;
        }
        let (mut flags, mut payload, padding) = (ends, Vec::new(), random.below(200));
        if random.below(2) == 0 {
            flags |= PADDED;
            payload.push(u8::try_from(padding).unwrap());
        }
        if random.below(2) == 0 {
            flags |= PRIORITY;
            payload.extend([0, 0, 0, 0, 16]);
        }
        payload.extend(*piece);
        if flags & PADDED != 0 {
            payload.extend(vec![0; padding]);
        }
        out.extend(frame(HEADERS, flags, stream, &payload));
    }
    out
}

/// The header blocks in what came out, one for each HEADERS frame.
fn blocks(mut octets: &[u8]) -> Vec<Vec<u8>> {
    octets = octets.strip_prefix(PREFACE).unwrap();
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    while let [a, b, c, kind, flags, _, _, _, _, rest @ ..] = octets {
        let len = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).unwrap();
        let (mut payload, later) = rest.split_at(len);
        octets = later;
        match *kind {
            HEADERS => {
                if flags & PADDED != 0 {
                    payload = &payload[1..payload.len() - usize::from(payload[0])];
                }
                if flags & PRIORITY != 0 {
                    payload = &payload[PRIORITY_BYTES..];
                }
                blocks.push(payload.to_vec());
            }
            CONTINUATION => blocks.last_mut().unwrap().extend(payload),
            _ => {}
        }
    }
    blocks
}

fn decoded(decoder: &mut Decoder<'_>, block: &[u8]) -> Headers {
    let mut headers = Vec::new();
    decoder.decode(&mut block.to_vec(), &mut headers).unwrap();
    headers.into_iter().map(|(name, value, _)| (name, value)).collect()
}

/// What the filter is to make of a value, and whether that can be said: Huffman coding may bring in another octet than `-`.
fn agrees(name: &[u8], sent: &[u8], got: &[u8]) -> bool {
    if name != b":authority" {
        return sent == got;
    }
    let mut value = AuthorityValue::default();
    sent.len() == got.len()
        && sent.iter().zip(got).all(|(sent, got)| match value.may_stay(*sent) {
            true => sent == got,
            // A few octets have no Huffman code of the length of one that may stay.
            false => AuthorityValue::default().may_stay(*got) || sent == got,
        })
}

#[test]
fn what_a_real_encoder_sends_differs_in_the_authority_only() {
    let names: [&[u8]; 7] =
        [b":authority", b":path", b":method", b"te", b"workload.spiffe.io", b":authorit", b":authority2"];
    let values: [&[u8]; 10] = [
        b"tmp%2Fportcullis%2Fapi.sock",
        b"/run/portcullis/api.sock",
        b"localhost",
        b"[::1]:80",
        b"unix:/a b/c:d",
        b"",
        b"true",
        b"%",
        b"\x00\xff~{}|^\\",
        b"a-long-name-that-needs-more-than-one-octet-to-say-how-long-it-is-%2F%2F%2F%2F%2F%2F%2F%2F%2F%2F%2F%2F%2F%2F%2F%2F-0123456789-0123456789-0123456789",
    ];
    let mut rewritten = 0;
    for seed in 0..400 {
        let mut random = Random(seed);
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let mut filter = AuthorityFilter::new();
        let (mut sent, mut wire) = (Vec::new(), PREFACE.to_vec());
        wire.extend(frame(4, 0, 0, &[0, 3, 0, 0, 0, 100]));
        for stream in 0..8 {
            let mut block = Vec::new();
            if random.below(4) == 0 {
                let size = u32::try_from(random.below(4097)).unwrap();
                encoder.update_max_dynamic_size(size, &mut block).unwrap();
            }
            let mut headers = Headers::new();
            for _ in 0..1 + random.below(6) {
                let (name, value) = (random.one_of(&names).to_vec(), random.one_of(&values).to_vec());
                let flags = u8::try_from(random.below(32)).unwrap();
                // Both kinds of literal at once make no sense to the encoder.
                let flags = if flags & 0xc == 0xc { flags & !0x8 } else { flags };
                encoder.encode((name.clone(), value.clone(), flags), &mut block).unwrap();
                headers.push((name, value));
            }
            wire.extend(framed(&block, 2 * stream + 1, &mut random));
            wire.extend(frame(0, 0, 2 * stream + 1, b"DATA with :authority: %2F"));
            sent.push(headers);
        }
        let out = passed(&mut filter, &wire, || 1 + random.below(40));
        assert!(!filter.is_lost(), "seed {seed}");
        assert_eq!(out.len(), wire.len());
        let whole = passed(&mut AuthorityFilter::new(), &wire, || usize::MAX);
        assert_eq!(out, whole, "the pieces make a difference, seed {seed}");
        for (headers, block) in sent.iter().zip(blocks(&out)) {
            let got = decoded(&mut decoder, &block);
            assert_eq!(got.len(), headers.len());
            for ((name, value), (got_name, got_value)) in headers.iter().zip(&got) {
                assert_eq!(name, got_name, "seed {seed}");
                assert!(agrees(name, value, got_value), "seed {seed}: {value:?} became {got_value:?}");
                rewritten += usize::from(value != got_value);
            }
        }
    }
    assert!(rewritten > 500, "{rewritten}");
}

/// One request as gRPC C-core sends it: plain literals with literal names.
fn request(authority: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    let mut block = Vec::new();
    for (name, value) in [(&b":path"[..], &b"/SpiffeWorkloadAPI/FetchX509SVID"[..]), (b":authority", authority)] {
        encoder.encode((name.to_vec(), value.to_vec(), Encoder::WITH_INDEXING), &mut block).unwrap();
    }
    [PREFACE.to_vec(), frame(HEADERS, END_HEADERS, 1, &block)].concat()
}

#[test]
fn percent_encoded_and_raw_paths_become_authorities_that_http_takes() {
    for (sent, wanted) in [
        ("tmp%2Fdir%2Fapi.sock", "tmp-2Fdir-2Fapi.sock"),
        ("/run/x/api.sock", "-run-x-api.sock"),
        ("localhost", "localhost"),
    ] {
        let out = passed(&mut AuthorityFilter::new(), &request(sent.as_bytes()), || 1);
        let got = decoded(&mut Decoder::default(), &blocks(&out)[0]);
        assert_eq!(got[1], (b":authority".to_vec(), wanted.as_bytes().to_vec()));
        assert!(wanted.parse::<http::uri::Authority>().is_ok());
    }
}

#[test]
fn an_authority_from_the_dynamic_table_is_the_rewritten_one() {
    let mut encoder = Encoder::default();
    let mut wire = PREFACE.to_vec();
    for stream in [1, 3, 5] {
        let mut block = Vec::new();
        let flags = Encoder::WITH_INDEXING | Encoder::BEST_FORMAT | Encoder::HUFFMAN_VALUE;
        encoder.encode((b":authority".to_vec(), b"a%2Fb".to_vec(), flags), &mut block).unwrap();
        assert_eq!(block.len() == 1, stream > 1, "an index from the second time on");
        wire.extend(frame(HEADERS, END_HEADERS, stream, &block));
    }
    let out = passed(&mut AuthorityFilter::new(), &wire, || 3);
    let mut decoder = Decoder::default();
    for block in blocks(&out) {
        assert_eq!(decoded(&mut decoder, &block)[0].1, b"a-2Fb");
    }
}

#[test]
fn what_is_no_http2_passes_untouched() {
    for octets in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n:authority %2F"] {
        let mut filter = AuthorityFilter::new();
        assert_eq!(passed(&mut filter, octets, || 2), octets);
        assert!(filter.is_lost());
    }
}

#[test]
fn broken_frames_and_blocks_pass_untouched_from_there_on() {
    let literal = [0x40, 1, b'x', 1, b'y'];
    let over: Vec<u8> = std::iter::repeat_n(literal, HEADER_BLOCK_BYTES / literal.len() + 1).flatten().collect();
    for (what, frames) in [
        ("a continuation of nothing", vec![frame(CONTINUATION, END_HEADERS, 1, &literal)]),
        ("data within a block", vec![frame(HEADERS, 0, 1, &literal), frame(0, 0, 1, b"x")]),
        ("another stream's continuation", vec![frame(HEADERS, 0, 1, &literal), frame(CONTINUATION, 4, 3, &literal)]),
        ("a pushed promise", vec![frame(PUSH_PROMISE, END_HEADERS, 1, &literal)]),
        ("padding longer than the frame", vec![frame(HEADERS, END_HEADERS | PADDED, 1, &[9, 0x82])]),
        ("padding without its length", vec![frame(HEADERS, END_HEADERS | PADDED, 1, &[])]),
        ("priority cut short", vec![frame(HEADERS, END_HEADERS | PRIORITY, 1, &[0, 0])]),
        ("a block that ends within a field", vec![frame(HEADERS, END_HEADERS, 1, &literal[..3])]),
        ("index 0", vec![frame(HEADERS, END_HEADERS, 1, &[0x80])]),
        ("an index beyond the tables", vec![frame(HEADERS, END_HEADERS, 1, &[0xff, 0x00])]),
        ("a table larger than agreed", vec![frame(HEADERS, END_HEADERS, 1, &[0x3f, 0xe2, 0x1f])]),
        ("an integer without an end", vec![frame(HEADERS, END_HEADERS, 1, &[0xff; 8])]),
        ("a string longer than any", vec![frame(HEADERS, END_HEADERS, 1, &[0x40, 0x7f, 0xff, 0xff, 0xff, 0x7f])]),
        ("the end of string in a string", vec![frame(HEADERS, END_HEADERS, 1, &[0x41, 0x84, 255, 255, 255, 255])]),
        ("padding of zeros in Huffman code", vec![frame(HEADERS, END_HEADERS, 1, &[0x41, 0x81, 0x00])]),
        ("a block over the limit", vec![frame(HEADERS, END_HEADERS, 1, &over)]),
    ] {
        let mut wire = PREFACE.to_vec();
        wire.extend(frames.concat());
        wire.extend(&request(b"%2F")[PREFACE.len()..]);
        for piece in [1, 7, usize::MAX] {
            let mut filter = AuthorityFilter::new();
            assert!(passed(&mut filter, &wire, || piece) == wire, "{what}");
            assert!(filter.is_lost(), "{what}");
        }
    }
}

#[test]
fn no_more_is_held_back_than_the_limit() {
    // A Huffman code that begins in one frame and never ends, with empty continuations after it.
    let mut wire = [PREFACE.to_vec(), frame(HEADERS, 0, 1, &[0x41, 0x84, 0xff])].concat();
    for _ in 0..AUTHORITY_HOLD_BYTES / HEAD {
        wire.extend(frame(CONTINUATION, 0, 1, &[]));
    }
    let mut filter = AuthorityFilter::new();
    assert_eq!(passed(&mut filter, &wire, || 5), wire);
    assert!(!filter.is_lost(), "up to the limit it is followed");
    for _ in 0..2 {
        wire.extend(frame(CONTINUATION, 0, 1, &[]));
    }
    let mut filter = AuthorityFilter::new();
    assert_eq!(passed(&mut filter, &wire, || 5), wire);
    assert!(filter.is_lost());
}

#[test]
fn arbitrary_octets_never_change_their_number() {
    for seed in 0..2000 {
        let mut random = Random(seed);
        let mut wire = PREFACE.to_vec();
        for _ in 0..random.below(6) {
            let payload: Vec<u8> = (0..random.below(40)).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
            let flags = u8::try_from(random.below(64)).unwrap();
            wire.extend(frame(*random.one_of(&[&HEADERS, &CONTINUATION, &0]), flags, 1, &payload));
        }
        let mut filter = AuthorityFilter::new();
        let out = passed(&mut filter, &wire, || 1 + random.below(9));
        assert_eq!(out.len(), wire.len());
        assert_eq!(out, passed(&mut AuthorityFilter::new(), &wire, || usize::MAX), "seed {seed}");
    }
}
