//! TLS by plain `rustls`, so that a test can show what a workload of ours never would: a client, and a server that holds its
//! answer.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use portcullis_tests::http::{self, Answer};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, ServerConfig, ServerConnection, SignatureScheme,
    StreamOwned,
};

use crate::partner::Identity;

/// A connection to the mTLS port.
pub struct Client {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Client {
    /// Connects and ends the handshake, as far as the client sees it: the server may refuse the certificate afterwards.
    pub fn connect(address: SocketAddr, server_name: &str, identity: Option<Identity>) -> io::Result<Self> {
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TrustAll));
        let config = match identity {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        let name = ServerName::try_from(server_name.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, http::connect(address));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self { stream })
    }

    /// One request and its answer, on a connection that stays.
    pub fn ask(&mut self, head: &str, body: &[u8]) -> io::Result<Answer> {
        self.send(head, body)?;
        let mut received = Vec::new();
        let mut piece = [0; 4096];
        loop {
            match self.stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => received.extend_from_slice(&piece[..read]),
            }
            let answer = http::parse(&received);
            if answer.complete {
                return Ok(answer);
            }
        }
    }

    pub fn send(&mut self, head: &str, body: &[u8]) -> io::Result<()> {
        let request = format!("{head}\r\ncontent-length: {}\r\n\r\n", body.len());
        self.stream.write_all(&[request.as_bytes(), body].concat())?;
        self.stream.flush()
    }

    /// Reads until a text came.
    pub fn read_until(&mut self, text: &str) -> io::Result<()> {
        let mut received = String::new();
        let mut piece = [0; 4096];
        while !received.contains(text) {
            match self.stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => received.push_str(&String::from_utf8_lossy(&piece[..read])),
            }
        }
        Ok(())
    }

    /// Waits until the other side ends the connection; how long that took, if it did within the time.
    pub fn ended_within(&mut self, most: Duration) -> Option<Duration> {
        let began = Instant::now();
        self.stream.sock.set_read_timeout(Some(most)).unwrap();
        let mut piece = [0; 4096];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Some(began.elapsed()),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return None;
                }
                Err(_) => return Some(began.elapsed()),
            }
            if began.elapsed() > most {
                return None;
            }
        }
    }
}

/// One request on a connection of its own; an error where the handshake or the connection was refused.
pub fn get(address: SocketAddr, host: &str, path: &str, identity: Option<Identity>) -> io::Result<Answer> {
    Client::connect(address, host, identity)?.ask(&format!("GET {path} HTTP/1.1\r\nhost: {host}"), b"")
}

/// A server with a certificate that answers each request with `first` and then holds the connection; tells when it ended.
pub struct Holding {
    pub port: u16,
    pub events: Receiver<&'static str>,
}

pub fn hold(identity: Identity) -> Holding {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, events) = channel();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(identity.0, identity.1)
        .unwrap();
    let config = Arc::new(config);
    // Ends with the test process at the latest.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), tell, config) = (stream, tell.clone(), Arc::clone(&config)) else { return };
            std::thread::spawn(move || {
                let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
                let mut piece = [0; 4096];
                if !matches!(stream.read(&mut piece), Ok(read) if read > 0) {
                    let _ = tell.send("refused");
                    return;
                }
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nfirst\n");
                let _ = stream.flush();
                let _ = tell.send("asked");
                while matches!(stream.read(&mut piece), Ok(read) if read > 0) {}
                let _ = tell.send("ended");
            });
        }
    });
    Holding { port, events }
}

#[derive(Debug)]
struct TrustAll;

impl ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
