//! What a host keeps of its cluster on its disk is in force at its next start as it was signed, and not otherwise: whoever can write
//! there grants nothing and lifts nothing.

use std::time::Duration;

use portcullis_identity::statement::{Draft, Envelope, Jti, UserSeed};
use portcullis_tests::cluster::alone::Alone;
use portcullis_tests::cluster::{Lattice, Plan};
use portcullis_tests::host::Host;
use portcullis_tests::{guests, workload};
use serde_json::{Value, json};
use time::OffsetDateTime;

const ANN: &str = "spiffe://test.example/ns/test/sa/ann";
const SET: &str = "values/policy.set.json";
const GRANT: &str = "[[grant]]\nid = \"more\"\nreason = \"a test\"\nowner = \"tests\"\ncomponent = \"test:more\"\nload = true\ncallers = [\"anonymous\"]\n";

/// A host of a cluster, with a component `more.wasm` beside it.
fn alone(test: &str, section: &str, grants: &str) -> Option<Alone> {
    let mut plan = Plan::of(1);
    // A busy machine may take its time: the last look stays young enough.
    plan.section.push_str("stale_seconds = 3600\n");
    plan.section.push_str(section);
    grants.clone_into(&mut plan.grants);
    let alone = Alone { lattice: Lattice::start(test, &plan)? };
    alone.host().site().sign("more", &guests::ours("hello"));
    Some(alone)
}

/// Whether `more.wasm` starts; else the code of the refusal.
fn starts(host: &Host) -> Result<(), String> {
    let ended = host.run(["start", "more.wasm"]);
    if ended.exit == 0 { Ok(()) } else { Err(ended.code()) }
}

fn problems(alone: &Alone) -> String {
    alone.host().ask_status(0)["problems"].to_string()
}

/// Publishes a set that grants `more.wasm`, and waits until it is in force; how it lies on disk then.
fn publish(alone: &Alone, version: u64) -> String {
    std::fs::write(alone.lattice.folder().join("more.toml"), format!("version = 1\n# {version}\n\n{GRANT}")).unwrap();
    alone.lattice.cli(["cluster", "policies", "--grants", "more.toml", "--operator", "operator.toml"]).ok();
    alone.lattice.wait("the set is in force", |lattice| lattice.status()["hosts"][0]["policy"] == version);
    alone.read(SET)
}

/// A set as the operator would sign it for another cluster.
fn of_another_cluster(operator: &nkeys::KeyPair, value: &str) -> String {
    let Envelope { payload, .. } = Envelope::parse(value.as_bytes()).unwrap();
    let seed = UserSeed::parse(&operator.seed().unwrap()).unwrap();
    let (jti, life) = (Jti::new(OffsetDateTime::now_utc(), [7; 10]), Duration::from_secs(3_600));
    let draft = Draft::by_nkey(seed.public(), "cluster:other", "policy/set", jti, life, &payload).unwrap().version(2);
    let statement = draft.token(&seed.sign(draft.signing_input().as_bytes()));
    Envelope { statement, payload }.to_json()
}

