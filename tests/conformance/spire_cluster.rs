//! Two hosts of a site with SPIRE behind a callout that knows the site's bundle and nothing else: they log in with what SPIRE gave them,
//! certificate and token, and so does the connection of each component, and the one that components share; what a host signs as
//! SPIRE's entry calls it, the other one and the operator believe; and whoever SPIRE does not know any more is out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_tests::cluster::inbox_of;
use portcullis_tests::guests;
use portcullis_tests::host::Host;
use portcullis_tests::http;
use portcullis_tests::nats::hosted::wait_ready;
use portcullis_tests::nats::pki::{Authority, replace};
use portcullis_tests::nats::responder::Callout;
use portcullis_tests::nats::{self, NatsServer};
use portcullis_tests::patience::until;
use portcullis_tests::site::{CLUSTER, Site};
use portcullis_tests::spire::{DELEGATE, Spire, TRUST_DOMAIN};
use serde_json::Value;

use crate::{ANN, asks, id, pem};

const CALLOUT: &str = "/callout";
const MESSENGER: &str = "/ns/test/sa/messenger";
const LISTENER: &str = "/ns/test/sa/listener";

/// The operator's folder with everything of the server's and the callout's, and both of them.
struct Place {
    server: NatsServer,
    callout: Callout,
    folder: tempfile::TempDir,
}

