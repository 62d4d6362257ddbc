//! A start from elsewhere, over NATS and over HTTPS: the component serves requests afterwards, wherever its bytes and its evidence came
//! from, and one that is refused says why at the operator's end. A real nats-server, a real registry, a real host.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use portcullis_tests::cluster::{Lattice, Plan};
use portcullis_tests::host::Host;
use portcullis_tests::http::get;
use portcullis_tests::registry::{Kind, Registry};
use portcullis_tests::site::{CLUSTER, Ended};
use portcullis_tests::{guests, skip, workload};
use serde_json::Value;

/// Operator files: the first goes over NATS with an nkey, the second over HTTPS with an X.509-SVID.
const WAYS: [&str; 2] = ["operator.toml", "ann.toml"];
const ANN: &str = "spiffe://test.example/ns/test/sa/ann";

struct World {
    lattice: Lattice,
    registry: Registry,
    /// Where `test:two` is in it, by the digest of its manifest.
    pushed: String,
}

#[test]
fn a_start_from_elsewhere_serves_and_a_refused_one_says_why() {
    let Some(world) = World::start("a_start_from_elsewhere_serves_and_a_refused_one_says_why") else { return };
    for way in WAYS {
        a_component_of_the_store_starts_with_evidence_in_the_request(&world, way);
        a_component_of_a_registry_starts_by_its_digest(&world, way);
        a_start_that_is_refused_says_why_where_the_operator_looks(&world, way);
    }
}

fn a_component_of_the_store_starts_with_evidence_in_the_request(world: &World, way: &str) {
    let digest = world.stored("one");
    let start = ["start", "--name", "test:one", "--digest", &digest, "--route", "/one"];
    let refused = world.ask(way, &start);
    assert_eq!((refused.exit, refused.code().as_str()), (10, "evidence.none"), "{way}: {}{}", refused.out, refused.err);
    let more = [&start[..], &["--bundle", "one.wasm.sigstore.json"]].concat();
    let started = world.ask(way, &more).ok().json();
    assert_eq!((started["state"].as_str(), started["name"].as_str()), (Some("running"), Some("test:one")), "{way}");
    assert_eq!(get(world.host().http(), "/one", &[]).status, 200, "{way}");
    let left = std::fs::read_dir(world.store(&digest)).unwrap().count();
    assert_eq!(left, 1, "evidence of a request lives as long as its start");
    world.stop(way, "test:one", "/one");
}

fn a_component_of_a_registry_starts_by_its_digest(world: &World, way: &str) {
    let reference = world.registry.reference("shop/two:1.0.0");
    let digest = world.lattice.digest("two.wasm");
    let _ = std::fs::remove_dir_all(world.store(&digest));
    let start = ["start", &reference, "--name", "test:two", "--digest", &digest, "--route", "/two"];
    assert_eq!(world.ask(way, &start).ok().json()["state"], "running", "{way}");
    assert_eq!(get(world.host().http(), "/two", &[]).status, 200, "{way}");
    let listed = world.ask(way, &["list"]).ok().json();
    let listed = listed.as_array().unwrap().iter().find(|one| one["name"] == "test:two").unwrap();
    assert_eq!((listed["digest"].as_str(), listed["state"].as_str()), (Some(digest.as_str()), Some("running")));
    // What it writes is read from elsewhere.
    let lines = world.ask(way, &["logs", "test:two"]).ok().json();
    let lines = lines.as_array().unwrap();
    let written = |line: &Value| line["component"] == "test:two" && line["stream"] != "host";
    assert!(lines.iter().any(written), "{way}: {lines:#?}");
    world.stop(way, "test:two", "/two");
}

