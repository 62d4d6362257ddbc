//! A relay between a client and a server: it records what the client sends, and can stall, cut or refuse, as a network does.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A relay on loopback. It lives until the test process ends, or is dropped and refuses from then on.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    to: Mutex<String>,
    open: AtomicBool,
    stalled: AtomicBool,
    connections: AtomicUsize,
    sent: Mutex<Vec<u8>>,
    sockets: Mutex<Vec<TcpStream>>,
}

impl Relay {
    /// A relay to `HOST:PORT`.
    pub fn to(address: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address_here = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared {
            to: Mutex::new(address.to_owned()),
            open: AtomicBool::new(true),
            stalled: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            sent: Mutex::new(Vec::new()),
            sockets: Mutex::new(Vec::new()),
        });
        let relay = Self { address: address_here, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for client in listener.incoming().filter_map(Result::ok) {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let to = shared.to.lock().expect("not poisoned").clone();
                if !shared.open.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(to) else { continue };
                let pair = (client.try_clone(), server.try_clone());
                let (Ok(client_too), Ok(server_too)) = pair else { continue };
                if let (Ok(one), Ok(other)) = (client.try_clone(), server.try_clone()) {
                    shared.sockets.lock().expect("not poisoned").extend([one, other]);
                }
                let (up, down) = (Arc::clone(&shared), Arc::clone(&shared));
                std::thread::spawn(move || copy(client, server_too, &up, true));
                std::thread::spawn(move || copy(server, client_too, &down, false));
            }
        });
        relay
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Every byte that clients have sent so far.
    pub fn sent(&self) -> Vec<u8> {
        self.shared.sent.lock().expect("not poisoned").clone()
    }

    /// How many connections were opened so far, refused ones too.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Closes every connection now; new ones are let through.
    pub fn cut(&self) {
        for socket in self.shared.sockets.lock().expect("not poisoned").drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// A partition: connections are closed and new ones end at once, until [`Self::heal`].
    pub fn part(&self) {
        self.shared.open.store(false, Ordering::SeqCst);
        self.cut();
    }

    /// Holds every byte back, in both directions, with the connections open, until [`Self::heal`].
    pub fn stall(&self) {
        self.shared.stalled.store(true, Ordering::SeqCst);
    }

    /// Ends a partition or a stall.
    pub fn heal(&self) {
        self.shared.stalled.store(false, Ordering::SeqCst);
        self.shared.open.store(true, Ordering::SeqCst);
    }

    /// Sends new connections elsewhere.
    pub fn redirect(&self, address: &str) {
        *self.shared.to.lock().expect("not poisoned") = address.to_owned();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.part();
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, shared: &Shared, record: bool) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(count) = from.read(&mut bytes) {
        if count == 0 {
            break;
        }
        if record {
            shared.sent.lock().expect("not poisoned").extend_from_slice(&bytes[..count]);
        }
        while shared.stalled.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
