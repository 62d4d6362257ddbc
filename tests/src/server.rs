//! A small HTTP server on loopback that keeps what it was sent: the far end of outgoing requests.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::patience::LONG;

/// Answers every request with the same bytes, until the test process ends.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// A server that answers 200 with a text.
    pub fn saying(text: &str) -> Self {
        Self::answering(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}", text.len()))
    }

    /// A server that answers with these bytes.
    pub fn answering(bytes: impl Into<Vec<u8>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (kept, bytes) = (Arc::clone(&heads), bytes.into());
        std::thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                let (kept, bytes) = (Arc::clone(&kept), bytes.clone());
                std::thread::spawn(move || {
                    let head = head_of(&stream);
                    kept.lock().expect("not poisoned").push(head);
                    let mut stream = stream;
                    let _ = stream.write_all(&bytes);
                });
            }
        });
        Self { address, heads }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The heads of the requests so far. A connection without a request counts as an empty one.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("not poisoned").clone()
    }
}

fn head_of(mut stream: &TcpStream) -> String {
    let _ = stream.set_read_timeout(Some(LONG));
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 1 << 16 && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}
