//! What the identity process costs, measured through its own gRPC services with every record flushed to the disk:
//! `cargo test --release --workspace --bins -- --ignored --nocapture bench_of_the_identity_process`. Prints one JSON object.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use portcullis_identity::rpc::workloads_client::WorkloadsClient;
use portcullis_identity::rpc::workloads_server::WorkloadsServer;
use portcullis_identity::rpc::{
    FetchX509SvidRequest, MintJwtSvidRequest, RotateRequest, WatchBundleRequest, fetch_x509_svid_reply,
    mint_jwt_svid_reply,
};
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::rig::Rig;
use super::workloads::ForRuntime;

const EVERY_SVID: RotateRequest = RotateRequest { x509: false, jwt: false, wit: false, svids: true };

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: run it alone, in a release build"]
async fn bench_of_the_identity_process() {
    let tokens = tokens().await;
    let thousand = identities(1_000).await;
    let ten_thousand = identities(10_000).await;
    let push = push(1_000).await;
    let result = json!({
        "debug_build": cfg!(debug_assertions),
        "jwt": tokens, "identities_1000": thousand, "identities_10000": ten_thousand, "push_1000_streams": push,
    });
    println!("{result:#}");
}

async fn client(rig: &Rig) -> WorkloadsClient<Channel> {
    let (ours, theirs) = crate::rpc::pair().unwrap();
    let service = WorkloadsServer::new(ForRuntime(Arc::clone(&rig.keeper)));
    tokio::spawn(crate::rpc::serve(theirs, tonic::service::Routes::new(service)));
    WorkloadsClient::new(crate::rpc::client(ours).await.unwrap())
}

/// A JWT-SVID over the runtime's connection: minted and recorded, and from the issuer's cache. Each from an instance of its own,
/// so that no allowance is used up.
async fn tokens() -> Value {
    let rig = Rig::new().await;
    let mut client = client(&rig).await;
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for n in 0..500 {
        let instance = format!("i{n}");
        assert!(rig.admit(&instance).is_ok());
        for times in [&mut cold, &mut warm] {
            let audiences = vec!["vault".to_owned()];
            let request = MintJwtSvidRequest { instance: instance.clone(), audiences, ttl_seconds: None };
            let began = Instant::now();
            let reply = client.mint_jwt_svid(request).await.unwrap().into_inner();
            times.push(began.elapsed());
            assert!(matches!(reply.result, Some(mint_jwt_svid_reply::Result::Ok(_))));
        }
    }
    json!({ "minted_and_recorded_us": microseconds(cold), "cached_by_the_issuer_us": microseconds(warm) })
}

/// Memory for each instance with an X.509-SVID, and the time to issue all of them anew.
async fn identities(count: u64) -> Value {
    let rig = Rig::new().await;
    let before = resident();
    for n in 0..count {
        assert!(rig.admit(&format!("i{n}")).is_ok());
    }
    let admitted = resident();
    let began = Instant::now();
    for n in 0..count {
        let request = FetchX509SvidRequest { instance: format!("i{n}") };
        assert!(rig.keeper.current_x509(request).await.is_ok());
    }
    let first = began.elapsed();
    let held = resident();
    let mut rotations = Vec::new();
    for _ in 0..3 {
        let began = Instant::now();
        let report = rig.keeper.rotate(EVERY_SVID).await.ok().unwrap();
        rotations.push(began.elapsed());
        assert_eq!((report.x509_svids, report.x509_failed), (count, 0));
    }
    rotations.sort_unstable();
    json!({
        "bytes_per_identity_admitted": admitted.saturating_sub(before) / count,
        "bytes_per_identity_with_x509_svid": held.saturating_sub(before) / count,
        "first_svids_one_record_each_ms": milliseconds(first),
        "rotate_all_ms_median": milliseconds(rotations[1]), "rotate_all_ms_worst": milliseconds(rotations[2]),
    })
}

/// From a rotation that is in force to the last of the streams that has heard of it, each stream on a connection of its own.
async fn push(streams: usize) -> Value {
    let rig = Rig::new().await;
    assert!(rig.admit("one").is_ok());
    let mut first = client(&rig).await;
    let fetched =
        first.fetch_x509_svid(FetchX509SvidRequest { instance: "one".to_owned() }).await.unwrap().into_inner();
    assert!(matches!(fetched.result, Some(fetch_x509_svid_reply::Result::Ok(_))));
    let (told, mut tasks) = (Arc::new(AtomicUsize::new(0)), Vec::new());
    for _ in 0..streams {
        let mut updates = client(&rig).await.watch_bundle(WatchBundleRequest {}).await.unwrap().into_inner();
        updates.message().await.unwrap().unwrap();
        let told = Arc::clone(&told);
        tasks.push(tokio::spawn(async move {
            let mut times = Vec::new();
            while let Ok(Some(update)) = updates.message().await {
                times.push((update.svid_epoch, Instant::now()));
                told.fetch_add(1, Ordering::AcqRel);
                if times.len() == ROUNDS {
                    break;
                }
            }
            times
        }));
    }
    let mut published = Vec::new();
    for round in 1..=ROUNDS {
        // The moment when it is in force, seen in this process.
        let mut states = rig.keeper.published();
        states.mark_unchanged();
        let watcher = tokio::spawn(async move {
            states.changed().await.unwrap();
            Instant::now()
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(rig.keeper.rotate(EVERY_SVID).await.is_ok());
        published.push((rig.keeper.now_published().svid_epoch, watcher.await.unwrap()));
        while told.load(Ordering::Acquire) < round * streams {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let mut waits = Vec::new();
    for task in tasks {
        for (epoch, at) in task.await.unwrap() {
            let (_, began) = published.iter().find(|(known, _)| *known == epoch).unwrap();
            waits.push(at.saturating_duration_since(*began));
        }
    }
    json!({ "streams": streams, "rounds": ROUNDS, "latency_us": microseconds(waits) })
}

fn microseconds(mut times: Vec<Duration>) -> Value {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e6;
    json!({ "p50": at(50).round(), "p99": at(99).round(), "max": at(100).round(), "n": times.len() })
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

const ROUNDS: usize = 5;