impl Place {
    fn start(test: &str, spire: &Spire) -> Option<Self> {
        nats::program(test)?;
        let folder = nats::folder();
        let (here, server_folder) = (folder.path(), nats::folder());
        let bundle = spire.server_says(["bundle", "show", "-format", "spiffe"]);
        std::fs::write(here.join("bundle.json"), bundle.to_string()).unwrap();
        std::fs::write(here.join("clients.pem"), pem(&bundle)).unwrap();
        for (path, out) in [(ANN, "ann"), (CALLOUT, "callout")] {
            let (api, id) = (spire.workload_api(), id(path));
            let fetch = ["identity", "fetch", "--workload-api", &api, "--id", &id, "--out-dir", out];
            // The agent hears of entries every few seconds.
            until("SPIRE gives an SVID", || asks(here, &fetch).exit == 0, || spire.log());
        }
        let authority = Authority::new("NATS of a test");
        authority.server().write(server_folder.path(), "server");
        authority.write(server_folder.path(), "ca");
        let port = nats::free_port();
        let config = init(here, server_folder.path(), port);
        let server = NatsServer::start_on(test, server_folder, &config, port)?;
        let callout = Callout::start(&here.join("nats/callout.toml"), &here.join("nats/state"));
        let place = Self { server, callout, folder };
        place.operator();
        Some(place)
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn ca(&self) -> PathBuf {
        self.server.folder().join("ca.pem")
    }

    /// `operator.toml`: an SVID of SPIRE, shown to the server and signed with.
    fn operator(&self) {
        let text = format!(
            "version = 1\ntrust_domain = \"{TRUST_DOMAIN}\"\nbundle = \"bundle.json\"\ncluster = \"{CLUSTER}\"\n[key]\nsvid = \"ann/svid.pem\"\n\
             svid_key = \"ann/svid_key.pem\"\n\n[nats]\nservers = [\"{}\"]\naccount = \"CTL\"\nuser = \"{ann}\"\ninbox_prefix = \"{}\"\n\
             [nats.tls]\nca = \"{}\"\nfirst = true\n[nats.auth]\ncertificate = \"ann/svid.pem\"\nkey = \"ann/svid_key.pem\"\n",
            self.server.tls_url(),
            inbox_of(&id(ANN)),
            self.ca().display(),
            ann = id(ANN)
        );
        std::fs::write(self.path().join("operator.toml"), text).unwrap();
    }

    fn ask(&self, command: &[&str]) -> portcullis_tests::site::Ended {
        asks(self.path(), &[command, &["--operator", "operator.toml"]].concat())
    }

    /// The hosts whose heartbeats the operator believes.
    fn heard(&self) -> Vec<String> {
        let status = self.ask(&["cluster", "status", "--listen", "2"]);
        let mut documents = serde_json::Deserializer::from_str(&status.out).into_iter::<Value>();
        let status = documents.next().and_then(Result::ok).unwrap_or_default();
        let hosts = status["hosts"].as_array().cloned().unwrap_or_default();
        hosts.iter().filter_map(|host| host["host"].as_str().map(str::to_owned)).collect()
    }

    /// What the callout recorded about letting this ID in.
    fn let_in(&self, path: &str) -> Vec<Value> {
        let is =
            |record: &Value| record["kind"] == "callout-allow" && record["placement"]["workload"] == id(path).as_str();
        self.callout.audit().into_iter().filter(is).collect()
    }
}

/// Has `callout init` write everything, and adds what components need: an account of their own, and a role for each who connects there.
fn init(here: &Path, server: &Path, port: u16) -> String {
    let text = |path: PathBuf| path.display().to_string();
    let written = [
        ("--cluster", CLUSTER.to_owned()),
        ("--account", "CTL".to_owned()),
        ("--operator", id(ANN)),
        ("--trust-domain", format!("{TRUST_DOMAIN}={}", text(here.join("bundle.json")))),
        ("--listen", format!("127.0.0.1:{port}")),
        ("--server", format!("tls://localhost:{port}")),
        ("--ca", text(here.join("clients.pem"))),
        ("--server-ca", text(server.join("ca.pem"))),
        ("--server-certificate", text(server.join("server.pem"))),
        ("--server-key", text(server.join("server.key"))),
        ("--certificate", text(here.join("callout/svid.pem"))),
        ("--key", text(here.join("callout/svid_key.pem"))),
    ];
    let mut arguments = vec!["callout", "init", "nats", "--jetstream"];
    arguments.extend(written.iter().flat_map(|(name, value)| [*name, value.as_str()]));
    asks(here, &arguments).ok();
    change(
        &here.join("nats/callout.toml"),
        &[("accounts = [\"CTL\"]", "accounts = [\"CTL\", \"APPS\"]"), (":9222", ":0")],
    );
    change(&here.join("nats/server.conf"), &[("accounts {\n", "accounts {\n  APPS {}\n")]);
    // Hosts show a token, too, and are not let in without one.
    change(&here.join("nats/policy/roles.toml"), &[("responses = 1\n", "responses = 1\ncredential = \"both\"\n")]);
    let roles = here.join("nats/policy/roles.toml");
    let own = |name: &str| format!("_INBOX_{}.>", &portcullis_signing::Digest::of(id(name).as_bytes()).hex()[..20]);
    let role = |name: &str, path: &str, publish: &str, subscribe: &str, more: &str| {
        format!(
            "\n[[role]]\nid = \"{name}\"\nreason = \"r\"\nowner = \"o\"\nwho = \"{}\"\naccount = \"APPS\"\n\
             publish = [\"{publish}\", \"$SYS.REQ.USER.INFO\"]\nsubscribe = [{subscribe}]\nlifetime = \"1h\"\n{more}\n",
            id(path)
        )
    };
    let all = [
        std::fs::read_to_string(&roles).unwrap(),
        role("messenger", MESSENGER, "orders.ask", &format!("\"{}\"", own(MESSENGER)), ""),
        role(
            "listener",
            LISTENER,
            "report.listener",
            &format!("\"orders.> component.test.listener\", \"{}\"", own(LISTENER)),
            "responses = 1",
        ),
        role("shared", "/portcullis/data/h2", "orders.ask", "\"_INBOX_data_h2.>\"", "credential = \"both\""),
    ];
    replace(&here.join("nats/policy"), "roles.toml", &all.concat());
    let config = std::fs::read_to_string(here.join("nats/server.conf")).unwrap();
    let (before, rest) = config.split_once("listen: ").unwrap();
    format!("{before}{}", rest.split_once('\n').unwrap().1)
}

fn change(path: &Path, changes: &[(&str, &str)]) {
    let mut text = std::fs::read_to_string(path).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{from} is not in {}", path.display());
        text = text.replacen(from, to, 1);
    }
    std::fs::write(path, text).unwrap();
}

