//! The control socket serves the host's own user and root, also where its files would let others in.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use hyper_util::rt::TokioIo;
use portcullis_tests::host::Host;
use portcullis_tests::site::{Site, ended};
use tonic::transport::Endpoint;

fn open_to_all(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

// gate: Status, Start, Stop, ReloadPolicy, AuditMode, Explain, Bundle
// gate: IdentityShow, IdentityRotate, IdentityTaint, IdentityRevoke
#[test]
fn another_user_is_served_by_no_command_even_where_the_files_are_open_to_all() {
    const TEST: &str = "another_user_is_served_by_no_command_even_where_the_files_are_open_to_all";
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let may = Command::new("setpriv").args(nobody).arg("true").output();
    if !may.is_ok_and(|done| done.status.success()) {
        return portcullis_tests::skip(TEST, "only root can become another user, by setpriv of util-linux", true);
    }
    let mut site = Site::new();
    site.guest("hello", "");
    site.policy("audit_mode = [\"test:hello\"]\n");
    let host = Host::ready(site);
    let before = host.run(["list"]).ok().json();
    let folder = host.site().path().to_owned();
    let program = folder.join("portcullis");
    std::fs::copy(portcullis_tests::binary(), &program).unwrap();
    let socket = folder.join("state/run/control.sock");
    for open in [folder.clone(), folder.join("state"), folder.join("state/run"), program.clone()] {
        open_to_all(&open, 0o755);
    }
    open_to_all(&socket, 0o777);
    let component = folder.join("hello.wasm");
    let commands: &[&[&str]] = &[
        &["status"],
        &["list"],
        &["start", component.to_str().unwrap()],
        &["stop", "test:hello"],
        &["reload"],
        &["policy", "audit", "test:hello", "--for", "1h"],
        &["policy", "explain", "01JZZZZZZZZZZZZZZZZZZZZZZZ"],
        &["identity", "bundle"],
        &["identity", "show"],
        &["identity", "rotate"],
        &["identity", "taint", "nobody"],
        &["identity", "revoke", "spiffe://test.example/ns/test/sa/hello"],
    ];
    for command in commands {
        let mut other = Command::new("setpriv");
        other.current_dir(&folder).args(nobody).arg(&program).args(*command).arg("--socket").arg(&socket);
        let refused = ended(other.output().unwrap());
        assert_eq!(refused.exit, 18, "{command:?}: {}{}", refused.out, refused.err);
    }
    assert_eq!(host.run(["list"]).ok().json(), before);
    assert!(host.log().contains("somebody else tried the control socket"), "{}", host.log());
    assert_eq!(host.ask_status(0)["audited"], serde_json::json!([]));
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScanChunk {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
    #[prost(bool, tag = "2")]
    continues: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScanReply {
    #[prost(uint64, tag = "1")]
    hits: u64,
    #[prost(uint64, tag = "2")]
    scanned: u64,
}

/// Asks the host whether one of its private keys is in these bytes, as only the demo does.
async fn scan(socket: PathBuf, data: Vec<u8>) -> Result<ScanReply, tonic::Status> {
    let connect = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connect);
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let path = http::uri::PathAndQuery::from_static("/portcullis.control.v1.Control/ScanForKeys");
    let codec = tonic_prost::ProstCodec::<ScanChunk, ScanReply>::default();
    let chunks = tokio_stream::iter([ScanChunk { data, continues: false }]);
    client.client_streaming(tonic::Request::new(chunks), path, codec).await.map(tonic::Response::into_inner)
}

/// The one command that no subcommand of its own sends.
// gate: ScanForKeys
#[test]
fn a_scan_for_keys_is_not_done_for_another_user_and_says_a_number_at_most() {
    const TEST: &str = "a_scan_for_keys_is_not_done_for_another_user_and_says_a_number_at_most";
    const SOCKET: &str = "PORTCULLIS_TEST_SOCKET";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if let Some(socket) = std::env::var_os(SOCKET) {
        // This test once more, as another user.
        let answered = runtime.block_on(scan(socket.into(), vec![0; 64]));
        return assert!(answered.is_err(), "served: {answered:?}");
    }
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let may = Command::new("setpriv").args(nobody).arg("true").output();
    if !may.is_ok_and(|done| done.status.success()) {
        return portcullis_tests::skip(TEST, "only root can become another user, by setpriv of util-linux", true);
    }
    let mut site = Site::new();
    site.guest("hello", "");
    let host = Host::ready(site);
    let folder = host.site().path().to_owned();
    let socket = folder.join("state/run/control.sock");
    let own = runtime.block_on(scan(socket.clone(), vec![7; 100_000])).unwrap();
    assert_eq!((own.hits, own.scanned), (0, 100_000), "its own user is served");
    let program = folder.join("this-test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    for open in [folder.clone(), folder.join("state"), folder.join("state/run"), program.clone()] {
        open_to_all(&open, 0o755);
    }
    open_to_all(&socket, 0o777);
    let mut other = Command::new("setpriv");
    other.current_dir("/").args(nobody).arg(&program).args(["--exact", TEST, "--nocapture"]).env(SOCKET, &socket);
    let refused = ended(other.output().unwrap());
    assert_eq!(refused.exit, 0, "{}{}", refused.out, refused.err);
    assert!(refused.out.contains("1 passed"), "{}{}", refused.out, refused.err);
    assert!(host.log().contains("somebody else tried the control socket"), "{}", host.log());
}
