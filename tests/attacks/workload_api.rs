//! What must not work at the Workload API: processes without an entry, processes that become another one, revoked identities,
//! more connections than anyone needs, and bytes that are no gRPC.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use portcullis_identity::workload_api::pb::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use portcullis_identity::workload_api::pb::{
    JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, WitBundlesRequest, WitsvidRequest, X509BundlesRequest,
    X509svidRequest,
};
use portcullis_tests::host::Host;
use portcullis_tests::patience::{LONG, promised};
use portcullis_tests::{skip, workload};
use spiffe::X509Source;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

#[path = "../workload_client.rs"]
mod workload_client;
#[path = "workload_limits.rs"]
mod workload_limits;

use workload_client::{call, channel};

const OWN: &str = "spiffe://test.example/ns/test/sa/own";

/// How a stream that cannot be had ends, wherever it says so.
async fn end<M, S>(answer: Result<Response<S>, Status>) -> Status
where
    S: Stream<Item = Result<M, Status>> + Unpin,
{
    match answer {
        Ok(stream) => stream.into_inner().next().await.expect("never an end with OK").map(|_| ()).unwrap_err(),
        Err(status) => status,
    }
}

/// How each method ends for this caller.
async fn every_method(client: &mut SpiffeWorkloadApiClient<Channel>) -> [Status; 7] {
    let jwt = JwtsvidRequest { audience: vec!["vault".to_owned()], spiffe_id: String::new() };
    let validate = ValidateJwtsvidRequest { audience: "vault".to_owned(), svid: "a.b.c".to_owned() };
    [
        end(client.fetch_x509svid(call(X509svidRequest {})).await).await,
        end(client.fetch_x509_bundles(call(X509BundlesRequest {})).await).await,
        client.fetch_jwtsvid(call(jwt)).await.map(|_| ()).unwrap_err(),
        end(client.fetch_jwt_bundles(call(JwtBundlesRequest {})).await).await,
        client.validate_jwtsvid(call(validate)).await.map(|_| ()).unwrap_err(),
        end(client.fetch_witsvid(call(WitsvidRequest::default())).await).await,
        end(client.fetch_wit_bundles(call(WitBundlesRequest {})).await).await,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_fits_no_entry_gets_an_answer_and_no_identity() {
    let me = std::env::current_exe().unwrap().canonicalize().unwrap();
    let uid = workload::uid_of_tests();
    let entry = |name: &str, uid: u32, more: &str| {
        format!(
            "[[workload]]\nname = \"{name}\"\nspiffe_path = \"/{name}\"\nuid = {uid}\n{more}\naudiences = [\"vault\"]\n\n"
        )
    };
    let path = format!("executable = \"{}\"", me.display());
    let entries = [
        entry("other-user", uid + 1, &path),
        entry("other-group", uid, &format!("{path}\ngid = 54321")),
        entry("other-path", uid, "executable = \"/bin/sh\""),
        entry("other-digest", uid, &format!("sha256 = \"{}\"", workload::sha256(Path::new("/bin/sh")))),
        entry("path-and-other-digest", uid, &format!("{path}\nsha256 = \"{}\"", "0".repeat(64))),
    ];
    let host = workload::host(&entries.concat());
    for _ in 0..5 {
        let mut client = SpiffeWorkloadApiClient::new(channel(&workload::socket(&host)).await);
        for status in every_method(&mut client).await {
            assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "no identity issued"), "{status}");
        }
    }
    let record = host.record(&[("kind", "denial"), ("code", "workload.no-entry")]);
    let text = record["text"].as_str().unwrap();
    for part in ["other-group", "other-path", "other-digest", "runs as gid", "another executable", "SHA-256"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("other-user"), "{text}");
    assert_eq!(record["entry"]["uid"], uid);
    assert_eq!(record["entry"]["executable"], me.display().to_string());
    assert_eq!(record["entry"]["sha256"].as_str().unwrap(), workload::sha256(&me));
    let audit = host.audit();
    assert_eq!(audit.iter().filter(|record| record["code"] == "workload.no-entry").count(), 1, "one record for many");
    assert!(!audit.iter().any(|record| record["kind"] == "issuance"));
}

