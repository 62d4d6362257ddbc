//! The endpoints that everybody may ask: floods, slow clients, malformed requests, and the death of the process behind them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use portcullis_tests::host::Host;
use portcullis_tests::http;
use portcullis_tests::patience::until;
use portcullis_tests::site::Site;
use portcullis_tests::web_pki::WebPki;

/// As `ENDPOINT_CONNECTIONS` of the host.
const CONNECTIONS: usize = 128;
/// As `ENDPOINT_HEAD` of the host.
const HEAD: Duration = Duration::from_secs(10);
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// A host that serves its OIDC documents without TLS, for a proxy on this machine.
fn host() -> Host {
    let mut site = Site::new();
    site.config("[oidc]\nissuer = \"https://identity.example.org\"\nlisten = \"127.0.0.1:0\"\n\n");
    Host::ready(site)
}

fn endpoint(host: &Host, name: &str) -> SocketAddr {
    let status = host.ask_status(0);
    let address = status["listening"][name].as_str().unwrap_or_else(|| panic!("{name} is not in {status:#}"));
    address.parse().unwrap()
}

#[test]
fn what_is_no_get_of_a_document_is_refused() {
    let host = host();
    let address = endpoint(&host, "oidc");
    let answered = http::get(address, DISCOVERY, &[]);
    assert_eq!((answered.status, answered.json()["issuer"].as_str()), (200, Some("https://identity.example.org")));
    assert_eq!(answered.header("x-content-type-options"), Some("nosniff"));
    let long = format!("GET /keys HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(32 << 10));
    for (request, statuses) in [
        ("POST /keys HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}", &[405][..]),
        ("PUT /keys HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", &[405]),
        ("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", &[404]),
        ("GET /keys/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", &[404]),
        ("GET /../keys HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", &[404]),
        ("GET /%6beys HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", &[404]),
        ("GET //keys HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", &[404]),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0, 400, 404, 405, 505]),
        ("\x16\x03\x01\x02\x00\x01", &[0, 400]),
        (&long, &[400, 431]),
    ] {
        let status = http::raw(address, request.as_bytes()).status;
        assert!(statuses.contains(&status), "{:?}: {status}", request.get(..40.min(request.len())));
    }
    assert_eq!(http::get(address, "/keys?x=1", &[]).status, 200);
}

#[test]
fn a_flood_of_silent_clients_is_let_go_and_others_are_served_then() {
    let host = host();
    let address = endpoint(&host, "oidc");
    let begun = Instant::now();
    let mut silent: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| {
            let mut stream = http::connect(address);
            stream.write_all(b"GET /keys HTTP/1.1\r\n").unwrap();
            stream
        })
        .collect();
    // One more waits in the queue until there is room: the silent ones are sent away.
    let answered = http::get(address, "/keys", &[]);
    assert_eq!(answered.status, 200);
    assert!(begun.elapsed() >= HEAD - Duration::from_secs(2), "served after {:?}: there was no limit", begun.elapsed());
    for stream in &mut silent {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"HTTP/1.1 200"));
    }
}

#[test]
fn endpoints_come_back_with_the_process_behind_them() {
    let pki = WebPki::new();
    let mut site = Site::new();
    site.config(&format!(
        "[federation.https_web]\nlisten = \"127.0.0.1:0\"\ncertificate = \"{}\"\nkey = \"{}\"\n\n[federation.https_spiffe]\nlisten = \"127.0.0.1:0\"\n\n\
         [oidc]\nissuer = \"https://identity.example.org\"\nlisten = \"127.0.0.1:0\"\n\n",
        pki.certificate().display(),
        pki.key().display()
    ));
    let host = Host::ready(site);
    let (oidc, web) = (endpoint(&host, "oidc"), endpoint(&host, "bundle-web"));
    let before = http::get(oidc, "/keys", &[]).text();
    let pid = host.pid("identity").unwrap();
    Host::signal(pid, "KILL");
    // The socket is the supervisor's: whoever comes meanwhile waits, and is answered by the next process.
    let answered = http::get(oidc, "/keys", &[]);
    assert_eq!((answered.status, answered.text()), (200, before), "{}", host.log());
    assert_ne!(host.pid("identity"), Some(pid));
    let curl = std::process::Command::new("curl")
        .args(["-sS", "--max-time", "90", "--cacert"])
        .arg(pki.ca())
        .arg(format!("https://localhost:{}/", web.port()))
        .output()
        .unwrap();
    assert!(curl.status.success(), "{}", String::from_utf8_lossy(&curl.stderr));
}

#[test]
fn a_key_that_others_can_read_is_not_used() {
    let pki = WebPki::new();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(pki.key(), mode).unwrap();
    let mut site = Site::new();
    site.config(&format!(
        "[federation.https_web]\nlisten = \"127.0.0.1:0\"\ncertificate = \"{}\"\nkey = \"{}\"\n\n",
        pki.certificate().display(),
        pki.key().display()
    ));
    let host = Host::ready(site);
    let url = format!("https://localhost:{}/", endpoint(&host, "bundle-web").port());
    let ask = || {
        std::process::Command::new("curl")
            .args(["-sS", "--max-time", "60", "--cacert"])
            .arg(pki.ca())
            .arg(&url)
            .output()
            .unwrap()
    };
    assert!(!ask().status.success());
    until("it says why", || host.log().contains("others can read it"), || host.log());
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(pki.key(), mode).unwrap();
    pki.renew();
    until("the right one is used", || ask().status.success(), || host.log());
}
