//! Peers of a federated trust domain, good ones and all kinds of bad ones, against a running host: handshakes, tokens, and what
//! becomes of connections that stand when trust changes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

mod live;
mod partner;
mod policy;
mod tls;
mod tokens;

use portcullis_tests::guests;
use portcullis_tests::host::Host;
use portcullis_tests::http;
use portcullis_tests::site::Site;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
};
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use self::partner::{Partner, uri};

/// A host that federates with `partner.example`, whose ledger may call the component `inner`; and, where given, with an outgoing
/// destination that the ledger serves.
struct Federated {
    host: Host,
    partner: Partner,
}

const INNER: &str = "inner.example";
const LEDGER: &str = "ns/pay/sa/ledger";

fn federated(also: &[&Partner], ledger_port: Option<u16>, partner: Partner) -> Federated {
    let mut site = Site::new();
    let mtls = portcullis_tests::port::reserved();
    let rights = "identity = [\"read\", \"bundles\", \"peer\", \"x509\", \"validate\"]\n";
    let ledger = partner.id(LEDGER);
    let callers = format!("callers = [\"anonymous\", \"{ledger}\", \"spiffe://test.example/ns/test/sa/greeter\"]\n");
    site.component(
        "inner",
        &guests::ours("identity"),
        &format!("link = [\"portcullis:identity/*\"]\n{rights}{callers}"),
    );
    site.component(
        "other",
        &guests::ours("identity"),
        &format!("link = [\"portcullis:identity/*\"]\n{rights}{callers}"),
    );
    site.guest(
        "greeter",
        "link = [\"portcullis:identity/*\", \"wasmcloud:identity/*\"]\nidentity = [\"read\", \"x509\"]\naudiences = [\"vault\"]",
    );
    let mut out = vec![("inner", INNER, mtls, "spiffe://test.example/ns/test/sa/inner".to_owned())];
    out.extend(ledger_port.map(|port| ("ledger", "ledger.example", port, ledger)));
    for (id, host, port, peer) in out {
        site.grants(&format!(
            "\n[[grant]]\nid = \"greeter-{id}\"\nreason = \"a test\"\nowner = \"tests\"\ncomponent = \"test:greeter\"\n\
             http = [\"https://{host}:{port}\"]\npeer = \"{peer}\"\naddresses = [\"loopback\"]\n"
        ));
    }
    site.config(&format!(
        "[[route]]\nhost = \"{INNER}\"\ncomponent = \"test:inner\"\n\n[[route]]\nhost = \"{INNER}\"\npath = \"/elsewhere\"\ncomponent = \"test:other\"\n\n[[route]]\nhost = \"other.example\"\ncomponent = \"test:other\"\n\n\
         [names]\n\"{INNER}\" = [\"127.0.0.1\"]\n\"ledger.example\" = [\"127.0.0.1\"]\n\n\
         [listen]\nhttp = \"127.0.0.1:0\"\nmtls = \"127.0.0.1:{mtls}\"\n\n"
    ));
    for one in std::iter::once(&partner).chain(also.iter().copied()) {
        let name = &one.domain;
        std::fs::write(site.file(&format!("{name}.json")), one.bundle()).unwrap();
        // Nobody serves the endpoint: the bootstrap bundle stays in force.
        site.config(&format!(
            "[[federation.peer]]\ntrust_domain = \"{name}\"\nurl = \"https://127.0.0.1:9/bundle\"\nprofile = \"https_spiffe\"\n\
             endpoint_spiffe_id = \"spiffe://{name}/endpoint\"\nbootstrap = \"{name}.json\"\n\n"
        ));
    }
    Federated { host: Host::ready(site), partner }
}

impl Federated {
    /// What the guest is told of its caller, or the status and the text of the refusal, or that the handshake failed.
    fn caller(&self, identity: partner::Identity) -> Result<Value, String> {
        match tls::get(self.host.mtls(), INNER, "/inner/caller", Some(identity)) {
            Ok(answer) if answer.status == 200 => Ok(answer.json()),
            Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
            Err(error) => Err(format!("refused in the handshake: {error}")),
        }
    }