/// Python that connects to the socket and then goes on as `then` says; `s` is the socket.
fn python(host: &Host, then: &str) -> Option<Child> {
    let script = format!(
        "import os, socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect({:?})\ns.sendall(b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n' + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))\nassert s.recv(9)\n{then}",
        workload::socket(host).display().to_string()
    );
    Command::new(interpreter()?).args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()
}

fn interpreter() -> Option<std::path::PathBuf> {
    let output =
        Command::new("python3").args(["-c", "import os, sys; print(os.path.realpath(sys.executable))"]).output();
    output
        .ok()
        .filter(|output| output.status.success())
        .map(|output| String::from_utf8(output.stdout).unwrap().trim().into())
}

#[test]
fn a_connection_is_cut_when_its_process_becomes_another_or_ends() {
    let test = "a_connection_is_cut_when_its_process_becomes_another_or_ends";
    let Some(interpreter) = interpreter() else { return skip(test, "there is no python3", false) };
    let host = workload::host(&workload::entry("py", &interpreter, ""));
    let becomes = "os.set_inheritable(s.fileno(), True)\nprint('connected', flush=True)\nsys.stdin.readline()\n\
        os.execv('/bin/sh', ['sh', '-c', f'cat <&{s.fileno()} >/dev/null; echo cut; cat'])";
    let ends = "print('connected', flush=True)\nsys.stdin.readline()\n\
        if os.fork() == 0:\n    while s.recv(4096): pass\n    print('cut', flush=True)\n    os._exit(0)\nos._exit(0)";
    let stays = "print('connected', flush=True)\nsys.stdin.readline()\ns.settimeout(2)\n\
        try:\n    while s.recv(4096): pass\n    print('cut', flush=True)\nexcept TimeoutError: print('open', flush=True)";
    for (what, then, wanted) in [("becomes", becomes, "cut"), ("ends", ends, "cut"), ("stays", stays, "open")] {
        let mut child = python(&host, then).unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "connected", "{what}");
        let started = Instant::now();
        child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), wanted, "{what}\n{}", host.log());
        assert!(
            wanted == "open" || started.elapsed() < promised(Duration::from_secs(5)),
            "{what}: {:?}",
            started.elapsed()
        );
        drop(child.stdin.take());
        let _ = child.kill();
        let _ = child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_identity_ends_its_streams_at_once_and_stays_revoked_over_a_restart() {
    let host = workload::host(&workload::own_entry("own", "audiences = [\"vault\"]"));
    let mut client = SpiffeWorkloadApiClient::new(channel(&workload::socket(&host)).await);
    let mut svids = client.fetch_x509svid(call(X509svidRequest {})).await.unwrap().into_inner();
    let mut bundles = client.fetch_x509_bundles(call(X509BundlesRequest {})).await.unwrap().into_inner();
    svids.next().await.unwrap().unwrap();
    bundles.next().await.unwrap().unwrap();
    host.run(["identity", "revoke", OWN]).ok();
    let started = Instant::now();
    for status in [svids.next().await.unwrap().map(|_| ()), bundles.next().await.unwrap().map(|_| ())] {
        let status = status.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "no identity issued"), "{status}");
    }
    assert!(started.elapsed() < promised(Duration::from_secs(5)), "{:?}", started.elapsed());
    for status in &every_method(&mut client).await[..5] {
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    }
    let before = host.pid("identity").unwrap();
    Host::signal(before, "KILL");
    let until = Instant::now() + LONG;
    while host.pid("identity").is_none_or(|pid| pid == before) && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut client = SpiffeWorkloadApiClient::new(channel(&workload::socket(&host)).await);
    for status in &every_method(&mut client).await[..5] {
        assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "no identity issued"), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_outlives_the_identity_process() {
    let host = workload::host(&workload::own_entry("own", ""));
    let source = X509Source::builder().endpoint(workload::endpoint(&host)).build().await.unwrap();
    let mut updates = source.updated();
    let first = source.svid().unwrap().leaf().as_bytes().to_vec();
    Host::signal(host.pid("identity").unwrap(), "KILL");
    tokio::time::timeout(LONG, updates.changed()).await.expect("an update").unwrap();
    assert_ne!(source.svid().unwrap().leaf().as_bytes(), first, "keys live in the process and end with it");
    assert!(source.is_healthy());
}

