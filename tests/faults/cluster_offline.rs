//! A host that starts while NATS is away: it starts what it ran, by the signed values on its disk, and nothing else; and a host that
//! lost NATS is ready still.

use portcullis_tests::cluster::alone::Alone;
use portcullis_tests::cluster::{Lattice, Plan};
use portcullis_tests::host::Host;
use portcullis_tests::http;
use portcullis_tests::nats::pki;
use portcullis_tests::patience::LONG;
use serde_json::{Value, json};

const HELLO: &str = "values/desired.app.test.hello.json";

fn serves(lattice: &Lattice) -> bool {
    http::get(lattice.hosts["h1"].http(), "/hello", &[]).status == 200
}

/// The same, and that the host is never ready before: requests would come.
fn serves_once_ready(lattice: &Lattice) -> bool {
    let status = lattice.hosts["h1"].ask_status(0);
    let serves = serves(lattice);
    assert!(serves || status["ready"] != true, "it is ready and serves nothing: {status:#}\n{}", lattice.logs());
    serves
}

/// The server's configuration, as it was given.
fn server_config(lattice: &Lattice) -> String {
    let text = std::fs::read_to_string(lattice.server.folder().join("server.conf")).unwrap();
    text.split_once('\n').unwrap().1.to_owned()
}

fn admissions(host: &Host) -> usize {
    host.audit().iter().filter(|record| record["kind"] == "admission").count()
}

#[test]
fn a_host_that_restarts_without_nats_serves_what_it_ran_and_says_so() {
    let Some(mut lattice) = Lattice::start("offline", &Plan::of(1)) else { return };
    lattice.deploy(1, "").ok();
    lattice.wait("it runs", |lattice| lattice.answering() == ["h1"]);
    lattice.wait("it is kept that it does", |lattice| {
        let ran = std::fs::read_to_string(lattice.hosts["h1"].site().file("state/cluster/ran.json"));
        ran.is_ok_and(|ran| ran.contains("test:hello"))
    });
    // Cut off it is ready, and warns: requests are answered here as well as elsewhere.
    lattice.server.kill();
    lattice.wait("it warns", |lattice| {
        let status = lattice.hosts["h1"].ask_status(0);
        assert_eq!(status["ready"], true, "{status:#}");
        status["warnings"].to_string().contains("nats: ")
    });
    // Whom it believes is read again while nobody speaks: a broken file shows, and the mended one counts.
    let folder = lattice.hosts["h1"].site().path().to_owned();
    let bundles = std::fs::read_to_string(folder.join("hosts.json")).unwrap();
    let says = |lattice: &Lattice| lattice.hosts["h1"].ask_status(0)["problems"].to_string();
    pki::replace(&folder, "hosts.json", "{");
    lattice.wait("it names the broken file", |lattice| says(lattice).contains("cluster.trust"));
    pki::replace(&folder, "hosts.json", &bundles);
    lattice.wait("it reads the mended one", |lattice| says(lattice) == "[]");
    // It crashes, and starts without NATS. Until what it ran is started it is not ready.
    let site = lattice.hosts.remove("h1").unwrap().killed();
    let host = Host::start(site);
    lattice.hosts.insert("h1".to_owned(), host);
    let took = lattice.wait("what it ran is served", serves_once_ready);
    eprintln!("served {took:?} after the start without NATS");
    let status = lattice.hosts["h1"].ask_status(LONG.as_secs());
    assert_eq!(status["ready"], true, "{status:#}");
    assert!(status["warnings"].to_string().contains("nats: "), "{status:#}");
    let before = admissions(&lattice.hosts["h1"]);
    // NATS is there again: it goes on, without another start.
    lattice.server.restart();
    lattice.exchange_bundles();
    lattice.wait("it is of the cluster again", |lattice| lattice.running("test:hello") == ["h1"]);
    lattice.wait("it warns of nothing", |lattice| lattice.hosts["h1"].ask_status(0)["warnings"] == json!([]));
    assert!(serves(&lattice));
    assert_eq!(admissions(&lattice.hosts["h1"]), before, "the one that ran goes on");
    // Undeployed, it is not started again.
    lattice.cli(["cluster", "undeploy", "test:hello", "--operator", "operator.toml"]).ok();
    lattice.wait("it stops", |lattice| lattice.answering().is_empty());
    lattice.wait("that is kept", |lattice| {
        !std::fs::read_to_string(lattice.hosts["h1"].site().file("state/cluster/ran.json")).unwrap().contains("hello")
    });
    assert!(!lattice.hosts["h1"].site().file("state/cluster").join(HELLO).exists());
}

