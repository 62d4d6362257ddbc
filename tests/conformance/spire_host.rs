//! A host whose identities come from a real SPIRE is somebody at the site itself, too: at NATS, for its operators and in its cluster it is
//! whom SPIRE's entry says, by the authority of the site, and nobody any more once the entry is gone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_tests::guests;
use portcullis_tests::host::Host;
use portcullis_tests::nats::hosted::{wait_problem, wait_ready};
use portcullis_tests::nats::{NatsServer, folder, pki};
use portcullis_tests::patience::LONG;
use portcullis_tests::site::{CLUSTER, Ended, Site};
use portcullis_tests::spire::{DELEGATE, Settings, Spire, TRUST_DOMAIN};
use serde_json::Value;

#[path = "spire_cluster.rs"]
mod spire_cluster;

const HOST: &str = "/portcullis/host/h1";
const ANN: &str = "/ops/ann";

fn id(path: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}{path}")
}

/// The authorities in a bundle document, PEM.
fn pem(bundle: &Value) -> String {
    let mut text = String::new();
    for key in bundle["keys"].as_array().unwrap().iter().filter(|key| key["use"] == "x509-svid") {
        let der = STANDARD.decode(key["x5c"][0].as_str().unwrap()).unwrap();
        let base64 = STANDARD.encode(der);
        let lines: Vec<&str> = base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let _ = writeln!(text, "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----", lines.join("\n"));
    }
    text
}

/// A nats-server that lets in whom SPIRE says: the host and the operator, with what `cluster init` prints for them.
fn server(test: &str, bundle: &Value) -> Option<NatsServer> {
    let place = folder();
    let authority = pki::Authority::new("NATS of a test");
    authority.server().write(place.path(), "server");
    authority.write(place.path(), "ca");
    std::fs::write(place.path().join("site.pem"), pem(bundle)).unwrap();
    let ann = id(ANN);
    let print = ["cluster", "init", "--print", "--cluster", CLUSTER, "--host", "h1", "--login", &ann, "--json"];
    let printed = portcullis_tests::site::portcullis(print).ok().json();
    let user = |who: &str, permissions: &Value| {
        format!(
            "{{ user: \"{who}\", permissions: {{ publish: {{ allow: {} }}, subscribe: {{ allow: {} }}, allow_responses: {{ max: 1, expires: \"60s\" }} }} }}\n",
            permissions["publish"], permissions["subscribe"]
        )
    };
    let config = format!(
        "tls {{ cert_file: \"server.pem\", key_file: \"server.key\", ca_file: \"site.pem\", verify_and_map: true, timeout: 5 }}\n\
         jetstream {{ store_dir: \"js\" }}\naccounts {{ CTL {{ jetstream: enabled, users: [ {} {} ] }} }}\n",
        user(&id(HOST), &printed["hosts"]["h1"]),
        user(&ann, &printed["operators"][&ann])
    );
    NatsServer::start_in(test, place, &config)
}

/// `[identity]` of a host that has its components' identities by this way.
fn source(spire: &Spire, source: &str) -> String {
    let workload = spire.workload_socket();
    let more = match source {
        "broker" => format!(
            "broker_socket = \"{}\"\nbroker_id = \"{}\"\nhost_id = \"{}\"\n",
            spire.broker_socket().display(),
            spire.agent_id(),
            id(HOST)
        ),
        _ => format!("admin_socket = \"{}\"\n", spire.admin_socket().display()),
    };
    format!("[identity]\nsource = \"{source}\"\n[identity.spire]\nworkload_socket = \"{}\"\n{more}", workload.display())
}

