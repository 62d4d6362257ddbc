//! What a login costs: connects a second, one at a time and 32 at once, of the same nats-server without a callout, with a callout
//! that decides nothing, with ours, and with `verify_and_map`; and a burst of 1,000 with two replicas. All in one run, since
//! only the proportions mean anything on a machine that is shared.
//!
//! `cargo test --release --workspace --test callout -- --ignored --nocapture what_a_login_costs`

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::StreamExt;
use nkeys::KeyPair;
use portcullis_tests::nats::operator::token;
use portcullis_tests::nats::pki::Authority;
use portcullis_tests::nats::{NatsServer, folder};
use serde_json::{Value, json};

use crate::rig::{Callout, Rig};

/// One way to log in.
#[derive(Clone)]
struct Way {
    url: String,
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

/// What was measured.
struct Measured {
    name: &'static str,
    serial: f64,
    serial_p50: Duration,
    parallel: f64,
    parallel_p99: Duration,
    failed: usize,
}

impl Way {
    async fn connect(&self) -> Result<(Client, Duration), String> {
        let begin = Instant::now();
        let options = ConnectOptions::new()
            .add_root_certificates(self.ca.clone())
            .add_client_certificate(self.certificate.clone(), self.key.clone())
            .require_tls(true)
            .tls_first()
            .max_reconnects(1);
        let client = options.connect(&self.url).await.map_err(|error| error.to_string())?;
        Ok((client, begin.elapsed()))
    }

    /// So many connects, `width` at a time: a second, the times, and how many failed.
    async fn run(&self, count: usize, width: usize) -> (f64, Vec<Duration>, usize) {
        let (rate, times, failed) = self.told(count, width).await;
        (rate, times, failed.values().sum())
    }

    /// The same, with what the clients say of those that failed.
    async fn told(&self, count: usize, width: usize) -> (f64, Vec<Duration>, BTreeMap<String, usize>) {
        let begin = Instant::now();
        let all = futures::stream::iter((0..count).map(|_| {
            let way = self.clone();
            tokio::spawn(async move { way.connect().await.map(|(_, took)| took) })
        }));
        let ended: Vec<_> = all.buffer_unordered(width).collect().await;
        let elapsed = begin.elapsed();
        let (mut times, mut failed) = (Vec::new(), BTreeMap::new());
        for one in ended {
            match one.unwrap() {
                Ok(took) => times.push(took),
                Err(why) => *failed.entry(why).or_default() += 1,
            }
        }
        times.sort();
        (times.len() as f64 / elapsed.as_secs_f64(), times, failed)
    }

    /// So many hosts that come all at once and come again when they were refused, as hosts do: after one second, then two, four, at
    /// most eight, half of it at random. When the last one was in, and how many attempts there were.
    async fn until_all_are_in(&self, count: usize) -> (Duration, usize) {
        let begin = Instant::now();
        let all = (0..count).map(|n| {
            let way = self.clone();
            tokio::spawn(async move {
                let mut attempts = 1;
                while way.connect().await.is_err() {
                    let most = Duration::from_secs(1 << attempts.min(4)) / 2;
                    // Not random, but as spread as that.
                    let part = (n * 7_919 + attempts * 104_729) % 1_000;
                    tokio::time::sleep(most / 2 + most.mul_f64(part as f64 / 2_000.0)).await;
                    attempts += 1;
                }
                attempts
            })
        });
        let attempts = futures::future::join_all(all).await.into_iter().map(Result::unwrap).sum();
        (begin.elapsed(), attempts)
    }

