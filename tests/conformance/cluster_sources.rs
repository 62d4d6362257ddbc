//! Where the bytes of a manifest's component come from: a real registry with TLS, by the digest of its manifest, and each host's own
//! store. The digest decides, whatever a source says.

use portcullis_tests::cluster::{Lattice, Plan};
use portcullis_tests::guests;
use portcullis_tests::host::Host;
use portcullis_tests::registry::{Kind, Registry};
use portcullis_tests::site::Ended;

/// Deploys `test:hello`, or what is said to be it, from this source.
fn deploy(lattice: &Lattice, digest: &str, source: &str) -> Ended {
    let text = format!(
        "component = \"test:hello\"\ndigest = \"{digest}\"\nreplicas = 2\n\n[source]\n{source}\n\n[[route]]\npath = \"/hello\"\n"
    );
    std::fs::write(lattice.folder().join("source.toml"), text).unwrap();
    lattice.cli(["cluster", "deploy", "source.toml", "--operator", "operator.toml"])
}

fn wait_failure(lattice: &Lattice, code: &str) {
    lattice.wait(code, |lattice| {
        let status = lattice.status();
        let hosts = status["hosts"].as_array().cloned().unwrap_or_default();
        hosts.len() == 2 && hosts.iter().all(|host| host["failed"].to_string().contains(code))
    });
}

#[test]
fn components_come_from_a_registry_and_from_the_store_and_only_with_their_digest() {
    let test = "cluster sources";
    let registry = match Registry::start(Kind::Tls) {
        Ok(registry) => registry,
        Err(why) => {
            portcullis_tests::skip(test, &why, false);
            return;
        }
    };
    let mut plan = Plan::of(2);
    plan.section.push_str(&format!("registry_ca = \"{}\"\n", registry.certificate().display()));
    let Some(lattice) = Lattice::start(test, &plan) else { return };
    // Nothing lies in the hosts' folders.
    for host in lattice.hosts.values() {
        std::fs::remove_file(host.site().file("apps/hello.wasm")).unwrap();
    }
    let (tag, ca) = (registry.reference("acme/hello:1"), registry.certificate().display().to_string());
    let pushed = lattice.cli(["push", "hello.wasm", &tag, "--ca", &ca]).ok().json();
    let pinned = pushed["reference"].as_str().unwrap();
    let digest = lattice.digest("hello.wasm");

    // By its tag it is whatever somebody makes of it: refused where it is written.
    let refused = deploy(&lattice, &digest, &format!("oci = \"{tag}\""));
    assert_eq!(refused.exit, 2, "{refused:?}");
    // By a digest, from the registry.
    deploy(&lattice, &digest, &format!("oci = \"{pinned}\"")).ok();
    lattice.wait("both fetched it", |lattice| lattice.answering() == ["h1", "h2"]);
    let stored = |host: &Host| {
        let name = digest.strip_prefix("sha256:").unwrap();
        host.site().file("state/components").join(name).join("component.wasm")
    };
    assert!(lattice.hosts.values().all(|host| stored(host).is_file()));

    // What the registry holds there has other bytes than the manifest names.
    guests::put(lattice.folder(), "other.wasm", &guests::ours("echo"));
    let other = lattice.digest("other.wasm");
    deploy(&lattice, &other, &format!("oci = \"{pinned}\"")).ok();
    wait_failure(&lattice, "cluster.other-bytes");
    assert_eq!(lattice.answering(), ["h1", "h2"], "the version before goes on");

    // The registry is gone: what is in the store needs none, by either source.
    drop(registry);
    lattice.cli(["cluster", "undeploy", "test:hello", "--operator", "operator.toml"]).ok();
    lattice.wait("it stopped", |lattice| lattice.answering().is_empty());
    deploy(&lattice, &digest, "store = \"digest\"").ok();
    lattice.wait("both have it in their stores", |lattice| lattice.answering() == ["h1", "h2"]);
    // What is not there is not there.
    deploy(&lattice, &other, "store = \"digest\"").ok();
    wait_failure(&lattice, "file.unusable");
    // What lies there is believed by its digest alone.
    lattice.cli(["cluster", "undeploy", "test:hello", "--operator", "operator.toml"]).ok();
    lattice.wait("it stopped again", |lattice| lattice.answering().is_empty());
    for host in lattice.hosts.values() {
        std::fs::write(stored(host), guests::ours("echo")).unwrap();
    }
    deploy(&lattice, &digest, "store = \"digest\"").ok();
    wait_failure(&lattice, "digest.other");
    assert!(lattice.answering().is_empty(), "{}", lattice.logs());
}
