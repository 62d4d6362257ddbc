//! Outgoing requests: where a guest may not go, by name and by address, in whatever spelling, and what a fix opens.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::fmt::Write;
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use portcullis_tests::guests;
use portcullis_tests::host::Host;
use portcullis_tests::http::{self, Answer};
use portcullis_tests::patience::LONG;
use portcullis_tests::server::Server;
use portcullis_tests::site::{Site, ended};
use serde_json::{Value, json};

/// A host with the greeter, and servers on loopback.
struct Bench {
    host: Host,
    /// Granted with its address.
    open: Server,
    /// Granted, its address not.
    by_name_only: Server,
    /// Not granted.
    closed: Server,
    /// Granted with its address; sends everybody to `closed`.
    redirecting: Server,
}

static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let closed = Server::saying("closed");
    let location = format!("http://127.0.0.1:{}/secret", closed.port());
    let redirect =
        format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let (open, by_name_only) = (Server::saying("open"), Server::saying("by name only"));
    let redirecting = Server::answering(redirect);
    let mut site = Site::new();
    site.guest("greeter", "link = [\"portcullis:identity/*\", \"wasmcloud:identity/*\"]\nidentity = [\"read\", \"x509\"]\naudiences = [\"vault\"]");
    let loopback = "addresses = [\"loopback\"]";
    grant(&mut site, "open", &format!("http://127.0.0.1:{}", open.port()), loopback);
    grant(&mut site, "open-name", &format!("http://api.test.internal:{}", open.port()), loopback);
    grant(&mut site, "by-name-only", &format!("http://127.0.0.1:{}", by_name_only.port()), "");
    grant(&mut site, "named-loopback", &format!("http://inside.test.internal:{}", open.port()), "");
    grant(&mut site, "redirecting", &format!("http://127.0.0.1:{}", redirecting.port()), loopback);
    grant(&mut site, "metadata", "http://meta.test.internal", "addresses = [\"loopback\", \"private\"]");
    grant(&mut site, "metadata-or-open", &format!("http://both.test.internal:{}", open.port()), loopback);
    grant(&mut site, "public", "http://private.test.internal", "");
    site.config(
        "[names]\n\"api.test.internal\" = [\"127.0.0.1\"]\n\"inside.test.internal\" = [\"127.0.0.1\"]\n\"meta.test.internal\" = [\"169.254.169.254\"]\n\
         \"both.test.internal\" = [\"169.254.169.254\", \"127.0.0.1\"]\n\"private.test.internal\" = [\"10.1.2.3\", \"192.168.1.1\", \"fd12::1\", \"::1\"]\n",
    );
    Bench { host: Host::ready(site), open, by_name_only, closed, redirecting }
});

fn grant(site: &mut Site, id: &str, destination: &str, more: &str) {
    site.grants(&format!(
        "\n[[grant]]\nid = \"greeter-{id}\"\nreason = \"a test\"\nowner = \"tests\"\ncomponent = \"test:greeter\"\nhttp = [\"{destination}\"]\n{more}\n"
    ));
}

/// What greeter gets for a URL.
fn fetch(host: &Host, url: &str) -> Answer {
    let encoded = url.bytes().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "%{byte:02x}");
        text
    });
    http::get(host.http(), &format!("/greeter/fetch?url={encoded}"), &[])
}