/// A host of the site. `messaging` is how its components connect, `components` what they are and may do.
fn host(spire: &Spire, place: &Place, name: &str, messaging: &str, components: &[(&str, &str)]) -> Host {
    let mut site = Site::new();
    site.trust_domain(TRUST_DOMAIN);
    for (component, may) in components {
        site.guest(component, may);
    }
    site.sign("hello", &guests::ours("hello"));
    std::fs::create_dir(site.file("apps")).unwrap();
    for file in ["hello.wasm", "hello.wasm.sigstore.json"] {
        std::fs::copy(site.file(file), site.file("apps").join(file)).unwrap();
    }
    site.grants(&format!(
        "\n[[grant]]\nid = \"hello\"\nreason = \"r\"\nowner = \"o\"\ncomponent = \"test:hello\"\nload = true\ncallers = [\"anonymous\"]\n\n\
         [[operator]]\nid = \"ann\"\nreason = \"r\"\nowner = \"o\"\nwho = \"{}\"\nhosts = [\"*\"]\ncomponents = [\"*\"]\n\
         actions = [\"status\", \"list\", \"deploy\", \"revoke\"]\n",
        id(ANN)
    ));
    std::fs::copy(place.ca(), site.file("ca.pem")).unwrap();
    for seed in ["host.nk", "data.nk"] {
        replace(site.path(), seed, &nkeys::KeyPair::new_user().seed().unwrap());
    }
    let token = |seed: &str| format!("svid = true\njwt_audience = \"{}\"\nnkey = \"{seed}\"\n", id(CALLOUT));
    site.config(&format!(
        "[identity]\nsource = \"spire-delegated\"\n[identity.spire]\nworkload_socket = \"{}\"\nadmin_socket = \"{}\"\n\n\
         [cluster]\nname = \"{CLUSTER}\"\nhost = \"{name}\"\nfiles = \"apps\"\nheartbeat_ms = 800\nread_ms = 1000\n\n\
         [nats]\nservers = [\"{}\"]\naccount = \"CTL\"\n[nats.tls]\nca = \"ca.pem\"\nfirst = true\n[nats.auth]\n{}\n{}",
        spire.workload_socket().display(),
        spire.admin_socket().display(),
        place.server.tls_url(),
        token("host.nk"),
        messaging.replace("TOKEN", &token("data.nk"))
    ));
    Host::start(site)
}

/// Writes a manifest of `test:hello` with one replica and deploys it.
fn deploy(place: &Place, host: &Host) {
    let bytes = std::fs::read(host.site().file("apps/hello.wasm")).unwrap();
    let digest = portcullis_signing::Digest::of(&bytes);
    let text = format!(
        "component = \"test:hello\"\ndigest = \"{digest}\"\nreplicas = 1\n\n[source]\nfile = \"hello.wasm\"\n\n[[route]]\npath = \"/hello\"\n"
    );
    std::fs::write(place.path().join("hello.toml"), text).unwrap();
    place.ask(&["cluster", "deploy", "hello.toml"]).ok();
}

fn answers(host: &Host) -> bool {
    http::get(host.http(), "/hello", &[]).status == 200
}

/// A component of this host asks the listener, which is one of h1.
fn asked(host: &Host) -> Result<String, Value> {
    let answer = http::post(host.http(), "/messenger/request?subject=orders.ask", b"a question");
    let said = answer.json();
    if answer.status == 200 { Ok(said["body"].as_str().unwrap_or_default().to_owned()) } else { Err(said) }
}