    async fn measure(&self, name: &'static str) -> Measured {
        self.run(20, 4).await;
        let (serial, serial_times, failed) = self.run(SERIAL, 1).await;
        let (parallel, parallel_times, also_failed) = self.run(PARALLEL, 32).await;
        Measured {
            name,
            serial,
            serial_p50: at(&serial_times, 50),
            parallel,
            parallel_p99: at(&parallel_times, 99),
            failed: failed + also_failed,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: run it by itself, in release"]
async fn what_a_login_costs() {
    let Some(rig) = Rig::start("callout::bench") else { return };
    let way = way(&rig, &rig.server);
    let mut rows = Vec::new();
    // Without a callout, and with verify_and_map: servers of their own, the same TLS.
    let id = "spiffe://td-a.test/host/h1";
    let mapped = format!("accounts {{ APP {{ users: [ {{ user: \"{id}\" }} ] }} }}");
    let Some(plain) = other(&rig, "verify: true", "") else { return };
    let Some(map) = other(&rig, "verify_and_map: true", &mapped) else { return };
    rows.push(at_server(&way, &plain).measure("no callout").await);
    rows.push(at_server(&way, &map).measure("verify_and_map").await);
    let empty = empty_responder(&rig).await;
    rows.push(way.measure("empty responder").await);
    let empty_burst = way.told(1_000, 1_000).await;
    empty.abort();
    tokio::time::sleep(Duration::from_millis(200)).await;
    // Each yes waits for the disk. With the audit log in memory the rest is seen.
    if let Ok(memory) = tempfile::tempdir_in("/dev/shm") {
        let callout = rig.callout_at("memory", memory.path());
        rows.push(way.measure("portcullis, log in memory").await);
        drop(callout);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let one = rig.callout_named("one");
    rows.push(way.measure("portcullis").await);
    let two = rig.callout_named("two");
    // What the same burst is without a callout tells what of it is TLS, the clients and the machine.
    let bare = at_server(&way, &plain).run(1_000, 1_000).await;
    let before = reasons(&rig, &[&one, &two]);
    let (rate, times, told) = way.told(1_000, 1_000).await;
    let failed: usize = told.values().sum();
    let why = reasons(&rig, &[&one, &two]);
    let (all_in, attempts) = way.until_all_are_in(1_000).await;
    println!("| case | 1 at a time | p50 | 32 at once | p99 | failed |\n|---|---|---|---|---|---|");
    for row in &rows {
        println!(
            "| {} | {:.0}/s | {:.1?} | {:.0}/s | {:.1?} | {} |",
            row.name, row.serial, row.serial_p50, row.parallel, row.parallel_p99, row.failed
        );
    }
    let of = |name: &str| rows.iter().find(|row| row.name == name).unwrap();
    let raw = of("empty responder");
    for ours in rows.iter().filter(|row| row.name.starts_with("portcullis")) {
        let (serial, parallel) = (ours.serial / raw.serial, ours.parallel / raw.parallel);
        println!("{} to the empty responder: {serial:.2} one at a time, {parallel:.2} at 32", ours.name);
    }
    println!("a record on the disk takes {:.1?}", disk(&rig));
    println!(
        "burst of 1,000, two replicas: {rate:.0}/s, p50 {:.1?}, p99 {:.1?}, {failed} failed",
        at(&times, 50),
        at(&times, 99)
    );
    println!("the same without a callout: {:.0}/s, p99 {:.1?}, {} failed", bare.0, at(&bare.1, 99), bare.2);
    println!(
        "the same with an empty responder: {:.0}/s, p99 {:.1?}, {:?}",
        empty_burst.0,
        at(&empty_burst.1, 99),
        empty_burst.2
    );
    println!("before: {before}\nafter: {why}\nclients: {told:?}");
    println!("1,000 that come again when they are refused: all in after {all_in:.1?}, {attempts} attempts");
    assert!(rows.iter().all(|row| row.failed == 0), "logins failed");
    drop((one, two));
}

/// Why logins of a burst failed: what the callouts and the server say.
fn reasons(rig: &Rig, callouts: &[&Callout]) -> String {
    let mut text = String::from("callouts:");
    for result in ["allowed", "denied", "rejected", "busy", "late"] {
        let name = format!("portcullis_callout_requests_total{{result=\"{result}\"}}");
        let count: u64 = callouts.iter().map(|callout| callout.metric(&name)).sum();
        text.push_str(&format!(" {result} {count}"));
    }
    let log = rig.server.log().to_lowercase();
    text.push_str("; server:");
    for what in [
        "tls handshake error",
        "tls handshake timeout",
        "authentication timeout",
        "authentication error",
        "slow consumer",
    ] {
        text.push_str(&format!(" {what} {}", log.matches(what).count()));
    }
    text
}

fn way(rig: &Rig, server: &NatsServer) -> Way {
    let (certificate, key) = rig.a.spiffe("spiffe://td-a.test/host/h1").write(&rig.path("tls"), "bench");
    Way { url: server.tls_url(), ca: rig.path("tls/ca.pem"), certificate, key }
}

fn at_server(way: &Way, server: &NatsServer) -> Way {
    Way { url: server.tls_url(), ..way.clone() }
}

/// A server with the same TLS and other logins.
fn other(rig: &Rig, verify: &str, more: &str) -> Option<NatsServer> {
    let folder = folder();
    rig.a.server().write(folder.path(), "server");
    Authority::write(&rig.a, folder.path(), "cas");
    let config = format!(
        "tls {{ cert_file: \"server.pem\", key_file: \"server.key\", ca_file: \"cas.pem\", {verify}, min_version: \"1.3\", timeout: 5, handshake_first: true }}\n{more}"
    );
    NatsServer::start_in("callout::bench", folder, &config)
}

/// A responder that opens, checks nothing, signs what it always signs, and seals.
async fn empty_responder(rig: &Rig) -> tokio::task::JoinHandle<()> {
    let leaf = rig.a.spiffe("spiffe://td-a.test/callout");
    let options = ConnectOptions::with_nkey(rig.keys.callout.seed().unwrap());
    let client = rig.connect_with(&leaf, "_INBOX_callout", options).await.unwrap();
    let mut requests = client.queue_subscribe("$SYS.REQ.USER.AUTH", "callout".to_owned()).await.unwrap();
    client.flush().await.unwrap();
    let (issuer, xkey) = (rig.keys.issuer.seed().unwrap(), rig.keys.xkey.seed());
    tokio::spawn(async move {
        let (issuer, xkey) = (
            std::sync::Arc::new(KeyPair::from_seed(&issuer).unwrap()),
            std::sync::Arc::new(portcullis_identity::XKey::from_seed(&xkey).unwrap()),
        );
        while let Some(message) = requests.next().await {
            let (client, issuer, xkey) = (client.clone(), issuer.clone(), xkey.clone());
            tokio::spawn(async move {
                let header = message.headers.as_ref().unwrap().get("Nats-Server-Xkey").unwrap().as_str().to_owned();
                let peer = header.parse().unwrap();
                let opened = xkey.open(&peer, &message.payload).unwrap();
                let opened = String::from_utf8(opened.to_vec()).unwrap();
                let claims = URL_SAFE_NO_PAD.decode(opened.split('.').nth(1).unwrap()).unwrap();
                let claims: Value = serde_json::from_slice(&claims).unwrap();
                let user = claims["nats"]["user_nkey"].as_str().unwrap();
                let own = issuer.public_key();
                let nats = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": { "allow": ["x"] }, "sub": { "allow": ["x"] } });
                let user_token =
                    token(&issuer, json!({ "iss": own, "sub": user, "aud": "APP", "name": "x", "nats": nats }));
                let nats = json!({ "type": "authorization_response", "version": 2, "jwt": user_token });
                let answer = token(&issuer, json!({ "iss": own, "sub": user, "aud": claims["iss"], "nats": nats }));
                let sealed = xkey.seal(&peer, answer.as_bytes()).unwrap();
                let _ = client.publish(message.reply.unwrap(), sealed.into()).await;
            });
        }
    })
}

/// What the disk alone takes for a line of the audit log, in the middle.
fn disk(rig: &Rig) -> Duration {
    use std::io::Write as _;
    let mut file = std::fs::File::options().append(true).create(true).open(rig.path("disk")).unwrap();
    let mut times: Vec<Duration> = (0..100)
        .map(|_| {
            let begin = Instant::now();
            file.write_all(&[b'x'; 1_000]).and_then(|()| file.sync_data()).unwrap();
            begin.elapsed()
        })
        .collect();
    times.sort();
    at(&times, 50)
}

fn at(times: &[Duration], percent: usize) -> Duration {
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

const SERIAL: usize = 200;
const PARALLEL: usize = 640;
