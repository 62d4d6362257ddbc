//! The HTTP gateway against clients that mean harm: what can be read in two ways, what is too large, too slow or too much, and
//! what becomes of requests when the host is told to stop.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portcullis_tests::host::Host;
use portcullis_tests::http::{self, get};
use portcullis_tests::patience::{LONG, promised};
use portcullis_tests::site::Site;

/// A host with small limits for what clients send.
static OPEN: LazyLock<Host> = LazyLock::new(|| {
    let mut site = Site::new();
    for guest in ["hello", "echo"] {
        site.guest(guest, "");
    }
    site.config("[limits]\nbody_bytes = 65536\nheader_bytes = 8192\nheaders = 32\nhead_ms = 1000\n");
    Host::ready(site)
});

/// A host with two places, short patience for clients, long patience for guests, and HTTP/2.
static NARROW: LazyLock<Host> = LazyLock::new(|| {
    let mut site = Site::new();
    for guest in ["hello", "echo", "silent", "late"] {
        site.guest(guest, "");
    }
    site.config("[[route]]\npath = \"/hang\"\ncomponent = \"test:silent\"\n\n");
    site.config("[listen]\nhttp = \"127.0.0.1:0\"\nhttp2 = true\n\n");
    site.config("[limits]\nconcurrent_requests = 2\nrequest_ms = 120000\nhead_ms = 500\nbody_idle_ms = 700\n");
    Host::ready(site)
});
/// The two places are taken by one test at a time.
static PLACES: Mutex<()> = Mutex::new(());

fn narrow() -> (&'static Host, MutexGuard<'static, ()>) {
    let turn = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
    // Whatever an earlier test held is given back first.
    until("both places are free", || get(NARROW.http(), "/hello", &[]).status == 200);
    (&NARROW, turn)
}

/// Hello answers, soon.
fn greeted(address: SocketAddr) {
    let asked = Instant::now();
    let answer = get(address, "/hello", &[]);
    assert_eq!((answer.status, answer.text().as_str(), answer.complete), (200, "Hello, world!\n", true), "{answer:?}");
    assert!(asked.elapsed() < promised(Duration::from_secs(10)), "hello took {:?}", asked.elapsed());
}

#[test]
fn an_ambiguous_request_is_refused() {
    let long = "a".repeat(300);
    for head in [
        "GET /echo HTTP/1.1\r\nhost: a.example\r\nhost: b.example\r\n".to_owned(),
        "GET /echo HTTP/1.1\r\nhost: a.example\r\nhost: a.example\r\n".to_owned(),
        "GET http://b.example/echo HTTP/1.1\r\nhost: a.example\r\n".to_owned(),
        "GET http://u@a.example/echo HTTP/1.1\r\nhost: a.example\r\n".to_owned(),
        "GET /echo HTTP/1.1\r\n".to_owned(),
        "GET /echo HTTP/1.0\r\n".to_owned(),
        "GET /echo HTTP/1.1\r\nhost:\r\n".to_owned(),
        "GET /echo HTTP/1.1\r\nhost: a b\r\n".to_owned(),
        "GET /echo HTTP/1.1\r\nhost: a.example, b.example\r\n".to_owned(),
        "GET /echo HTTP/1.1\r\nhost: u@a.example\r\n".to_owned(),
        "GET /echo HTTP/1.1\r\nhost: a.example/echo\r\n".to_owned(),
        "GET /echo HTTP/1.1\r\nhost: a.example#b\r\n".to_owned(),
        "GET /echo HTTP/1.1\r\nhost: a.example:80:80\r\n".to_owned(),
        "GET /echo HTTP/1.1\r\nhost: [::1\r\n".to_owned(),
        "GET /echo HTTP/1.1\r\nhost: \u{e9}.example\r\n".to_owned(),
        "GET /echo HTTP/1.1\r\nhost : a.example\r\n".to_owned(),
        "GET /echo HTTP/1.1\r\nhost: a.example\r\n b.example\r\n".to_owned(),
        "GET  /echo HTTP/1.1\r\nhost: a.example\r\n".to_owned(),
        "GET echo HTTP/1.1\r\nhost: a.example\r\n".to_owned(),
        "GET /echo\r\nhost: a.example\r\n".to_owned(),
        format!("CONNECT {long}.example:80 HTTP/1.1\r\nhost: a.example\r\n"),
    ] {
        let answer = http::raw(OPEN.http(), format!("{head}connection: close\r\n\r\n").as_bytes());
        assert_eq!(answer.status, 400, "{head:?}: {answer:?}");
        assert_eq!(answer.header("x-method"), None, "{head:?} reached a component");
    }
}