#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_a_user_may_have_are_told_to_try_later() {
    // host/src/limits.rs: WORKLOAD_CONNECTIONS_EACH.
    const EACH: usize = 64;
    let host = workload::host(&workload::own_entry("own", ""));
    let mut clients = Vec::new();
    for _ in 0..EACH {
        let mut client = SpiffeWorkloadApiClient::new(channel(&workload::socket(&host)).await);
        let mut stream = client.fetch_x509_bundles(call(X509BundlesRequest {})).await.unwrap().into_inner();
        stream.next().await.unwrap().unwrap();
        clients.push((client, stream));
    }
    let mut over = SpiffeWorkloadApiClient::new(channel(&workload::socket(&host)).await);
    let status = end(over.fetch_x509_bundles(call(X509BundlesRequest {})).await).await;
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    drop((clients, over));
    let until = Instant::now() + LONG;
    loop {
        let mut client = SpiffeWorkloadApiClient::new(channel(&workload::socket(&host)).await);
        let mut stream = client.fetch_x509_bundles(call(X509BundlesRequest {})).await.unwrap().into_inner();
        if stream.next().await.unwrap().is_ok() {
            break;
        }
        assert!(Instant::now() < until, "places are not given back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A HEADERS frame of a call, with plain literals and literal names, as gRPC C-core sends them.
fn request(authority: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [
        (":scheme", "http"),
        (":method", "POST"),
        (":authority", authority),
        (":path", "/SpiffeWorkloadAPI/FetchX509Bundles"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("workload.spiffe.io", "true"),
    ] {
        block.extend([0x40, u8::try_from(name.len()).unwrap()]);
        block.extend(name.as_bytes());
        block.push(u8::try_from(value.len()).unwrap());
        block.extend(value.as_bytes());
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    bytes.extend(&u32::try_from(block.len()).unwrap().to_be_bytes()[1..]);
    bytes.extend([1, 4, 0, 0, 0, 1]);
    bytes.extend(block);
    // DATA with an empty message, and the end of the stream.
    bytes.extend([0, 0, 5, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
    bytes
}

/// The kinds of the frames on stream 1 until DATA or a reset.
fn answer(host: &Host, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(workload::socket(host)).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut kinds = Vec::new();
    let mut head = [0; 9];
    while stream.read_exact(&mut head).is_ok() {
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap()];
        stream.read_exact(&mut payload).unwrap();
        if head[8] == 1 || head[3] == 7 {
            kinds.push(head[3]);
        }
        if [0, 3, 7].contains(&head[3]) {
            break;
        }
    }
    kinds
}

#[test]
fn paths_in_the_authority_are_no_reason_to_refuse_a_call_and_broken_bytes_are() {
    let host = workload::host(&workload::own_entry("own", ""));
    for authority in
        ["tmp%2Fdir%2Fapi.sock", "/run/portcullis/api.sock", "unix:/run/a b.sock", "localhost", "[::1]:80", "a@b"]
    {
        assert_eq!(answer(&host, &request(authority)), [1, 0], "{authority}: HEADERS, then the bundles");
    }
    let good = request("localhost");
    for (what, bytes) in [
        ("HTTP/1.1", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("a frame larger than agreed", [&good[..24], &[255, 255, 255, 1, 4, 0, 0, 0, 1]].concat()),
        ("an index that is not there", [&good[..33], &[0, 0, 1, 1, 5, 0, 0, 0, 1, 0xff]].concat()),
        ("a continuation of nothing", [&good[..33], &[0, 0, 1, 9, 4, 0, 0, 0, 1, 0x82]].concat()),
    ] {
        let mut stream = UnixStream::connect(workload::socket(&host)).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(&bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap_or_else(|error| panic!("{what}: the connection stays open: {error}"));
    }
    for cut in (0..good.len()).step_by(7) {
        let mut stream = UnixStream::connect(workload::socket(&host)).unwrap();
        stream.write_all(&good[..cut]).unwrap();
    }
    assert_eq!(answer(&host, &good), [1, 0], "others are served as before");
    assert!(!host.log().contains("panicked"), "{}", host.log());
}
