//! What hosts refuse is seen where an operator looks: in the answer to `deploy --wait`, in `cluster status`, in a host's `list`; and is
//! gone once nobody wants it any more.

use portcullis_tests::cluster::{Lattice, Plan};
use portcullis_tests::nats::pki;
use portcullis_tests::site::Ended;
use serde_json::Value;

const OTHER: &str = "test:other";

/// Deploys `test:other` from a file of the hosts, and waits for their answer.
fn deploy(lattice: &Lattice, digest: &str, file: &str, operator: &str) -> Ended {
    let text = format!("component = \"{OTHER}\"\ndigest = \"{digest}\"\nreplicas = 1\n[source]\nfile = \"{file}\"\n");
    std::fs::write(lattice.folder().join("other.toml"), text).unwrap();
    lattice.cli(["cluster", "deploy", "other.toml", "--operator", operator, "--wait", "120"])
}

/// Why a host does not run `test:other`, as its `list` says.
fn listed(lattice: &Lattice, host: &str) -> Option<String> {
    let list = lattice.hosts[host].run(["list"]).ok().json();
    let one = list.as_array().unwrap().iter().find(|one| one["name"] == OTHER)?;
    Some(format!("{}: {}", one["state"].as_str().unwrap(), one["detail"].as_str().unwrap()))
}

fn refused(ended: &Ended) -> Vec<(String, String)> {
    let one = |one: &Value| (one["host"].as_str().unwrap().to_owned(), one["code"].as_str().unwrap().to_owned());
    ended.json()["error"]["details"]["refused"].as_array().into_iter().flatten().map(one).collect()
}

fn undeployed(lattice: &Lattice) {
    lattice.cli(["cluster", "undeploy", OTHER, "--operator", "operator.toml"]).ok();
    lattice.wait("no host speaks of it", |lattice| ["h1", "h2"].iter().all(|host| listed(lattice, host).is_none()));
    lattice.wait("nor does the status", |lattice| {
        let (status, none) = (lattice.status(), serde_json::json!([]));
        status["hosts"].as_array().is_some_and(|all| all.len() == 2 && all.iter().all(|host| host["failed"] == none))
    });
}

#[test]
fn an_operator_sees_what_hosts_refuse_and_why_until_nobody_wants_it() {
    let Some(lattice) = Lattice::start("cluster refusals", &Plan::of(2)) else { return };
    // Signed by somebody who is no operator of these hosts, and may write to the buckets all the same.
    let stranger = nkeys::KeyPair::new_user();
    pki::replace(lattice.folder(), "stranger.nk", &stranger.seed().unwrap());
    let text = std::fs::read_to_string(lattice.folder().join("operator.toml")).unwrap();
    let text = text.replace("nkey = \"operator.nk\"", "nkey = \"stranger.nk\"");
    std::fs::write(lattice.folder().join("stranger.toml"), text).unwrap();
    let ended = deploy(&lattice, &lattice.digest("hello.wasm"), "hello.wasm", "stranger.toml");
    assert_eq!((ended.exit, ended.code().as_str()), (1, "cluster.not-settled"), "{ended:?}");
    let why = |host: &str, code: &str| (host.to_owned(), code.to_owned());
    assert_eq!(refused(&ended), [why("h1", "statement.unknown-key"), why("h2", "statement.unknown-key")], "{ended:?}");
    assert!(ended.err.contains("h1 does not run test:other by version 1: statement.unknown-key"), "{}", ended.err);
    assert!(ended.err.contains("[[operator]]"), "{}", ended.err);
    let status = lattice.status();
    assert_eq!(status["components"][0]["refused"].as_array().map(Vec::len), Some(2), "{status:#}");
    assert_eq!(status["signers"]["h1"], "spiffe://test.example/portcullis/host/h1", "{status:#}");
    let ended = lattice.cli(["cluster", "status", "--operator", "operator.toml", "--listen", "0.8"]);
    assert!(ended.exit == 1 && ended.err.contains("[[operator]]"), "{}", ended.err);
    assert!(listed(&lattice, "h1").is_some_and(|why| why.starts_with("refused: statement.unknown-key")));
    undeployed(&lattice);

    // Signed by the operator, and nobody vouches for the bytes.
    let bytes = portcullis_tests::guests::ours("echo");
    for host in lattice.hosts.values() {
        std::fs::write(host.site().file("apps/unsigned.wasm"), &bytes).unwrap();
    }
    let digest = portcullis_signing::Digest::of(&bytes).to_string();
    let ended = deploy(&lattice, &digest, "unsigned.wasm", "operator.toml");
    assert_eq!(ended.exit, 1, "{ended:?}");
    assert_eq!(refused(&ended), [why("h1", "evidence.none"), why("h2", "evidence.none")], "{ended:?}");
    assert!(listed(&lattice, "h1").is_some_and(|why| why.starts_with("refused: evidence.none")));
    undeployed(&lattice);

    // What runs is waited for, too.
    lattice.deploy(2, "").ok();
    let ended =
        lattice.cli(["cluster", "deploy", "hello.toml", "--operator", "operator.toml", "--wait", "120"]).ok().json();
    assert_eq!(ended["hosts"], serde_json::json!(["h1", "h2"]), "{ended:#}");
    assert_eq!(lattice.answering(), ["h1", "h2"]);
}