#[test]
fn hosts_and_components_log_in_with_what_spire_gave_them_and_are_believed_as_whom_it_names() {
    const TEST: &str = "hosts_and_components_log_in_with_what_spire_gave_them_and_are_believed_as_whom_it_names";
    let Some(spire) = Spire::start(TEST) else { return };
    for path in [DELEGATE, ANN, CALLOUT, "/portcullis/host/h1", "/portcullis/host/h2", "/portcullis/data/h2"] {
        spire.register_this_user(path);
    }
    let messenger = spire.register(MESSENGER, &["portcullis:component:test:messenger"]);
    spire.register(LISTENER, &["portcullis:component:test:listener"]);
    spire.register("/ns/test/sa/hello", &["portcullis:component:test:hello"]);
    let Some(place) = Place::start(TEST, &spire) else { return };
    place.ask(&["cluster", "init"]).ok();

    let asks_for = "request = [\"orders.ask\"]\nidentity = [\"x509\"]";
    let h1 = host(
        &spire,
        &place,
        "h1",
        "[messaging]\nper_component = true\naccount = \"APPS\"\n",
        &[
            ("messenger", asks_for),
            ("listener", "subscribe = [\"orders.>\"]\npublish = [\"report.listener\"]\nidentity = [\"x509\"]"),
        ],
    );
    let shared =
        "[nats.data]\naccount = \"APPS\"\ninbox_prefix = \"_INBOX_data_h2\"\n[nats.data.auth]\nTOKEN\n[messaging]\n";
    let h2 = host(&spire, &place, "h2", shared, &[("messenger", asks_for)]);
    let logs = || format!("{}\n{}\n{}", h1.log(), h2.log(), place.callout.log());
    for host in [&h1, &h2] {
        wait_ready(host);
    }

    // Each was let in by what SPIRE issued: its own certificate, and a token that is bound to the key that it signed the nonce with.
    for name in ["h1", "h2"] {
        let records = place.let_in(&format!("/portcullis/host/{name}"));
        assert!(
            records.iter().any(|record| record["nkey"].as_str().is_some_and(|key| key.starts_with('U'))),
            "{records:#?}"
        );
    }
    for (host, name) in [(&h1, "h1"), (&h2, "h2")] {
        let own = id(&format!("/portcullis/host/{name}"));
        let token = host.record(&[("kind", "issuance"), ("svid", "jwt"), ("spiffe_id", &own)]);
        assert_eq!(token["audiences"][0], id(CALLOUT).as_str(), "{token:#}");
        assert!(
            host.ask_status(0)["nats"].as_str().is_some_and(|nats| nats.contains(&own)),
            "{:#}",
            host.ask_status(0)
        );
    }

    // The connections of components, each by its own SVID, and the shared one by that of the host's data link.
    until("h1's messenger reaches the listener", || asked(&h1).is_ok_and(|body| body == "a question"), logs);
    until("h2's messenger reaches the listener", || asked(&h2).is_ok_and(|body| body == "a question"), logs);
    for path in [MESSENGER, LISTENER, "/portcullis/data/h2"] {
        let records = place.let_in(path);
        assert!(!records.is_empty(), "{path} was let in by the callout\n{}", place.callout.log());
        assert_eq!(records[0]["placement"]["account"], "APPS", "{records:#?}");
    }

    // They believe one another by the site's bundle: of both, one runs it, and the other one when the first says that it leaves.
    until("the operator believes both", || place.heard() == ["h1", "h2"], logs);
    // Before SPIRE gave it the bundle, a host that began to hear the other one believed nobody.
    let doubts = |one: &Host, other: &Host| (one.log() + &other.log()).matches("is not believed").count();
    let before = doubts(&h1, &h2);
    deploy(&place, &h1);
    until("one runs it", || answers(&h1) || answers(&h2), logs);
    std::thread::sleep(Duration::from_secs(4));
    let on_h1 = answers(&h1);
    assert_ne!(on_h1, answers(&h2), "one, not both: each would run it that believed to be alone\n{}", logs());
    // Where SPIRE knows the messenger no more it is nobody at NATS either.
    spire.unregister(&messenger);
    until("the messenger is out", || asked(&h1).is_err(), logs);
    let (leaves, stays) = if on_h1 { (h1, h2) } else { (h2, h1) };
    assert_eq!(doubts(&leaves, &stays), before, "{}\n{}", leaves.log(), stays.log());
    drop(leaves.stop());
    until("the other one runs it", || answers(&stays), || stays.log());
}
