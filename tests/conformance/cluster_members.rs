//! A host that signs what it says with an nkey instead of its SVID: believed by whoever pinned that key for it, and only with it.

use std::os::unix::fs::PermissionsExt as _;

use portcullis_tests::cluster::{Lattice, Plan};
use portcullis_tests::nats::pki;

fn heard(lattice: &Lattice) -> Vec<String> {
    let status = lattice.status();
    let hosts = status["hosts"].as_array().cloned().unwrap_or_default();
    hosts.iter().filter_map(|host| host["host"].as_str().map(str::to_owned)).collect()
}

#[test]
fn a_host_with_a_key_of_its_own_is_believed_by_that_key_alone() {
    let plan = Plan { keyed: vec!["h2".to_owned()], ..Plan::of(2) };
    // The hosts have heard one another when this returns: one by its SVID, one by its key.
    let Some(lattice) = Lattice::start("keyed members", &plan) else { return };
    lattice.deploy(2, "").ok();
    lattice.wait("both run it", |lattice| lattice.running("test:hello") == ["h1", "h2"]);
    for host in ["h1", "h2"] {
        let listed = lattice.cli(["list", "--operator", "operator.toml", "--host", host]).ok();
        assert!(listed.out.contains("test:hello"), "{host}: {listed:?}");
    }
    // An operator who pinned nobody believes the one with an SVID alone, the answers too.
    let text = std::fs::read_to_string(lattice.folder().join("operator.toml")).unwrap();
    let (before, rest) = text.split_once("[[member]]").unwrap();
    let unpinned = format!("{before}[nats]{}", rest.split_once("[nats]").unwrap().1);
    std::fs::write(lattice.folder().join("unpinned.toml"), unpinned).unwrap();
    let listed = lattice.cli(["list", "--operator", "unpinned.toml", "--host", "h2"]);
    assert_eq!(listed.code(), "host.unproven", "{listed:?}");
    lattice.cli(["list", "--operator", "unpinned.toml", "--host", "h1"]).ok();

    let host = &lattice.hosts["h2"];
    let path = host.site().file("member.nk");
    let good = std::fs::read_to_string(&path).unwrap();
    // A key of somebody else is not used, and says why.
    pki::replace(host.site().path(), "member.nk", &nkeys::KeyPair::new_user().seed().unwrap());
    lattice.wait("with another key it is not heard", |lattice| heard(lattice) == ["h1"]);
    lattice.wait("and says why", |_| host.log().contains("it is of another key than U"));
    pki::replace(host.site().path(), "member.nk", &good);
    lattice.wait("it is heard again", |lattice| heard(lattice) == ["h1", "h2"]);
    // Nor is one that others can read.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    lattice.wait("with an open key it is not heard", |lattice| heard(lattice) == ["h1"]);
    lattice.wait("and says that, too", |_| host.log().contains("others can read it (mode 0644)"));
    let checked = host.run(["config", "check"]);
    assert!(checked.exit == 64 && checked.err.contains("cluster.key"), "{checked:?}");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    lattice.wait("both are heard", |lattice| heard(lattice) == ["h1", "h2"]);
    assert_eq!(lattice.answering(), ["h1", "h2"], "{}", lattice.logs());
}