fn site(spire: &Spire, nats: &NatsServer, way: &str) -> Site {
    let mut site = Site::new();
    site.trust_domain(TRUST_DOMAIN);
    site.guest("hello", "identity = [\"read\", \"x509\"]\n");
    site.sign_as("hello", &guests::ours("hello"), "ns/test/sa/hello");
    site.grants(&format!(
        "\n[[operator]]\nid = \"ann\"\nreason = \"r\"\nowner = \"o\"\nwho = \"{}\"\nhosts = [\"h1\"]\ncomponents = [\"*\"]\n\
         actions = [\"status\", \"list\", \"deploy\", \"revoke\"]\n",
        id(ANN)
    ));
    std::fs::copy(nats.folder().join("ca.pem"), site.file("ca.pem")).unwrap();
    site.config(&format!(
        "{}\n\
         [cluster]\nname = \"{CLUSTER}\"\nhost = \"h1\"\n\n[control]\nhttps = \"127.0.0.1:0\"\n\n\
         [nats]\nservers = [\"{}\"]\naccount = \"CTL\"\n[nats.tls]\nca = \"ca.pem\"\n[nats.auth]\nsvid = true\n",
        source(spire, way),
        nats.tls_url()
    ));
    site
}

/// The operator's folder: an SVID of SPIRE, the site's bundle, and a file for each way.
fn operator(place: &Path, spire: &Spire, nats: &NatsServer, bundle: &Value) {
    let run = |arguments: &[&str]| asks(place, arguments).ok();
    run(&["identity", "fetch", "--workload-api", &spire.workload_api(), "--id", &id(ANN)]);
    std::fs::write(place.join("bundle.json"), bundle.to_string()).unwrap();
    std::fs::copy(nats.folder().join("ca.pem"), place.join("ca.pem")).unwrap();
    let text = format!(
        "version = 1\ntrust_domain = \"{TRUST_DOMAIN}\"\nbundle = \"bundle.json\"\ncluster = \"{CLUSTER}\"\n[key]\nsvid = \"svid.pem\"\n\
         svid_key = \"svid_key.pem\"\n\n[nats]\nservers = [\"{}\"]\naccount = \"CTL\"\nuser = \"{}\"\n[nats.tls]\nca = \"ca.pem\"\n\
         [nats.auth]\ncertificate = \"svid.pem\"\nkey = \"svid_key.pem\"\n",
        nats.tls_url(),
        id(ANN)
    );
    std::fs::write(place.join("nats.toml"), text).unwrap();
}

fn asks(place: &Path, arguments: &[&str]) -> Ended {
    let mut command = std::process::Command::new(portcullis_tests::binary());
    command.current_dir(place).args(arguments).arg("--json");
    portcullis_tests::site::ended(command.output().unwrap())
}