#[test]
fn an_unambiguous_host_is_taken_in_every_spelling() {
    for head in [
        "GET /echo HTTP/1.1\r\nhost: A.Example:8080\r\n",
        "GET /echo HTTP/1.1\r\nhost: a.example.\r\n",
        "GET http://a.example/echo HTTP/1.1\r\nhost: A.example\r\n",
        "GET /echo HTTP/1.0\r\nhost: a.example\r\n",
        "GET /echo HTTP/1.1\r\nhost: [::1]:80\r\n",
    ] {
        let answer = http::raw(OPEN.http(), format!("{head}connection: close\r\n\r\n").as_bytes());
        assert_eq!(answer.status, 200, "{head:?}: {answer:?}");
    }
}

#[test]
fn an_oversized_head_is_refused() {
    let refused = |head: String| {
        let answer = http::raw(OPEN.http(), format!("{head}connection: close\r\n\r\n").as_bytes());
        assert!([431, 414].contains(&answer.status), "{answer:?}");
    };
    refused(format!("GET /echo HTTP/1.1\r\nhost: a\r\nx: {}\r\n", "v".repeat(9_000)));
    refused(format!("GET /echo?{} HTTP/1.1\r\nhost: a\r\n", "v".repeat(9_000)));
    let many: String = (0..40).map(|n| format!("x-{n}: v\r\n")).collect();
    refused(format!("GET /echo HTTP/1.1\r\nhost: a\r\n{many}"));
    let fitting: Vec<(String, String)> = (0..20).map(|n| (format!("x-{n}"), "v".repeat(100))).collect();
    let fitting: Vec<(&str, &str)> = fitting.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(get(OPEN.http(), "/echo", &fitting).status, 200);
}

#[test]
fn an_oversized_body_is_refused_before_the_guest_or_breaks_off_within() {
    let fits = vec![b'x'; 65_536];
    let answer = http::post(OPEN.http(), "/echo", &fits);
    assert_eq!((answer.status, answer.body.len(), answer.complete), (200, fits.len(), true));
    let answer =
        http::raw(OPEN.http(), b"POST /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 65537\r\n\r\n");
    assert_eq!((answer.status, answer.header("x-method")), (413, None), "{answer:?}");
    let mut chunked =
        b"POST /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..20 {
        chunked.extend_from_slice(b"1000\r\n");
        chunked.resize(chunked.len() + 0x1000, b'x');
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let asked = Instant::now();
    let answer = http::raw(OPEN.http(), &chunked);
    assert!(!answer.complete || answer.status >= 400, "status {}, {} bytes", answer.status, answer.body.len());
    assert!(answer.body.len() <= fits.len(), "the guest got {} bytes", answer.body.len());
    assert!(asked.elapsed() < promised(Duration::from_secs(20)));
    greeted(OPEN.http());
}

#[test]
fn no_framing_trick_turns_one_request_into_two() {
    let second = "GET /hello HTTP/1.1\r\nhost: a\r\n\r\n";
    let ended = format!("0\r\n\r\n{second}");
    let all = ended.len();
    for fields in [
        format!("content-length: {all}\r\ntransfer-encoding: chunked\r\n"),
        format!("transfer-encoding: chunked\r\ncontent-length: {all}\r\n"),
        format!("content-length: {all}\ntransfer-encoding: chunked\r\n"),
        "content-length: 5\r\ncontent-length: 6\r\n".to_owned(),
        "content-length: 5, 5\r\n".to_owned(),
        "content-length: 5, 6\r\n".to_owned(),
        "content-length: +5\r\n".to_owned(),
        "content-length: -1\r\n".to_owned(),
        "content-length: 0x5\r\n".to_owned(),
        "content-length: 5 5\r\n".to_owned(),
        "content-length: 18446744073709551616\r\n".to_owned(),
        "content-length :5\r\n".to_owned(),
        "transfer-encoding: chunked, identity\r\n".to_owned(),
        "transfer-encoding: identity\r\n".to_owned(),
        "transfer-encoding: xchunked\r\n".to_owned(),
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n".to_owned(),
        "transfer-encoding : chunked\r\n".to_owned(),
        "transfer-encoding:\x0bchunked\r\n".to_owned(),
        "x: y\r\n transfer-encoding: chunked\r\n".to_owned(),
        "x: y\rtransfer-encoding: chunked\r\n".to_owned(),
        "\0: y\r\n".to_owned(),
    ] {
        one_answer_at_most(&format!("POST /echo HTTP/1.1\r\nhost: a\r\n{fields}\r\n{ended}"), &fields);
    }
    one_answer_at_most(
        &format!("POST /echo HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{ended}"),
        "chunked in HTTP/1.0",
    );
    for chunks in ["0x5\r\n", "5;\n", "-1\r\n", "fffffffffffffffff\r\n", "5\r\nabcdeXX0\r\n\r\n", "\r\n"] {
        let head = "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        one_answer_at_most(&format!("{head}{chunks}{ended}"), chunks);
    }
}