    /// Waits for the record of a failed handshake with this in its text.
    fn refused_for(&self, why: &str) {
        let end = std::time::Instant::now() + portcullis_tests::patience::LONG;
        let is = |record: &Value| {
            record["kind"] == "failure" && record["detail"].as_str().is_some_and(|detail| detail.contains(why))
        };
        while !self.host.audit().iter().any(is) {
            assert!(std::time::Instant::now() < end, "no record says {why:?}: {:#?}", self.host.audit().last());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

#[test]
fn peers_of_a_federated_domain_are_known_by_their_own_bundle_and_all_others_are_refused() {
    let fenced = Partner::with("fenced.example", |params| {
        // permittedSubtrees { uniformResourceIdentifier "fenced.example" }
        let subtrees = b"\x30\x14\xa0\x12\x30\x10\x86\x0efenced.example";
        let mut constraints = CustomExtension::from_oid_content(&[2, 5, 29, 30], subtrees.to_vec());
        constraints.set_criticality(true);
        params.custom_extensions.push(constraints);
    });
    let site = federated(&[&fenced], None, Partner::new("partner.example"));
    the_ledger_gets_in_and_the_guest_knows_who_it_is(&site);
    a_federated_caller_that_is_not_granted_is_refused_by_policy(&site);
    malformed_leaves_are_refused_in_the_handshake(&site);
    a_chain_of_one_domain_never_names_an_id_of_another(&site);
    uri_name_constraints_are_refused_readably(&site, &fenced);
    a_request_for_another_component_than_the_one_shown_is_misdirected(&site);
    headers_that_claim_an_identity_reach_nobody(&site);
    the_guest_reads_the_bundles_of_both_domains(&site);
    tokens::of_a_federated_domain_are_checked_in_full(&site);
}

fn the_ledger_gets_in_and_the_guest_knows_who_it_is(site: &Federated) {
    let caller =
        site.caller(site.partner.leaf(LEDGER, |_| ())).unwrap_or_else(|why| panic!("{why}\n{}", site.host.log()));
    assert_eq!(caller["spiffe_id"], site.partner.id(LEDGER));
    assert_eq!(caller["trust_domain"], "partner.example");
    let left = caller["expires_at"].as_i64().unwrap() - OffsetDateTime::now_utc().unix_timestamp();
    assert!((3500..=3600).contains(&left), "{left}");
    let anonymous = http::get(site.host.http(), "/inner/caller", &[]);
    assert_eq!((anonymous.status, anonymous.json()), (200, Value::Null), "{}", anonymous.text());
}

fn a_federated_caller_that_is_not_granted_is_refused_by_policy(site: &Federated) {
    let refused = site.caller(site.partner.leaf("ns/pay/sa/ledger2", |_| ())).unwrap_err();
    assert!(refused.starts_with("403 "), "{refused}");
    let record = site.host.record(&[("kind", "denial"), ("code", "C0201")]);
    assert!(record["text"].as_str().unwrap().contains("spiffe://partner.example/ns/pay/sa/ledger2"), "{record}");
}

fn malformed_leaves_are_refused_in_the_handshake(site: &Federated) {
    let now = OffsetDateTime::now_utc();
    type Change = Box<dyn Fn(&mut CertificateParams)>;
    let two = uri(&site.partner.id("ns/pay/sa/second"));
    let root = uri("spiffe://partner.example");
    let cases: Vec<(&str, Change)> = vec![
        (
            "has 0 URI names",
            Box::new(|p| p.subject_alt_names = vec![SanType::DnsName("partner.example".try_into().unwrap())]),
        ),
        ("has 2 URI names", Box::new(move |p| p.subject_alt_names.push(two.clone()))),
        ("names a trust domain", Box::new(move |p| p.subject_alt_names = vec![root.clone()])),
        ("no SPIFFE ID", Box::new(|p| p.subject_alt_names = vec![uri("https://partner.example/ns/pay/sa/ledger")])),
        ("certificate authority", Box::new(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        ("no basic constraints", Box::new(|p| p.is_ca = IsCa::NoCa)),
        ("key usage must be critical", Box::new(|p| p.key_usages = vec![KeyUsagePurpose::KeyEncipherment])),
        ("key usage must be critical", Box::new(|p| p.key_usages.push(KeyUsagePurpose::KeyCertSign))),
        ("extended key usage", Box::new(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth])),
        ("Expired", Box::new(move |p| p.not_after = now - Duration::seconds(5))),
        ("NotValidYet", Box::new(move |p| p.not_before = now + Duration::hours(1))),
    ];
    for (why, change) in cases {
        let refused = site.caller(site.partner.leaf(LEDGER, change)).unwrap_err();
        assert!(refused.starts_with("refused in the handshake"), "{why}: {refused}");
        site.refused_for(why);
    }
    let nobody = tls::get(site.host.mtls(), INNER, "/inner/caller", None);
    assert!(nobody.is_err(), "{nobody:?}");
}

fn a_chain_of_one_domain_never_names_an_id_of_another(site: &Federated) {
    // The partner's authority names our greeter, which may call: our own authorities decide on our own IDs alone.
    let ours = |p: &mut CertificateParams| p.subject_alt_names = vec![uri("spiffe://test.example/ns/test/sa/greeter")];
    let refused = site.caller(site.partner.leaf(LEDGER, ours)).unwrap_err();
    assert!(refused.starts_with("refused in the handshake"), "{refused}");
    site.refused_for("UnknownIssuer");
    // Another authority names the ledger; and one that nobody federates with names somebody of its own.
    let stranger = Partner::new("stranger.example");
    let forged =
        |p: &mut CertificateParams| p.subject_alt_names = vec![uri("spiffe://partner.example/ns/pay/sa/ledger")];
    assert!(site.caller(stranger.leaf(LEDGER, forged)).unwrap_err().starts_with("refused in the handshake"));
    assert!(site.caller(stranger.leaf(LEDGER, |_| ())).unwrap_err().starts_with("refused in the handshake"));
    site.refused_for("trust domain stranger.example is not trusted");
}

fn uri_name_constraints_are_refused_readably(site: &Federated, fenced: &Partner) {
    assert!(site.caller(fenced.leaf(LEDGER, |_| ())).unwrap_err().starts_with("refused in the handshake"));
    site.refused_for("chain has name constraints, which are not supported");
}

fn a_request_for_another_component_than_the_one_shown_is_misdirected(site: &Federated) {
    let mut client = tls::Client::connect(site.host.mtls(), INNER, Some(site.partner.leaf(LEDGER, |_| ()))).unwrap();
    let misdirected = client.ask("GET /inner/caller HTTP/1.1\r\nhost: other.example", b"").unwrap();
    assert_eq!(misdirected.status, 421, "{misdirected:?}");
    // The right name, but a path that another component answers.
    let misdirected = client.ask(&format!("GET /elsewhere/caller HTTP/1.1\r\nhost: {INNER}"), b"").unwrap();
    assert_eq!(misdirected.status, 421, "{misdirected:?}");
    let right = client.ask(&format!("GET /inner/caller HTTP/1.1\r\nhost: {INNER}:443"), b"").unwrap();
    assert_eq!(right.status, 200, "{right:?}");
    let unknown =
        tls::get(site.host.mtls(), "nobody.example", "/inner/caller", Some(site.partner.leaf(LEDGER, |_| ())));
    assert!(unknown.is_err(), "{unknown:?}");
    site.refused_for("server name that is not served");
}

fn headers_that_claim_an_identity_reach_nobody(site: &Federated) {
    let claims = [
        "x-forwarded-client-cert",
        "X_Forwarded_Client_Cert",
        "x-spiffe-id",
        "client-cert",
        "l5d-client-id",
        "ssl-client-s-dn",
        "x-ssl-client-cert",
        "x-forwarded-tls-client-cert",
        "x-amzn-mtls-clientcert-leaf",
        "x-portcullis-caller",
    ];
    let greeter = "spiffe://test.example/ns/test/sa/greeter";
    let lines: String = claims.iter().map(|name| format!("{name}: URI={greeter}\r\n")).collect();
    let asked = |path: &str| format!("GET /inner/{path} HTTP/1.1\r\nhost: {INNER}\r\n{lines}x-kept: 1");
    let mut client = tls::Client::connect(site.host.mtls(), INNER, Some(site.partner.leaf(LEDGER, |_| ()))).unwrap();
    let over_tls = client.ask(&asked("headers"), b"").unwrap();
    let over_http =
        http::raw(site.host.http(), format!("{}\r\nconnection: close\r\n\r\n", asked("headers")).as_bytes());
    for answer in [over_tls, over_http] {
        let names: Vec<String> = serde_json::from_value(answer.json()).unwrap();
        assert!(names.iter().any(|name| name == "x-kept"), "{names:?}");
        for claim in claims {
            assert!(!names.iter().any(|name| name.eq_ignore_ascii_case(claim)), "{claim} reached the guest: {names:?}");
        }
    }
    // Who calls stays who showed the certificate, or nobody.
    assert_eq!(client.ask(&asked("caller"), b"").unwrap().json()["spiffe_id"], site.partner.id(LEDGER));
    let anonymous = http::raw(site.host.http(), format!("{}\r\nconnection: close\r\n\r\n", asked("caller")).as_bytes());
    assert_eq!((anonymous.status, anonymous.json()), (200, Value::Null));
}

fn the_guest_reads_the_bundles_of_both_domains(site: &Federated) {
    let ask = |path: &str| http::get(site.host.http(), &format!("/inner/{path}"), &[]).json();
    assert_eq!(
        ask("domains")["trust_domains"],
        serde_json::json!(["test.example", "fenced.example", "partner.example"])
    );
    let parse = |value: &Value| serde_json::from_str::<Value>(value["bundle"].as_str().unwrap()).unwrap();
    assert_eq!(
        parse(&ask("bundle-for?td=partner.example")),
        serde_json::from_str::<Value>(&site.partner.bundle()).unwrap()
    );
    assert_eq!(parse(&ask("bundle-for?td=test.example")), parse(&ask("bundle")));
    assert_eq!(parse(&ask("bundle"))["keys"], site.host.run(["identity", "bundle"]).ok().json()["keys"]);
    assert_eq!(ask("bundle-for?td=stranger.example")["bundle"], Value::Null);
    assert_eq!(ask("bundle-for?td=")["error"], "invalid-argument");
    assert_eq!(ask("bundle-for?td=a%20b")["error"], "invalid-argument");
}
