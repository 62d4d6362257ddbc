//! WORKLOAD_CONNECTIONS: the places at the Workload API that all users share. Users of this machine who take all of them cut nobody off
//! who is connected; whoever comes waits, and has a place when they have lost theirs.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use portcullis_identity::workload_api::pb::X509BundlesRequest;
use portcullis_identity::workload_api::pb::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use portcullis_tests::patience::{LONG, ROUNDS};
use portcullis_tests::{skip, workload};
use tokio_stream::StreamExt as _;

use crate::workload_client::{call, channel};

/// Each of them may have 64 connections, and as many again to be told to come later: together more than the 512 places.
const USERS: std::ops::Range<u32> = 61_001..61_007;
const EACH: usize = 100;

/// Processes of those users, each with its connections, on which it says nothing. They end when this is dropped.
struct Crowd(Vec<Child>);

impl Crowd {
    fn gather(socket: &Path) -> Self {
        let script = "import socket, sys\nheld = []\nfor n in range(int(sys.argv[2])):\n    s = socket.socket(socket.AF_UNIX)\n    \
                      s.connect(sys.argv[1])\n    held.append(s)\nprint('held', flush=True)\nsys.stdin.read()";
        let mut crowd = Self(Vec::new());
        for uid in USERS {
            let mut python = Command::new("setpriv");
            python.args([format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".to_owned()]);
            python.args(["/usr/bin/python3", "-c", script]).arg(socket).arg(EACH.to_string()).current_dir("/");
            python.stdin(Stdio::piped()).stdout(Stdio::piped());
            crowd.0.push(python.spawn().unwrap());
        }
        // The last ones wait with their connecting where the queue is full: that is as good.
        if let Some(first) = crowd.0.first_mut() {
            let mut line = String::new();
            BufReader::new(first.stdout.take().unwrap()).read_line(&mut line).unwrap();
            assert_eq!(line.trim(), "held");
        }
        crowd
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// How long a new client waits until the server begins to speak.
fn waits(socket: &Path) -> Duration {
    let began = Instant::now();
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    stream.read_exact(&mut [0; 9]).unwrap_or_else(|error| panic!("it never gets a place: {error}"));
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_when_all_places_are_taken_waits_and_nobody_who_has_one_loses_it() {
    const TEST: &str = "whoever_comes_when_all_places_are_taken_waits_and_nobody_who_has_one_loses_it";
    let may = Command::new("setpriv").args(["--reuid=61001", "--clear-groups", "/usr/bin/python3", "-V"]).output();
    if !may.is_ok_and(|done| done.status.success()) {
        return skip(
            TEST,
            "only root can become other users, by setpriv of util-linux, and there must be a python3",
            true,
        );
    }
    let host = workload::host(&workload::own_entry("own", "audiences = [\"vault\"]"));
    let socket = workload::socket(&host);
    for (path, mode) in [(host.site().path(), 0o711), (&socket, 0o666)] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
    let mut client = SpiffeWorkloadApiClient::new(channel(&socket).await);
    let mut before = client.fetch_x509_bundles(call(X509BundlesRequest {})).await.unwrap().into_inner();
    before.next().await.unwrap().unwrap();
    for round in 0..ROUNDS {
        let crowd = Crowd::gather(&socket);
        // Whoever is connected is served as before.
        let mut again = client.fetch_x509_bundles(call(X509BundlesRequest {})).await.unwrap().into_inner();
        again.next().await.unwrap().unwrap();
        let waited = tokio::task::spawn_blocking({
            let socket = socket.clone();
            move || waits(&socket)
        });
        let waited = waited.await.unwrap();
        drop(crowd);
        // Strangers are sent away after ten seconds: then there is room. Where this machine is busy, the first may be gone before the
        // last has come, so that the places were never all taken.
        if waited > Duration::from_secs(2) {
            host.run(["identity", "rotate", "--x509"]).ok();
            let changed = tokio::time::timeout(LONG, before.next()).await.expect("the stream of before is there");
            return drop(changed.unwrap().unwrap());
        }
        assert!(round + 1 < ROUNDS, "a place was free for more than there are: {waited:?}\n{}", host.log());
    }
}