#[test]
fn policies_of_the_cluster_on_a_disk_are_in_force_as_they_were_signed_and_not_otherwise() {
    let Some(mut alone) = alone("disk policies", "policies = true\n", "") else { return };
    assert!(starts(alone.host()).is_err(), "its own files do not grant it");
    // Releases before this one believed such a file.
    let text = json!({ "name": "more.toml", "kind": "grants", "text": format!("version = 1\n{GRANT}") });
    let forged = json!({ "format": 1, "version": 1, "texts": [text] }).to_string();
    alone.again(|site| std::fs::write(site.file("state/cluster/policy.json"), forged).unwrap());
    assert!(starts(alone.host()).is_err(), "nobody signed it");
    assert!(problems(&alone).contains("statement.missing"), "{}", problems(&alone));
    alone.lattice.exchange_bundles();
    let (first, good) = (publish(&alone, 1), publish(&alone, 2));
    assert_eq!(starts(alone.host()), Ok(()));
    let marks = alone.read("seen.json");
    alone.lattice.server.kill();

    // As it was signed it is in force before anything starts.
    alone.again(|_| {});
    assert_eq!(starts(alone.host()), Ok(()), "{}", problems(&alone));
    assert!(!problems(&alone).contains("cluster.policies"), "{}", problems(&alone));

    let value: Value = serde_json::from_str(&good).unwrap();
    let with = |member: &str, text: &str| {
        let mut value = value.clone();
        value[member] = text.into();
        value.to_string()
    };
    let payload = serde_json::from_str::<Value>(&first).unwrap()["payload"].as_str().unwrap().to_owned();
    let another = of_another_cluster(&alone.lattice.operator, &good);
    for (what, bytes, code) in [
        ("changed", with("payload", &payload), "statement.payload"),
        ("its statement taken away", with("statement", ""), "statement.malformed"),
        ("the payload alone", format!("{{\"payload\":{}}}", value["payload"]), "statement.malformed"),
        ("of another cluster", another, "statement.audience"),
        ("an older one", first, "cluster.rolled-back"),
    ] {
        let before = alone.denials(code);
        alone.again(|site| std::fs::write(site.file("state/cluster").join(SET), bytes).unwrap());
        assert!(starts(alone.host()).is_err(), "{what}: it is in force\n{}", alone.lattice.logs());
        let said = problems(&alone);
        assert!(said.contains("cluster.policies") && said.contains(SET) && said.contains(code), "{what}: {said}");
        assert_eq!(alone.host().ask_status(0)["ready"], false, "{what}");
        assert_eq!(alone.denials(code), before + 1, "{what}: recorded once");
        assert_eq!(alone.read("seen.json"), marks, "{what}");
    }

    // It is proven, and does not fit this host's own files: these would allow what it may forbid, so nothing starts by them alone.
    let mut site = alone.lattice.hosts.remove("h1").unwrap().stop();
    std::fs::write(site.file("state/cluster").join(SET), &good).unwrap();
    let grants = std::fs::read_to_string(site.file("grants.toml")).unwrap();
    site.damage("grants.toml", Some(format!("{grants}\n{GRANT}").as_bytes()));
    alone.lattice.hosts.insert("h1".to_owned(), Host::start(site));
    assert_eq!(starts(alone.host()), Err("cluster.unusable".to_owned()), "{}", alone.lattice.logs());
    assert!(problems(&alone).contains("nothing starts without them"), "{}", problems(&alone));
    std::fs::write(alone.host().site().file("grants.toml"), &grants).unwrap();
    alone.lattice.wait("it fits them again", |lattice| starts(&lattice.hosts["h1"]).is_ok());
    let mut site = alone.lattice.hosts.remove("h1").unwrap().stop();
    site.undamage();

    // Whoever signed it is no operator here any more; once that is mended it is in force, without another start.
    let stranger = nkeys::KeyPair::new_user().public_key();
    let other = grants.replace(&alone.lattice.operator.public_key(), &stranger);
    assert_ne!(other, grants);
    site.damage("grants.toml", Some(other.as_bytes()));
    alone.lattice.hosts.insert("h1".to_owned(), Host::start(site));
    assert!(starts(alone.host()).is_err(), "{}", alone.lattice.logs());
    assert!(problems(&alone).contains("statement.unknown-key"), "{}", problems(&alone));
    std::fs::write(alone.host().site().file("grants.toml"), &grants).unwrap();
    alone.lattice.wait("the set is in force", |lattice| starts(&lattice.hosts["h1"]).is_ok());
    alone.lattice.wait("it says so", |_| !problems(&alone).contains("cluster.policies"));
    let mut site = alone.lattice.hosts.remove("h1").unwrap().stop();
    site.undamage();

    // Gone; and as releases before this one kept it.
    std::fs::remove_file(site.file("state/cluster").join(SET)).unwrap();
    alone.lattice.hosts.insert("h1".to_owned(), Host::start(site));
    assert!(starts(alone.host()).is_err());
    assert!(problems(&alone).contains("it is gone, version 2 was in force"), "{}", problems(&alone));
    let payload = Envelope::parse(good.as_bytes()).unwrap().payload;
    alone.again(|site| std::fs::write(site.file("state/cluster/policy.json"), payload).unwrap());
    assert!(starts(alone.host()).is_err());
    let said = problems(&alone);
    assert!(said.contains("statement.missing") && said.contains("policy.json"), "{said}");
    // The cluster's own heals all of that.
    alone.lattice.server.restart();
    alone.lattice.exchange_bundles();
    alone.lattice.wait("it is in force again", |lattice| starts(&lattice.hosts["h1"]).is_ok());
    alone.lattice.wait("nothing is wrong", |_| problems(&alone) == "[]");
    assert_eq!(alone.read(SET), good);
    assert!(!alone.kept("policy.json").exists());
}

