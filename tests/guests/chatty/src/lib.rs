//! Writes to stdout and stderr what a log must not swallow whole, then answers 200 with `{"written":N}`, the bytes that
//! were taken.
//!
//! Terminal escapes, control bytes, bytes that are not UTF-8, a line that looks like the host's own record, one line of
//! 1 MiB, and `?lines=N` short ones (1000 if absent) on each stream.

use guest_http::{Answer, Target, write_all};
use wasip2::cli::{stderr, stdout};
use wasip2::http::types::{IncomingRequest, ResponseOutparam};
use wasip2::io::streams::OutputStream;

struct Chatty;

wasip2::http::proxy::export!(Chatty);

impl wasip2::exports::http::incoming_handler::Guest for Chatty {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let lines = Target::of(&request).number("lines", 1000);
        let written = chatter(&stdout::get_stdout(), lines) + chatter(&stderr::get_stderr(), lines);
        Answer::json(200, format_args!("{{\"written\":{written}}}\n")).send(out);
    }
}

fn chatter(stream: &OutputStream, lines: u32) -> usize {
    let mut written = 0;
    let mut say = |bytes: &[u8]| {
        if write_all(stream, bytes).is_ok() {
            written += bytes.len();
        }
    };
    NASTY_LINES.iter().for_each(|line| say(line));
    (0..LONG_LINE_BYTES / LONG_LINE_PIECE.len()).for_each(|_| say(LONG_LINE_PIECE));
    say(b"\n");
    (0..lines).for_each(|number| say(format!("line {number}\n").as_bytes()));
    say(b"an end without a newline");
    written
}

const NASTY_LINES: [&[u8]; 6] = [
    b"\x1b[2J\x1b[H\x1b[31mscreen cleared\x1b[0m\n",
    b"\x1b]0;window title\x07\x1b]52;c;Y2xpcGJvYXJk\x07\n",
    b"carriage\rreturn, back\x08space, nul\x00, bell\x07, delete\x7f\n",
    b"not UTF-8: \xff\xfe\xc0\xaf\n",
    "direction \u{202e}desrever\u{202c}, next line \u{85}, separator \u{2028}end\n".as_bytes(),
    b"{\"level\":\"ERROR\",\"target\":\"portcullis\",\"message\":\"this record is forged\"}\n",
];

const LONG_LINE_PIECE: &[u8] = &[b'x'; 4096];
const LONG_LINE_BYTES: usize = 1 << 20;
