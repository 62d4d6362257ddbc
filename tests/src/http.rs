//! HTTP by hand over a real socket, so that a test can send what a client library would not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::patience::LONG;

/// An answer, as far as it came.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code; 0 where no status line came.
    pub status: u16,
    /// The head as it came.
    pub head: String,
    /// The body: unchunked where it was chunked.
    pub body: Vec<u8>,
    /// Whether the body came to its end as the head announced it.
    pub complete: bool,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null where it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header's value, by lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.trim())
    }
}

/// Connects, with time-outs so that a test never hangs.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, LONG).expect("the host accepts connections");
    stream.set_read_timeout(Some(LONG)).expect("a time-out can be set");
    stream.set_write_timeout(Some(LONG)).expect("a time-out can be set");
    stream
}

/// `GET path` with extra headers, on a connection of its own.
pub fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    let extra: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    raw(address, format!("GET {path} HTTP/1.1\r\nhost: test.example\r\n{extra}connection: close\r\n\r\n").as_bytes())
}

/// `POST path` with a body, on a connection of its own.
pub fn post(address: SocketAddr, path: &str, body: &[u8]) -> Answer {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: test.example\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    raw(address, &[head.as_bytes(), body].concat())
}

/// Sends bytes as they are and reads until the other side closes.
pub fn raw(address: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = connect(address);
    // The host may answer and close before it has read everything: that is an answer, not a failure.
    let _ = stream.write_all(bytes);
    let mut received = Vec::new();
    let _ = stream.read_to_end(&mut received);
    parse(&received)
}

/// Parses what came.
pub fn parse(received: &[u8]) -> Answer {
    let split = received.windows(4).position(|window| window == b"\r\n\r\n");
    let (head, body) = match split {
        Some(at) => (&received[..at], &received[at + 4..]),
        None => (received, &[][..]),
    };
    let head = String::from_utf8_lossy(head).into_owned();
    let status = head.split_whitespace().nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let mut answer = Answer { status, head, body: body.to_vec(), complete: split.is_some() };
    if answer.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        (answer.body, answer.complete) = unchunk(body);
    } else if let Some(length) = answer.header("content-length").and_then(|value| value.parse::<usize>().ok()) {
        answer.complete = answer.body.len() == length;
    }
    answer
}

fn unchunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|window| window == b"\r\n") else { return (body, false) };
        let Some(size) = std::str::from_utf8(&rest[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok())
        else {
            return (body, false);
        };
        if size == 0 {
            return (body, true);
        }
        let Some(chunk) = rest.get(end + 2..end + 2 + size) else { return (body, false) };
        body.extend_from_slice(chunk);
        rest = rest.get(end + 4 + size..).unwrap_or_default();
    }
}