#[test]
fn policies_on_a_disk_end_with_the_right_of_whoever_signed_them_with_an_svid() {
    let binary = portcullis_tests::binary();
    let entry = workload::entry("ann", &binary, "");
    let entry = entry.replace("executable = ", &format!("sha256 = \"{}\" # ", workload::sha256(&binary)));
    let section = format!("policies = true\n\n[workload_api]\nsocket = \"workload.sock\"\n\n{entry}\n");
    let operator = format!(
        "[[operator]]\nid = \"by-svid\"\nreason = \"r\"\nowner = \"o\"\nwho = \"{ANN}\"\nhosts = [\"*\"]\ncomponents = [\"*\"]\nactions = [\"deploy\"]\n"
    );
    let Some(mut alone) = alone("disk svid", &section, &operator) else { return };
    let socket = alone.host().site().file("workload.sock").display().to_string();
    alone.lattice.cli(["identity", "fetch", "--workload-api", &socket, "--out-dir", "ann"]).ok();
    let folder = alone.lattice.folder().to_owned();
    let text = std::fs::read_to_string(folder.join("operator.toml")).unwrap();
    let by_svid = "svid = \"ann/svid.pem\"\nsvid_key = \"ann/svid_key.pem\"";
    std::fs::write(folder.join("ann.toml"), text.replace("nkey = \"operator.nk\"", by_svid)).unwrap();
    std::fs::write(folder.join("more.toml"), format!("version = 1\n{GRANT}")).unwrap();
    alone.lattice.cli(["cluster", "policies", "--grants", "more.toml", "--operator", "ann.toml"]).ok();
    alone.lattice.wait("the set is in force", |lattice| lattice.status()["hosts"][0]["policy"] == 1);
    alone.lattice.server.kill();
    // Whom the host trusts comes from its identity process: that is waited for, and nothing starts before.
    alone.again(|_| {});
    assert_eq!(starts(alone.host()), Ok(()), "{}\n{}", problems(&alone), alone.lattice.logs());
    // Whoever is revoked signed nothing that counts at the next start.
    alone.host().run(["identity", "revoke", ANN]).ok();
    alone.again(|_| {});
    assert!(starts(alone.host()).is_err(), "{}", alone.lattice.logs());
    let said = problems(&alone);
    assert!(said.contains("cluster.policies") && said.contains(&format!("{ANN} is revoked")), "{said}");
    assert_eq!(alone.denials("cluster.denied"), 1);
    alone.host().run(["identity", "revoke", "--lift", ANN]).ok();
    alone.lattice.wait("it is in force again", |lattice| starts(&lattice.hosts["h1"]).is_ok());
}

#[test]
fn a_list_of_revocations_that_somebody_put_on_the_disk_lets_nothing_start() {
    let Some(mut alone) = alone("disk revocations", "", GRANT) else { return };
    assert_eq!(starts(alone.host()), Ok(()));
    let bytes = std::fs::read(alone.host().site().file("more.wasm")).unwrap();
    let digest = portcullis_signing::Digest::of(&bytes).to_string();
    alone.lattice.cli(["cluster", "revoke", "--digest", &digest, "--operator", "operator.toml"]).ok();
    alone.lattice.wait("it is revoked", |lattice| starts(&lattice.hosts["h1"]) == Err("cluster.revoked".to_owned()));
    alone.lattice.wait("the list is kept", |_| alone.kept("values/revoked.list.json").is_file());
    alone.lattice.server.kill();
    let good = alone.read("revoked.json");
    // It reads well, is higher than any that was signed, and revokes nobody.
    let empty = r#"{"format":1,"epoch":9}"#;
    alone.again(|site| std::fs::write(site.file("state/cluster/revoked.json"), empty).unwrap());
    assert_eq!(starts(alone.host()), Err("cluster.unproven".to_owned()), "{}", alone.lattice.logs());
    assert!(problems(&alone).contains("cluster.unproven"), "{}", problems(&alone));
    // As it was signed it is in force.
    alone.again(|site| std::fs::write(site.file("state/cluster/revoked.json"), good).unwrap());
    assert_eq!(starts(alone.host()), Err("cluster.revoked".to_owned()), "{}", alone.lattice.logs());
}