fn a_start_that_is_refused_says_why_where_the_operator_looks(world: &World, way: &str) {
    let bytes = world.lattice.digest("two.wasm");
    let one = world.lattice.digest("one.wasm");
    let reference = world.registry.reference("shop/two:1.0.0");
    world.stored("one");
    let untouched = world.stored("eve");
    let (bundle, evidence) =
        ("--bundle", ["one.wasm.sigstore.json", "eve.wasm.sigstore.json", "two.wasm.sigstore.json"]);
    let zeros = format!("sha256:{}", "0".repeat(64));
    let cases: [(&str, i32, Vec<&str>); 7] = [
        // Signed by nobody, by somebody unknown, for other bytes.
        ("evidence.none", 10, vec!["--name", "test:one", "--digest", &one]),
        ("signer.unknown", 12, vec!["--name", "test:eve", "--digest", &untouched, bundle, evidence[1]]),
        ("claims.digest", 13, vec!["--name", "test:one", "--digest", &one, bundle, evidence[2]]),
        // Not what was asked for: other bytes in the registry, none in the store, another name in the claims.
        ("cluster.other-bytes", 2, vec![&reference, "--name", "test:two", "--digest", &zeros]),
        ("start.not-stored", 2, vec!["--name", "test:two", "--digest", &zeros]),
        ("component.other-name", 13, vec!["--name", "test:two", "--digest", &one, bundle, evidence[0]]),
        // Signed and right, and nobody lets it be loaded here.
        ("A0201", 20, vec!["--name", "test:other", "--digest", "OTHER", bundle, "other.wasm.sigstore.json"]),
    ];
    let other = world.stored("other");
    assert_ne!(bytes, one);
    for (code, exit, arguments) in cases {
        let arguments: Vec<&str> =
            arguments.iter().map(|argument| if *argument == "OTHER" { other.as_str() } else { argument }).collect();
        let refused = world.ask(way, &[&["start"][..], &arguments].concat());
        assert_eq!((refused.code().as_str(), refused.exit), (code, exit), "{way}: {}{}", refused.out, refused.err);
        assert!(refused.err.starts_with("error: ") && refused.err.contains("hint: "), "{way} {code}: {}", refused.err);
        let name = arguments.iter().find(|argument| argument.starts_with("test:")).unwrap();
        let listed = world.ask(way, &["list"]).ok().json();
        let listed = listed.as_array().unwrap().iter().find(|one| one["name"] == *name).cloned().unwrap_or_default();
        assert_eq!(listed["state"], "refused", "{way} {code}: {listed:#}");
        assert!(listed["detail"].as_str().unwrap().starts_with(code), "{way}: {listed:#}");
        let logs = world.ask(way, &["logs", name]).ok().json();
        let told = |line: &Value| line["stream"] == "host" && line["text"].as_str().unwrap().starts_with(code);
        assert!(logs.as_array().unwrap().iter().any(told), "{way} {code}: {logs:#}");
        // What was refused by the chain of admission is on record, and can be explained on the host.
        let reference = refused.json()["error"]["details"]["reference"].as_str().unwrap_or_default().to_owned();
        if !["cluster.other-bytes", "start.not-stored"].contains(&code) {
            let explained = world.host().run(["policy", "explain", &reference]);
            assert_eq!(explained.exit, 0, "{way} {code}: {}{}", explained.out, explained.err);
        }
    }
    let running = world.ask(way, &["list"]).ok().json();
    assert!(running.as_array().unwrap().iter().all(|one| one["state"] == "refused"), "{running:#}");
}