fn one_answer_at_most(bytes: &str, what: &str) {
    let mut stream = http::connect(OPEN.http());
    let _ = stream.write_all(bytes.as_bytes());
    let _ = stream.shutdown(Shutdown::Write);
    let mut received = Vec::new();
    let _ = stream.read_to_end(&mut received);
    let text = String::from_utf8_lossy(&received);
    assert!(
        text.matches("HTTP/1.1 ").count() <= 1 && !text.contains("Hello, world!"),
        "{what:?} reached two requests: {text}"
    );
}

#[test]
fn requests_one_after_the_other_on_one_connection_are_told_apart() {
    let mut stream = http::connect(OPEN.http());
    let two = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nfirstGET /hello HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(two.as_bytes()).unwrap();
    let mut received = String::new();
    stream.read_to_string(&mut received).unwrap();
    assert_eq!(received.matches("HTTP/1.1 200 OK").count(), 2, "{received}");
}

#[test]
fn http_2_is_refused_by_default() {
    let mut stream = http::connect(OPEN.http());
    stream.write_all(&h2_request("/hello", None)).unwrap();
    let mut received = Vec::new();
    let _ = stream.read_to_end(&mut received);
    assert!(received.is_empty() || received.starts_with(b"HTTP/1.1 4"), "{:?}", String::from_utf8_lossy(&received));
    assert!(!String::from_utf8_lossy(&received).contains("Hello"));
}

#[test]
fn http_2_works_where_it_is_configured_and_is_as_strict_about_the_host() {
    let (host, _turn) = narrow();
    let ask = |request: &[u8]| {
        let mut stream = http::connect(host.http());
        stream.write_all(request).unwrap();
        h2_answer(&mut stream)
    };
    assert_eq!(ask(&h2_request("/hello", None)), (HPACK_200, "Hello, world!\n".to_owned()));
    let (status, text) = ask(&h2_request("/hello", Some("other.example")));
    assert_eq!(status, HPACK_400, "{text}");
}

/// An HTTP/2 connection that asks for one path, with a host header beside the authority or without.
fn h2_request(path: &str, host: Option<&str>) -> Vec<u8> {
    let literal =
        |index: u8, value: &str| [vec![index, u8::try_from(value.len()).unwrap()], value.as_bytes().to_vec()].concat();
    let mut block = [vec![0x82, 0x86], literal(0x04, path), literal(0x01, "test.example")].concat();
    block.extend(host.map(|host| [vec![0x0f, 38 - 15], literal(0, host)[1..].to_vec()].concat()).unwrap_or_default());
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let head = [0, 0, u8::try_from(block.len()).unwrap(), 1, 0x05, 0, 0, 0, 1];
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &settings, &head, &block].concat()
}

/// The first byte of the answer's header block, which is its status, and the body.
fn h2_answer(stream: &mut TcpStream) -> (u8, String) {
    let (mut status, mut body) = (0, Vec::new());
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).expect("a frame");
        let mut payload = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).expect("a whole frame");
        match head[3] {
            0 => body.extend_from_slice(&payload),
            1 => status = payload[0],
            3 | 7 => panic!("the stream was ended: {payload:?}"),
            _ => continue,
        }
        if head[3] < 2 && head[4] & 1 == 1 {
            return (status, String::from_utf8_lossy(&body).into_owned());
        }
    }
}

/// `:status: 200` and `:status: 400` in HPACK's static table.
const HPACK_200: u8 = 0x88;
const HPACK_400: u8 = 0x8c;

/// A request that takes a place and keeps it; its answer, if one comes, is not read.
fn hold(host: &Host, path: &str) -> TcpStream {
    let end = Instant::now() + LONG;
    while Instant::now() < end {
        let mut stream = http::connect(host.http());
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut begin = [0; 12];
        // A place may not have been given back yet: then it is asked again.
        if !matches!(stream.peek(&mut begin), Ok(read) if begin[..read].starts_with(b"HTTP/1.1 5")) {
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            return stream;
        }
    }
    panic!("no place for {path} within {LONG:?}");
}

#[test]
fn with_no_place_left_a_request_is_told_so_at_once_and_a_client_that_leaves_gives_its_place_back() {
    let (host, _turn) = narrow();
    let held = [(); 2].map(|()| hold(host, "/hang"));
    until("both places are taken", || get(host.http(), "/hello", &[]).status == 503);
    let asked = Instant::now();
    let answer = get(host.http(), "/hello", &[]);
    assert!(asked.elapsed() < promised(Duration::from_secs(2)), "{:?}", asked.elapsed());
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{answer:?}");
    drop(held);
    until("the places are given back", || get(host.http(), "/hello", &[]).status == 200);
}