#[test]
fn nothing_is_started_from_a_disk_that_does_not_hold_what_was_believed() {
    let Some(lattice) = Lattice::start("offline attacks", &Plan::of(1)) else { return };
    let mut alone = Alone { lattice };
    alone
        .lattice
        .cli(["cluster", "revoke", "--instance", "01jd3z8y6e5t4r3w2q1a0s9d8f", "--operator", "operator.toml"])
        .ok();
    alone.lattice.deploy(1, "").ok();
    alone.lattice.wait("it runs", |lattice| lattice.answering() == ["h1"]);
    let first = alone.read(HELLO);
    alone.lattice.deploy(1, "# another one\n").ok();
    alone.lattice.wait("the second one is kept", |_| alone.read(HELLO) != first);
    alone.lattice.wait("what ran is kept", |_| alone.kept("ran.json").is_file());
    let marks = alone.read("seen.json");
    alone.lattice.server.kill();

    // A lower version, as it was signed: the mark is not lowered by it.
    alone.refuses(HELLO, &first, "cluster.rolled-back");
    assert_eq!(alone.read("seen.json"), marks);
    // One that was changed, and one that is none.
    let mut changed: Value = serde_json::from_str(&alone.read(HELLO)).unwrap();
    changed["payload"] = serde_json::from_str::<Value>(&first).unwrap()["payload"].clone();
    alone.refuses(HELLO, &changed.to_string(), "statement.payload");
    alone.refuses(HELLO, "{", "statement.malformed");
    // Marks that cannot be read, or that are gone, are not a fresh start.
    alone.stops_at("seen.json", |text| text.truncate(text.len() / 2), "cluster.state");
    alone.stops_at("revoked.json", |text| text.push('x'), "cluster.state");
    // One that reads well and is higher than any that was signed proves nothing.
    alone.stops_at("revoked.json", |text| *text = r#"{"format":1,"epoch":9}"#.to_owned(), "cluster.unproven");
    // The list of revocations must be the one that was signed, too.
    alone.stops_at("values/revoked.list.json", |text| *text = "{}".to_owned(), "statement.malformed");
    // Too long ago.
    let old = json!({ "confirmed_at": time::OffsetDateTime::now_utc().unix_timestamp() - 25 * 3_600 }).to_string();
    alone.stops_at("looked.json", |text| *text = old, "cluster.offline");
    // What ran cannot be read: nothing did, and the log says so.
    let good = alone.read("ran.json");
    alone.again(|site| std::fs::write(site.file("state/cluster/ran.json"), "{").unwrap());
    alone.lattice.wait("it says so", |lattice| {
        lattice.hosts["h1"].log().contains("what ran here by the cluster cannot be read")
    });
    std::thread::sleep(std::time::Duration::from_secs(12));
    assert!(alone.lattice.answering().is_empty());
    // All as it was: it is started.
    alone.again(|site| std::fs::write(site.file("state/cluster/ran.json"), good).unwrap());
    alone.lattice.wait("it is served", serves);
}

#[test]
fn a_revoked_component_is_not_started_without_nats() {
    let Some(lattice) = Lattice::start("offline revoked", &Plan::of(1)) else { return };
    let mut alone = Alone { lattice };
    alone.lattice.deploy(1, "").ok();
    alone.lattice.wait("it runs", |lattice| lattice.answering() == ["h1"]);
    alone.lattice.wait("what ran is kept", |_| alone.kept("ran.json").is_file());
    let ran = alone.read("ran.json");
    let digest = alone.lattice.digest("hello.wasm");
    alone.lattice.cli(["cluster", "revoke", "--digest", &digest, "--operator", "operator.toml"]).ok();
    alone.lattice.wait("it is stopped", |lattice| lattice.answering().is_empty());
    alone.lattice.server.kill();
    // Even where the host believes that it ran.
    let before = alone.denials("cluster.revoked");
    alone.again(|site| std::fs::write(site.file("state/cluster/ran.json"), ran).unwrap());
    alone.lattice.wait("it is refused", |lattice| {
        let status = lattice.hosts["h1"].ask_status(0);
        status["components"].to_string().contains("cluster.revoked")
    });
    alone.lattice.wait("that is on record", |_| alone.denials("cluster.revoked") > before);
    assert!(alone.lattice.answering().is_empty());
}

#[test]
fn a_host_that_restarts_where_nats_answers_and_its_buckets_do_not_serves_what_it_ran() {
    let Some(mut lattice) = Lattice::start("offline buckets", &Plan::of(1)) else { return };
    lattice.deploy(1, "").ok();
    lattice.wait("it runs", |lattice| lattice.answering() == ["h1"]);
    let ran = |lattice: &Lattice| std::fs::read_to_string(lattice.hosts["h1"].site().file("state/cluster/ran.json"));
    lattice.wait("it is kept that it does", |lattice| ran(lattice).is_ok_and(|ran| ran.contains("test:hello")));
    // As where a cluster of servers has no quorum: connected, and nothing that is stored can be read.
    let with = server_config(&lattice);
    let without = with.replace("jetstream { store_dir: \"js\" }", "").replace("jetstream: enabled, ", "");
    assert!(!without.contains("jetstream"), "{without}");
    let site = lattice.hosts.remove("h1").unwrap().stop();
    lattice.server.kill();
    lattice.server.set_config(&without);
    lattice.server.restart();
    // Its last look was a moment ago: by that it may start things, and knows nothing of what is wanted.
    lattice.hosts.insert("h1".to_owned(), Host::start(site));
    lattice.wait("it is connected, and has not seen what is wanted", |lattice| {
        let status = lattice.hosts["h1"].ask_status(0);
        // On a busy machine it may be further already.
        let unseen = status["problems"].to_string().contains("cluster.unseen") || serves_once_ready(lattice);
        status["nats"] != "" && unseen
    });
    lattice.wait("what it ran is served", serves_once_ready);
    let status = lattice.hosts["h1"].ask_status(LONG.as_secs());
    assert_eq!(status["ready"], true, "{status:#}");
    assert!(status["warnings"].to_string().contains("does not answer"), "{status:#}");
    assert!(ran(&lattice).unwrap().contains("test:hello"), "nothing was forgotten");
    let before = admissions(&lattice.hosts["h1"]);
    lattice.server.set_config(&with);
    lattice.server.restart();
    lattice.exchange_bundles();
    lattice.wait("it is of the cluster again", |lattice| lattice.running("test:hello") == ["h1"]);
    lattice.wait("it warns of nothing", |lattice| lattice.hosts["h1"].ask_status(0)["warnings"] == json!([]));
    assert!(serves(&lattice));
    assert_eq!(admissions(&lattice.hosts["h1"]), before, "the one that ran goes on");
}

#[test]
fn a_component_of_the_configuration_that_waited_for_the_cluster_starts_when_nats_comes() {
    let Some(lattice) = Lattice::start("offline configured", &Plan::of(1)) else { return };
    let mut alone = Alone { lattice };
    alone.lattice.wait("it had a look", |_| alone.kept("looked.json").is_file());
    alone.lattice.server.kill();
    let mut site = alone.lattice.hosts.remove("h1").unwrap().stop();
    site.guest("chatty", "");
    site.guest("echo", "");
    let old = json!({ "confirmed_at": time::OffsetDateTime::now_utc().unix_timestamp() - 400 }).to_string();
    std::fs::write(site.file("state/cluster/looked.json"), old).unwrap();
    alone.lattice.hosts.insert("h1".to_owned(), Host::start(site));
    let answers = |lattice: &Lattice| http::get(lattice.hosts["h1"].http(), "/chatty", &[]).status != 404;
    let status = alone.host().ask_status(0);
    assert!(status["components"].to_string().contains("cluster.stale"), "{status:#}");
    assert_eq!(status["ready"], false, "{status:#}");
    assert!(!answers(&alone.lattice));
    let denials = alone.denials("cluster.stale");
    // What an operator stops while it waits is not wanted any more.
    assert_eq!(alone.host().run(["stop", "test:echo"]).exit, 2, "it does not run yet");
    alone.lattice.server.restart();
    alone.lattice.exchange_bundles();
    alone.lattice.wait("it starts", answers);
    let status = alone.host().ask_status(LONG.as_secs());
    assert_eq!(status["ready"], true, "{status:#}");
    let components = status["components"].to_string();
    assert!(!components.contains("refused") && !components.contains("test:echo"), "{status:#}");
    assert_eq!(alone.denials("cluster.stale"), denials, "it was not tried in vain meanwhile");
}
