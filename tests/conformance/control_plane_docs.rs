//! docs/control-plane.md is true: what it says to type in an empty folder is typed, in one shell, and does what it says.
//!
//! Stood in for are the registry, which is one on loopback, the ports, which are free ones, and the component, which is a guest.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::process::Command;

use portcullis_tests::document::blocks;
use portcullis_tests::nats::{free_port, program};
use portcullis_tests::registry::{Kind, Registry};
use portcullis_tests::site::ended;
use portcullis_tests::{guests, root, skip};

/// The ports of the document.
const NAMED: [&str; 3] = ["4222", "7443", "8080"];

#[test]
fn an_operators_way_from_an_empty_folder_goes_as_it_is_printed() {
    const TEST: &str = "an_operators_way_from_an_empty_folder_goes_as_it_is_printed";
    let Some(nats) = program(TEST) else { return };
    let registry = match Registry::start(Kind::Fallback) {
        Ok(registry) => registry,
        Err(why) => return skip(TEST, &why, false),
    };
    let document = std::fs::read_to_string(root().join("docs/control-plane.md")).unwrap();
    let section = document.split("\n## ").find(|section| section.starts_with("From an empty folder")).unwrap();
    let blocks = blocks(section);
    assert!(blocks.len() >= 7 && blocks.iter().all(|block| block.language == "sh"), "{blocks:?}");

    let folder = tempfile::Builder::new().prefix("portcullis-walk-").tempdir().unwrap();
    guests::put(folder.path(), "cart.wasm", &guests::ours("hello"));
    let bin = folder.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(portcullis_tests::binary(), bin.join("portcullis")).unwrap();
    std::os::unix::fs::symlink(nats, bin.join("nats-server")).unwrap();
    // None of them has a part that stands in for another.
    let free = || {
        std::iter::repeat_with(|| free_port().to_string()).find(|free| NAMED.iter().all(|port| !free.contains(port)))
    };
    let ports = NAMED.map(|port| (port, free().unwrap()));

    let mut script = "set -euo pipefail\ntrap 'kill $(jobs -p); wait' EXIT\n".to_owned();
    for (number, block) in blocks.iter().enumerate() {
        script.push_str(&format!("echo \"== {number}\"\n{}", block.text));
    }
    script.push_str("echo '== end'\ncurl -s -o after.txt -w '%{http_code}\\n' http://127.0.0.1:8080/cart\nls -l\n");
    let mut script = script.replace("registry.example", registry.address());
    for (port, free) in &ports {
        script = script.replace(port, free);
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    // All of its processes are one group, which ends with it.
    let mut shell = Command::new("timeout");
    shell.args(["-k", "10", "300", "bash", "-c", &script]).current_dir(folder.path());
    shell.env("PATH", path).env("HOME", folder.path()).env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME");
    let walked = ended(shell.output().expect("timeout of coreutils starts"));
    let log = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    let all = || format!("{}\n{}\n{}\n{}", walked.out, walked.err, log("host.log"), log("nats.log"));
    assert_eq!(walked.exit, 0, "{}", all());
    assert!(!walked.out.contains("== end\n200\n"), "it was stopped over HTTPS: {}", all());
    let part = |number: usize| {
        let from = walked.out.split(&format!("== {number}\n")).nth(1).unwrap_or_default();
        from.split("\n== ").next().unwrap_or_default().to_owned()
    };
    let (over_nats, over_https) = (part(blocks.len() - 2), part(blocks.len() - 1));
    assert!(
        over_nats.contains("ready") && over_nats.contains("shop:cart") && over_nats.contains("running"),
        "{}",
        all()
    );
    assert!(over_https.contains("spiffe://prod.example/ops/ann") && over_https.contains("stopped 1"), "{}", all());
    for key in ["operator.nk", "operator-nats.nk", "host-nats.nk"] {
        let listed = walked.out.lines().find(|line| line.ends_with(&format!(" {key}"))).unwrap_or_default();
        assert!(listed.starts_with("-rw-------"), "{key}: {listed}");
    }
}