#[test]
fn a_client_that_stalls_within_the_head_or_between_requests_is_cut_off() {
    let (narrow, _turn) = narrow();
    // With HTTP/2 beside HTTP/1.1 and without.
    for host in [narrow, &OPEN] {
        for start in [
            "",
            "P",
            "PRI * HTTP/2.0\r\n",
            "GET /hello HT",
            "GET /hello HTTP/1.1\r\nhost: a\r\n",
            "GET /hello HTTP/1.1\r\nhost: a\r\n\r\n",
        ] {
            let mut stream = http::connect(host.http());
            stream.write_all(start.as_bytes()).unwrap();
            let began = Instant::now();
            let mut received = Vec::new();
            let _ = stream.read_to_end(&mut received);
            assert!(
                began.elapsed() < promised(Duration::from_secs(20)),
                "{start:?} was left open for {:?}",
                began.elapsed()
            );
            let answer = http::parse(&received);
            match start.ends_with("\r\n\r\n") {
                true => assert_eq!(answer.status, 200, "{start:?}: {answer:?}"),
                false => assert!(answer.status == 0 || answer.status >= 400, "{start:?}: {answer:?}"),
            }
        }
    }
}

#[test]
fn an_answer_does_not_wait_for_the_next_request_on_its_connection() {
    let (host, _turn) = narrow();
    let mut stream = http::connect(host.http());
    stream.write_all(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\nGET /hang HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut received = Vec::new();
    let mut piece = [0; 1024];
    while !String::from_utf8_lossy(&received).contains("Hello, world!") {
        let read = stream.read(&mut piece).expect("the first answer comes while the second request hangs");
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&received));
        received.extend_from_slice(&piece[..read]);
    }
}

#[test]
fn a_client_that_stalls_within_the_body_is_cut_off() {
    let (host, _turn) = narrow();
    for body in [
        "content-length: 10\r\n\r\nabc",
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "content-length: 10\r\n\r\n",
    ] {
        let mut stream = http::connect(host.http());
        stream.write_all(format!("POST /echo HTTP/1.1\r\nhost: a\r\n{body}").as_bytes()).unwrap();
        let began = Instant::now();
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received);
        assert!(began.elapsed() < promised(Duration::from_secs(20)), "it was left open for {:?}", began.elapsed());
        let answer = http::parse(&received);
        assert!(!answer.complete || answer.status >= 400, "{answer:?}");
    }
    until("the places are given back", || get(host.http(), "/hello", &[]).status == 200);
}

#[test]
fn a_client_that_does_not_read_loses_its_connection_and_its_place() {
    let (host, _turn) = narrow();
    let held = [(); 2].map(|()| hold(host, "/late?n=20000"));
    until("both places are taken", || get(host.http(), "/hello", &[]).status == 503);
    // Both places can be had again only after both clients were cut off: nobody waits for these guests' 120 s.
    drop([(); 2].map(|()| hold(host, "/hang")));
    for mut stream in held {
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received);
        assert!(received.len() < 20_000 * 4096, "all {} bytes came", received.len());
    }
}

#[test]
fn on_sigterm_what_is_in_flight_ends_well_and_nothing_new_begins() {
    let mut site = Site::new();
    site.guest("echo", "");
    let mut host = Host::ready(site);
    let address = host.http();
    // One request within its body, one with a large answer that is not read yet, one connection that idles.
    let mut slow = http::connect(address);
    slow.write_all(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nfirst").unwrap();
    let mut large = http::connect(address);
    let mut writer = large.try_clone().unwrap();
    let sent = std::thread::spawn(move || {
        writer
            .write_all(format!("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: {LARGE}\r\n\r\n").as_bytes())
            .unwrap();
        (0..LARGE / (1 << 16)).for_each(|_| writer.write_all(&[b'x'; 1 << 16]).unwrap());
    });
    let mut idle = http::connect(address);
    idle.write_all(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx").unwrap();
    for stream in [&mut slow, &mut large, &mut idle] {
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
    }
    Host::signal(host.supervisor(), "TERM");
    until("new connections are refused", || TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err());
    slow.write_all(b"other").unwrap();
    for (mut stream, length) in [(slow, 10), (large, LARGE)] {
        let mut received = b"HTTP/1.1 200".to_vec();
        stream.read_to_end(&mut received).unwrap();
        let answer = http::parse(&received);
        assert_eq!((answer.status, answer.complete, answer.body.len()), (200, true, length));
    }
    sent.join().unwrap();
    assert_eq!(host.wait(LONG), Some(0), "{}", host.log());
    let _ = idle.read_to_end(&mut Vec::new());
    assert!(!host.site().file("state/run/control.sock").exists());
}

const LARGE: usize = 12 << 20;

fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {LONG:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