fn eventually(what: &str, host: &Host, mut so: impl FnMut() -> bool) {
    let until = Instant::now() + LONG;
    while !so() {
        assert!(Instant::now() < until, "{what}\n{}", host.log());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Operator files.
const WAYS: [&str; 2] = ["nats.toml", "https.toml"];

fn is_whom_spire_says(host: &Host, place: &Path) {
    wait_ready(host);
    let status = host.ask_status(0);
    let standing = status["nats"].as_str().unwrap();
    assert!(standing.starts_with(&format!("{} in CTL", id(HOST))), "{standing}");
    // Its answers are believed by the authority of the site, over NATS and HTTPS.
    let ask = |way: &str, command: &[&str]| asks(place, &[command, &["--operator", way, "--host", "h1"]].concat());
    let https = format!(
        "version = 1\ntrust_domain = \"{TRUST_DOMAIN}\"\nbundle = \"bundle.json\"\n[key]\nsvid = \"svid.pem\"\nsvid_key = \"svid_key.pem\"\n\
         [https]\nh1 = \"{}\"\n",
        status["listening"]["control"].as_str().unwrap()
    );
    std::fs::write(place.join("https.toml"), https).unwrap();
    for way in WAYS {
        let listed = ask(way, &["list"]).ok().json();
        assert_eq!(listed[0]["spiffe_id"].as_str(), Some(id("/ns/test/sa/hello").as_str()), "{way}: {listed:#}");
    }
    // So are its heartbeats.
    let heard = || {
        let status = asks(place, &["cluster", "status", "--operator", "nats.toml", "--listen", "2.5"]);
        let mut documents = serde_json::Deserializer::from_str(&status.out).into_iter::<Value>();
        documents.next().and_then(Result::ok).unwrap_or_default()["hosts"]
            .as_array()
            .is_some_and(|hosts| hosts.len() == 1)
    };
    eventually("its heartbeats are not believed", host, heard);
    // Each SVID of the host is on record before it is shown.
    assert!(host.audit().iter().any(|record| record["kind"] == "issuance" && record["spiffe_id"] == id(HOST).as_str()));
}

#[test]
fn a_host_of_a_site_with_spire_is_whom_spire_says_at_nats_for_operators_and_in_its_cluster() {
    const TEST: &str = "a_host_of_a_site_with_spire_is_whom_spire_says_at_nats_for_operators_and_in_its_cluster";
    let settings = Settings { broker: Some(id(HOST)), ..Settings::default() };
    let Some(mut spire) = Spire::start_with(TEST, settings) else { return };
    spire.register_this_user(DELEGATE);
    spire.register_this_user(ANN);
    let entry = spire.register_this_user(HOST);
    spire.register("/ns/test/sa/hello", &["portcullis:component:test:hello"]);
    let bundle = spire.server_says(["bundle", "show", "-format", "spiffe"]);
    let Some(nats) = server(TEST, &bundle) else { return };
    let place = tempfile::tempdir().unwrap();
    let until = Instant::now() + LONG;
    // The agent hears of entries every few seconds.
    while asks(place.path(), &["identity", "fetch", "--workload-api", &spire.workload_api(), "--id", &id(ANN)]).exit
        != 0
    {
        assert!(Instant::now() < until, "{}", spire.log());
        std::thread::sleep(Duration::from_millis(500));
    }
    operator(place.path(), &spire, &nats, &bundle);
    asks(place.path(), &["cluster", "init", "--operator", "nats.toml"]).ok();

    // By either way of components' identities.
    let host = Host::start(site(&spire, &nats, "broker"));
    is_whom_spire_says(&host, place.path());
    drop(host.stop());
    let host = Host::start(site(&spire, &nats, "spire-delegated"));
    is_whom_spire_says(&host, place.path());
    let ask = |way: &str| asks(place.path(), &["list", "--operator", way, "--host", "h1"]);

    // An outage of the agent changes nothing while what is held is valid.
    spire.stop_agent();
    std::thread::sleep(Duration::from_secs(3));
    for way in WAYS {
        ask(way).ok();
    }
    spire.start_agent();

    // The site takes the host's entry away: it is nobody any more, and says so.
    spire.unregister(&entry);
    wait_problem(&host, "control.https: the host has no X.509-SVID");
    let gone = ask("https.toml");
    assert_ne!(gone.exit, 0, "{}{}", gone.out, gone.err);
    let gone = ask("nats.toml");
    assert_ne!(gone.exit, 0, "{}{}", gone.out, gone.err);
    spire.register_this_user(HOST);
    wait_ready(&host);
    for way in WAYS {
        eventually("it is not believed again", &host, || ask(way).exit == 0);
    }
}

#[test]
fn without_the_agents_workload_api_a_host_of_such_a_site_can_be_nobody_itself_and_is_told_so() {
    let mut site = Site::new();
    site.trust_domain(TRUST_DOMAIN);
    site.config(
        "[identity]\nsource = \"spire-delegated\"\n[identity.spire]\nadmin_socket = \"admin.sock\"\n\n\
         [cluster]\nname = \"test\"\nhost = \"h1\"\n\n[control]\nhttps = \"127.0.0.1:0\"\n\n\
         [nats]\nservers = [\"tls://localhost:1\"]\naccount = \"CTL\"\n[nats.tls]\nca = \"ca.pem\"\n[nats.auth]\nsvid = true\n",
    );
    site.write();
    let refused = site.run(["config", "check", "--config", "portcullis.toml"]);
    assert_eq!(refused.exit, 64, "{}{}", refused.out, refused.err);
    let said = format!("{}{}", refused.out, refused.err);
    for key in ["control.https", "cluster.host", "nats.auth"] {
        assert!(said.contains(&format!("{key}: needs an identity of the host itself")), "{key}: {said}");
    }
    assert!(said.contains("identity.spire.workload_socket"), "{said}");
}