/// Between the operator's word and the bytes, time passes: who was revoked or lost a right meanwhile starts nothing.
#[test]
fn who_is_not_believed_any_more_when_the_bytes_have_come_starts_nothing() {
    let Some(world) = World::start("who_is_not_believed_any_more_when_the_bytes_have_come_starts_nothing") else {
        return;
    };
    let digest = world.lattice.digest("two.wasm");
    let start = |gate: &Gate, way: &str| {
        let reference = format!("oci://{}/shop/two:1.0.0", gate.address);
        world.ask(way, &["start", &reference, "--name", "test:two", "--digest", &digest])
    };
    let again = || drop(std::fs::remove_dir_all(world.store(&digest)));

    // Over HTTPS, and the operator's SPIFFE ID is revoked while the host fetches.
    let gate = Gate::before(world.registry.address());
    let refused = std::thread::scope(|scope| {
        let asked = scope.spawn(|| start(&gate, "ann.toml"));
        gate.wait();
        world.host().run(["identity", "revoke", ANN]).ok();
        gate.open();
        asked.join().unwrap()
    });
    assert_eq!((refused.exit, refused.code().as_str()), (20, "statement.revoked"), "{}{}", refused.out, refused.err);
    world.host().record(&[("kind", "denial"), ("code", "statement.revoked")]);

    // Over NATS, and the nkey is taken out of the grants file.
    again();
    let gate = Gate::before(world.registry.address());
    let grants = world.host().site().file("grants.toml");
    let before = std::fs::read_to_string(&grants).unwrap();
    let refused = std::thread::scope(|scope| {
        let asked = scope.spawn(|| start(&gate, "operator.toml"));
        gate.wait();
        let nobody = before.replace(&world.lattice.operator.public_key(), &nkeys::KeyPair::new_user().public_key());
        std::fs::write(&grants, nobody).unwrap();
        world.host().run(["reload"]).ok();
        gate.open();
        asked.join().unwrap()
    });
    assert_ne!(refused.exit, 0, "{}{}", refused.out, refused.err);
    std::fs::write(&grants, &before).unwrap();
    world.host().run(["reload"]).ok();

    // By a manifest, and whoever signed it may not deploy any more when the bytes are here.
    again();
    let gate = Gate::before(world.registry.address());
    let pinned = world.pushed.rsplit_once('@').unwrap().1;
    let manifest = world.manifest("two", &format!("oci = \"oci://{}/shop/two@{pinned}\"", gate.address));
    world.lattice.cli(["cluster", "deploy", &manifest, "--operator", "operator.toml"]).ok();
    gate.wait();
    let no_deploy = before.replace("actions = [\"deploy\", ", "actions = [");
    assert_ne!(no_deploy, before);
    std::fs::write(&grants, &no_deploy).unwrap();
    world.host().run(["reload"]).ok();
    gate.open();
    world.host().record(&[("kind", "denial"), ("code", "cluster.not-wanted")]);

    let admitted = world.host().audit().into_iter().filter(|record| record["kind"] == "admission").count();
    assert_eq!(admitted, 0, "{}", world.host().log());
}

impl World {
    /// Writes a manifest of `test:NAME`; gives its file.
    fn manifest(&self, name: &str, source: &str) -> String {
        let digest = self.lattice.digest(&format!("{name}.wasm"));
        let text = format!("component = \"test:{name}\"\ndigest = \"{digest}\"\nreplicas = 1\n\n[source]\n{source}\n");
        std::fs::write(self.lattice.folder().join(format!("{name}.toml")), text).unwrap();
        format!("{name}.toml")
    }

    fn start(test: &str) -> Option<Self> {
        let registry = match Registry::start(Kind::Fallback) {
            Ok(registry) => registry,
            Err(why) => {
                skip(test, &why, false);
                return None;
            }
        };
        let mut plan = Plan::of(1);
        plan.section.push_str(&format!(
            "\n[control]\nhttps = \"127.0.0.1:0\"\n\n[workload_api]\nsocket = \"workload.sock\"\n\n{}\n",
            workload::entry("ann", &portcullis_tests::binary(), "").replace(
                "executable = ",
                &format!("sha256 = \"{}\" # ", workload::sha256(&portcullis_tests::binary()))
            )
        ));
        for name in ["one", "two", "eve"] {
            plan.grants.push_str(&format!(
                "[[grant]]\nid = \"{name}\"\nreason = \"r\"\nowner = \"o\"\ncomponent = \"test:{name}\"\nload = true\ncallers = [\"anonymous\"]\n\n"
            ));
        }
        for (id, who) in [("control", "OPERATOR"), ("over-https", ANN)] {
            plan.grants.push_str(&format!(
                "[[operator]]\nid = \"{id}\"\nreason = \"r\"\nowner = \"o\"\nwho = \"{who}\"\nhosts = [\"h1\"]\n\
                 components = [\"test:one\", \"test:two\", \"test:eve\", \"test:other\"]\nactions = [\"status\", \"list\", \"start\", \"stop\", \"logs\"]\n\n"
            ));
        }
        let lattice = Lattice::start(test, &plan)?;
        let mut world = Self { lattice, registry, pushed: String::new() };
        world.lattice.cli(["keys", "generate", "--out", "eve.key"]).ok();
        for (name, guest, key) in [
            ("one", "hello", "signer.key"),
            ("two", "chatty", "signer.key"),
            ("eve", "hello", "eve.key"),
            ("other", "hello", "signer.key"),
        ] {
            world.sign(name, guest, key);
        }
        let pushed = world.lattice.cli(["push", "two.wasm", &format!("{}/shop/two:1.0.0", world.registry.address())]);
        world.pushed = pushed.ok().json()["reference"].as_str().unwrap().to_owned();
        let socket = world.host().site().file("workload.sock").display().to_string();
        world.lattice.cli(["identity", "fetch", "--workload-api", &socket, "--out-dir", "ann"]).ok();
        let address = world.host().ask_status(0)["listening"]["control"].as_str().unwrap().to_owned();
        let text = format!(
            "version = 1\ntrust_domain = \"test.example\"\nbundle = \"hosts.json\"\n[key]\nsvid = \"ann/svid.pem\"\n\
             svid_key = \"ann/svid_key.pem\"\n[https]\nh1 = \"{address}\"\n"
        );
        std::fs::write(world.lattice.folder().join("ann.toml"), text).unwrap();
        Some(world)
    }