/// The guest gets the WASI error code and no reason; the operator finds a denial of this very request, which comes back.
fn denied(url: &str, wasi: &str, code: &str) -> Value {
    let seen = BENCH.host.audit().len();
    let answer = fetch(&BENCH.host, url);
    assert_eq!((answer.status, &answer.json()["error"]), (403, &wasi.into()), "{url}: {}", answer.text());
    let shown = url.split('/').nth(2).unwrap();
    assert!(!answer.text().contains(shown), "{url}: the guest is told more than a code: {}", answer.text());
    let port = canonical_port(url);
    let fits = |record: &&Value| {
        let code_fits = record["seen_code"].as_str().is_some_and(|seen| seen.starts_with(code))
            && record["seen_code"] == record["code"];
        let resource_fits = record["denial"]["resource"].as_str().is_some_and(|resource| resource.ends_with(&port));
        record["kind"] == "denial" && record["by"] == "runtime" && code_fits && resource_fits
    };
    let end = Instant::now() + LONG;
    loop {
        if let Some(record) = BENCH.host.audit().iter().skip(seen).find(fits) {
            return record.clone();
        }
        assert!(Instant::now() < end, "{url}: no denial {code} in:\n{:#?}", &BENCH.host.audit()[seen..]);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `:PORT` of a URL, also where it is the scheme's own.
fn canonical_port(url: &str) -> String {
    let authority = url.split('/').nth(2).unwrap();
    let port = authority
        .rsplit_once(':')
        .map(|(_, port)| port)
        .filter(|port| port.bytes().all(|b| b.is_ascii_digit()) && !port.is_empty());
    format!(":{}", port.unwrap_or("80"))
}

#[test]
fn a_destination_that_nobody_granted_is_denied() {
    let url = format!("http://127.0.0.1:{}/", BENCH.closed.port());
    denied(&url, "HTTP-request-denied", "N0201");
    let port = BENCH.closed.port().to_string();
    let of_this = |record: &Value| record["text"].as_str().is_some_and(|text| text.contains(&port));
    let record = BENCH.host.audit().into_iter().find(of_this).expect("a record that names the destination");
    let text = record["text"].as_str().unwrap();
    for word in ["who ", "what ", "why ", "nearest ", "fix ", "test:greeter", "N0201"] {
        assert!(text.contains(word), "no {word} in:\n{text}");
    }
    assert!(BENCH.closed.heads().is_empty(), "something was sent");
}

#[test]
fn another_port_or_scheme_or_name_than_the_granted_one_is_denied() {
    let port = BENCH.open.port();
    let free = portcullis_tests::port::reserved();
    for url in [
        format!("http://127.0.0.1:{free}/"),
        "http://127.0.0.1/".to_owned(),
        format!("https://127.0.0.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://127.0.0.2:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://x.api.test.internal:{port}/"),
        format!("http://test.internal:{port}/"),
        format!("http://api.test.internal.evil.example:{port}/"),
        "http://api.test.internal/".to_owned(),
    ] {
        denied(&url, "HTTP-request-denied", "N0201");
    }
}

#[test]
fn a_granted_destination_whose_address_is_not_granted_is_denied_at_its_address() {
    let url = format!("http://127.0.0.1:{}/", BENCH.by_name_only.port());
    denied(&url, "destination-IP-prohibited", "N0202");
    assert!(BENCH.by_name_only.heads().is_empty(), "something was sent");
    denied(&format!("http://inside.test.internal:{}/", BENCH.open.port()), "destination-IP-prohibited", "N0202");
    denied("http://private.test.internal/", "destination-IP-prohibited", "N0202");
}

#[test]
fn a_granted_destination_with_its_address_passes_and_gets_our_host_header() {
    let port = BENCH.open.port();
    for (url, host) in [
        (format!("http://127.0.0.1:{port}/a"), format!("127.0.0.1:{port}")),
        (format!("http://api.test.internal:{port}/b"), format!("api.test.internal:{port}")),
        (format!("http://API.Test.INTERNAL:{port}/c"), format!("api.test.internal:{port}")),
        (format!("http://api.test.internal.:{port}/d"), format!("api.test.internal:{port}")),
    ] {
        let answer = fetch(&BENCH.host, &url);
        assert_eq!((answer.status, &answer.json()["body"]), (200, &"open".into()), "{url}: {}", answer.text());
        let path = url.rsplit('/').next().unwrap();
        let heads = BENCH.open.heads();
        let head = heads
            .iter()
            .find(|head| head.starts_with(&format!("GET /{path} HTTP/1.1\r\n")))
            .unwrap_or_else(|| panic!("{heads:?}"));
        let lower = head.to_ascii_lowercase();
        assert_eq!(lower.matches("\r\nhost:").count(), 1, "{head}");
        assert!(lower.contains(&format!("\r\nhost: {host}\r\n")), "{head}");
        for name in
            ["connection", "te", "transfer-encoding", "upgrade", "keep-alive", "proxy-", "x-forwarded", "x-portcullis"]
        {
            assert!(!lower.contains(&format!("\r\n{name}")), "{name} in {head}");
        }
    }
}

#[test]
fn every_spelling_of_an_address_is_the_same_destination() {
    for authority in [
        "127.1",
        "0x7f000001",
        "2130706433",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "127.0.1",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "127.0.0.1.",
    ] {
        let granted = fetch(&BENCH.host, &format!("http://{authority}:{}/spelt", BENCH.open.port()));
        assert_eq!(granted.status, 200, "{authority}: {}", granted.text());
        denied(&format!("http://{authority}:{}/", BENCH.closed.port()), "HTTP-request-denied", "N0201");
    }
    let canonical = format!("host: 127.0.0.1:{}", BENCH.open.port());
    let heads = BENCH.open.heads();
    let mut spelt = heads.iter().filter(|head| head.starts_with("GET /spelt"));
    assert!(spelt.all(|head| head.to_ascii_lowercase().contains(&canonical)), "{heads:?}");
    assert!(BENCH.closed.heads().is_empty(), "something was sent");
}

#[test]
fn metadata_and_link_local_addresses_are_out_of_reach_in_every_spelling() {
    for authority in [
        "169.254.169.254",
        "169.254.169.254:80",
        "169.254.1.1",
        "2852039166",
        "0xa9fea9fe",
        "0xa9.0xfe.0xa9.0xfe",
        "0251.0376.0251.0376",
        "[::ffff:169.254.169.254]",
        "[::169.254.169.254]",
        "[64:ff9b::169.254.169.254]",
        "[2002:a9fe:a9fe::1]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "169.254.170.2",
        "100.100.100.200",
        "168.63.129.16",
        "0.0.0.0",
        "0",
        "[::]",
        "224.0.0.1",
        "255.255.255.255",
        "[ff02::1]",
    ] {
        denied(&format!("http://{authority}/latest/meta-data/"), "HTTP-request-denied", "N03");
    }
}

#[test]
fn a_granted_name_that_resolves_to_a_metadata_service_is_denied_at_its_address() {
    let record = denied("http://meta.test.internal/latest/meta-data/", "destination-IP-prohibited", "N03");
    assert_eq!(record["fix"], json!([]), "a guard has no fix: {record}");
    let answer = fetch(&BENCH.host, &format!("http://both.test.internal:{}/both", BENCH.open.port()));
    assert_eq!(answer.status, 200, "the address that is allowed is dialled: {}", answer.text());
}

#[test]
fn what_can_be_read_in_two_ways_is_not_sent() {
    let port = BENCH.open.port();
    let before = BENCH.open.heads().len();
    for authority in [
        format!("user@127.0.0.1:{port}"),
        format!("user:word@127.0.0.1:{port}"),
        format!("evil.example@127.0.0.1:{port}"),
        format!("127.0.0.1:{port}@evil.example"),
        format!("127.0.0.1:0{port}0"),
        "127.0.0.1:0".to_owned(),
        "127.0.0.1:99999".to_owned(),
        format!("127.0.0.1%2e:{port}"),
        format!("127.0.0.1\\@evil.example:{port}"),
        format!("127.0.0.1 :{port}"),
        format!("[::1%25lo]:{port}"),
        format!("127.0.0.256:{port}"),
        format!("127.0.0.08:{port}"),
        format!("1.127.0.0.1:{port}"),
        format!(":{port}"),
        String::new(),
    ] {
        let answer = fetch(&BENCH.host, &format!("http://{authority}/twice"));
        assert!([403, 502].contains(&answer.status) && answer.json()["error"].is_string(), "{authority}: {answer:?}");
    }
    let heads = BENCH.open.heads();
    assert!(heads[before..].iter().all(|head| !head.contains("/twice")), "{heads:?}");
}

#[test]
fn redirects_are_not_followed() {
    let answer = fetch(&BENCH.host, &format!("http://127.0.0.1:{}/", BENCH.redirecting.port()));
    assert_eq!((answer.status, &answer.json()["status"]), (200, &302.into()), "{}", answer.text());
    assert_eq!(BENCH.redirecting.heads().len(), 1);
    assert!(BENCH.closed.heads().is_empty(), "the redirect was followed");
}

#[test]
fn the_fix_of_a_refusal_run_as_printed_opens_that_call_and_no_other() {
    let (server, other) = (Server::saying("fixed"), Server::saying("other"));
    let name_only = Server::saying("address fixed");
    let mut site = Site::new();
    site.guest("greeter", "link = [\"portcullis:identity/*\", \"wasmcloud:identity/*\"]\nidentity = [\"read\", \"x509\"]\naudiences = [\"vault\"]");
    site.component(
        "bystander",
        &guests::ours("greeter"),
        "link = [\"portcullis:identity/*\", \"wasmcloud:identity/*\", \"wasi:http/outgoing-handler\"]",
    );
    grant(&mut site, "name-only", &format!("http://inside.test.internal:{}", name_only.port()), "");
    site.config("[names]\n\"inside.test.internal\" = [\"127.0.0.1\"]\n\n[[route]]\nhost = \"bystander.example\"\ncomponent = \"test:bystander\"\n");
    let host = Host::ready(site);
    let closed = |url: &str| assert_eq!(fetch(&host, url).status, 403, "{url}");
    let url = format!("http://127.0.0.1:{}/", server.port());
    for (url, body) in
        [(url.clone(), "fixed"), (format!("http://inside.test.internal:{}/", name_only.port()), "address fixed")]
    {
        let seen = host.audit().len();
        closed(&url);
        let fix = printed_fix(&host, seen);
        let path =
            std::env::join_paths([portcullis_tests::binary().parent().unwrap(), "/usr/bin".as_ref(), "/bin".as_ref()])
                .unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", &fix]).env("PATH", path).current_dir("/");
        ended(shell.output().unwrap()).ok();
        let answer = fetch(&host, &url);
        assert_eq!((answer.status, &answer.json()["body"]), (200, &body.into()), "after `{fix}`: {}", answer.text());
    }
    closed(&format!("http://127.0.0.1:{}/", other.port()));
    closed(&format!("https://127.0.0.1:{}/", server.port()));
    closed(&format!("http://localhost:{}/", server.port()));
    closed(&format!("http://127.0.0.1:{}/", name_only.port()));
    let encoded = url.replace(':', "%3a").replace('/', "%2f");
    let request =
        format!("GET /greeter/fetch?url={encoded} HTTP/1.1\r\nhost: bystander.example\r\nconnection: close\r\n\r\n");
    let bystander = http::raw(host.http(), request.as_bytes());
    assert_eq!(bystander.status, 403, "another component got it as well: {}", bystander.text());
    assert!(other.heads().is_empty());
    assert_eq!((server.heads().len(), name_only.heads().len()), (1, 1));
}

/// The fix in the text of the first denial after `seen` records, as the operator sees it.
fn printed_fix(host: &Host, seen: usize) -> String {
    for _ in 0..4_500 {
        let records = host.audit();
        let denial = records.iter().skip(seen).find(|record| record["kind"] == "denial" && record["by"] == "runtime");
        if let Some(reference) = denial.and_then(|record| record["ref"].as_str()) {
            let explained = portcullis_tests::site::portcullis([
                "policy".as_ref(),
                "explain".as_ref(),
                reference.as_ref(),
                "--config".as_ref(),
                host.site().file("portcullis.toml").as_os_str(),
            ])
            .ok();
            let fix = explained.out.lines().find_map(|line| line.trim_start().strip_prefix("fix ")).map(str::trim);
            return fix.unwrap_or_else(|| panic!("no fix in:\n{}", explained.out)).to_owned();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("no denial was recorded");
}