    fn host(&self) -> &Host {
        &self.lattice.hosts["h1"]
    }

    fn ask(&self, way: &str, command: &[&str]) -> Ended {
        self.lattice.cli(command.iter().chain(&["--operator", way, "--host", "h1"]))
    }

    fn stop(&self, way: &str, name: &str, path: &str) {
        assert_eq!(self.ask(way, &["stop", name]).ok().json()["stopped"], 1, "{way}");
        assert_ne!(get(self.host().http(), path, &[]).status, 200, "{way}: {name} still answers");
        let nothing = self.ask(way, &["stop", name]);
        assert_eq!(nothing.exit, 2, "{way}: {}{}", nothing.out, nothing.err);
    }

    /// A component with bytes of its own, and claims for `test:NAME` signed with a key.
    fn sign(&self, name: &str, guest: &str, key: &str) {
        let mut bytes = guests::ours(guest);
        // A custom section: another digest, the same behaviour.
        bytes.extend([0, 2 + u8::try_from(name.len()).unwrap(), 1, b'n']);
        bytes.extend(name.as_bytes());
        let file = format!("{name}.wasm");
        guests::put(self.lattice.folder(), &file, &bytes);
        let (component, path) = (format!("test:{name}"), format!("ns/test/sa/{name}"));
        let claims = ["claims", "init", &file, "--name", &component, "--version", "1.0.0", "--revision", "1"];
        let more = ["--audience", CLUSTER, "--identity-path", &path, "--out", "c.json", "--force"];
        self.lattice.cli(claims.iter().chain(&more)).ok();
        self.lattice.cli(["sign", &file, "--claims", "c.json", "--key", key, "--force"]).ok();
    }

    /// Where the host's store has a digest.
    fn store(&self, digest: &str) -> PathBuf {
        self.host().site().file(&format!("state/components/{}", digest.trim_start_matches("sha256:")))
    }

    /// Puts the bytes of a component, and nothing else, into the host's store; gives its digest.
    fn stored(&self, name: &str) -> String {
        let digest = self.lattice.digest(&format!("{name}.wasm"));
        let folder = self.store(&digest);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(self.lattice.folder().join(format!("{name}.wasm")), folder.join("component.wasm")).unwrap();
        digest
    }
}

/// A way to a registry on which nothing comes through before it is opened.
struct Gate {
    address: String,
    state: Arc<(Mutex<(bool, bool)>, Condvar)>,
}

impl Gate {
    fn before(registry: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state: Arc<(Mutex<(bool, bool)>, Condvar)> = Arc::default();
        let (shared, registry) = (Arc::clone(&state), registry.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (shared, registry) = (Arc::clone(&shared), registry.clone());
                std::thread::spawn(move || {
                    let (state, changed) = &*shared;
                    state.lock().unwrap().0 = true;
                    changed.notify_all();
                    drop(changed.wait_while(state.lock().unwrap(), |state| !state.1).unwrap());
                    let server = TcpStream::connect(registry).unwrap();
                    let (mut up, mut down) =
                        ((client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client));
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut up.0, &mut up.1);
                        let _ = up.1.shutdown(Shutdown::Write);
                    });
                    let _ = std::io::copy(&mut down.0, &mut down.1);
                    let _ = down.1.shutdown(Shutdown::Write);
                });
            }
        });
        Self { address, state }
    }

    /// Until somebody stands before it.
    fn wait(&self) {
        let (state, changed) = &*self.state;
        let waited =
            changed.wait_timeout_while(state.lock().unwrap(), Duration::from_secs(60), |state| !state.0).unwrap();
        assert!(!waited.1.timed_out(), "nobody fetched anything");
    }

    fn open(&self) {
        let (state, changed) = &*self.state;
        state.lock().unwrap().1 = true;
        changed.notify_all();
    }
}
