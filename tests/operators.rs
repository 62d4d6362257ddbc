//! Operators of a host under test: a host with HTTPS control, identities for who may use it and who may not, and the wire itself, so
//! that an attacker can say what the command line never would. Shared by several tests, each of which uses a part.
#![allow(dead_code, reason = "shared by tests that use a part each")]

use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_identity::mtls::{TlsStream, connector};
use portcullis_identity::statement::{Draft, HEADER, Jti, SvidKey};
use portcullis_identity::workload_api::pb::X509svidRequest;
use portcullis_identity::workload_api::pb::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use portcullis_identity::{SpiffeId, TrustBundle};
use portcullis_tests::host::Host;
use portcullis_tests::nats::pki::replace;
use portcullis_tests::site::{Ended, Site};
use portcullis_tests::workload;
use prost::Message as _;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[path = "workload_client.rs"]
mod workload_client;

pub const ANN: &str = "spiffe://test.example/ns/test/sa/ann";
pub const LOCAL: &str = "spiffe://test.example/portcullis/host";

/// The parts of the control service's messages that are needed here, as docs/control-plane.md has them.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Target {
    #[prost(string, tag = "1")]
    pub target: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Answer {
    #[prost(bytes = "vec", optional, tag = "1")]
    pub reply: Option<Vec<u8>>,
    #[prost(message, optional, tag = "2")]
    pub refused: Option<Refused>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Refused {
    #[prost(uint32, tag = "1")]
    pub exit: u32,
    #[prost(string, tag = "2")]
    pub code: String,
    #[prost(string, tag = "3")]
    pub message: String,
}

pub fn operators() -> String {
    format!(
        "[[operator]]\nid = \"ann\"\nreason = \"r\"\nowner = \"o\"\nwho = \"{ANN}\"\nhosts = [\"local\"]\n\
         components = [\"test:hello\", \"test:late\"]\nactions = [\"status\", \"list\", \"start\", \"stop\", \"logs\"]\n\n"
    )
}

/// A host with HTTPS control, whose Workload API gives this test the identities of ann, who is an operator, and of eve, who is not.
pub fn https_host(change: impl FnOnce(&mut Site)) -> Host {
    let eve = format!(
        "[[workload]]\nname = \"eve\"\nspiffe_path = \"/ns/test/sa/eve\"\nuid = {}\nsha256 = \"{}\"\n",
        workload::uid_of_tests(),
        workload::sha256(&std::env::current_exe().unwrap())
    );
    let mut site = workload::site("", &(workload::own_entry("ann", "") + &eve));
    site.config("\n[control]\nhttps = \"127.0.0.1:0\"\n");
    site.guest("hello", "");
    site.guest("chatty", "");
    site.grants(&operators());
    change(&mut site);
    Host::ready(site)
}

/// Writes the identities, the bundle and an operator file for each of them; gives the address of the control plane.
pub async fn operator_files(host: &Host) -> String {
    let mut client = SpiffeWorkloadApiClient::new(workload_client::channel(&workload::socket(host)).await);
    let mut stream = client.fetch_x509svid(workload_client::call(X509svidRequest {})).await.unwrap().into_inner();
    let svids = stream.message().await.unwrap().unwrap().svids;
    std::fs::write(host.site().file("bundle.json"), host.run(["identity", "bundle"]).ok().out).unwrap();
    let address = host.ask_status(0)["listening"]["control"].as_str().unwrap().to_owned();
    for svid in svids {
        let name = svid.spiffe_id.rsplit('/').next().unwrap().to_owned();
        let folder = host.site().path();
        replace(folder, &format!("{name}.pem"), &pem("CERTIFICATE", &svid.x509_svid));
        replace(folder, &format!("{name}.key"), &pem("PRIVATE KEY", &svid.x509_svid_key));
        operator_file(host, &name, &address);
    }
    address
}

/// The operator file `WHO.toml` of an operator whose SVID is in `WHO.pem` and `WHO.key`.
pub fn operator_file(host: &Host, who: &str, address: &str) {
    let text = format!(
        "version = 1\ntrust_domain = \"test.example\"\nbundle = \"bundle.json\"\n[key]\nsvid = \"{who}.pem\"\n\
         svid_key = \"{who}.key\"\n[https]\nlocal = \"{address}\"\n"
    );
    std::fs::write(host.site().file(&format!("{who}.toml")), text).unwrap();
}

pub fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

pub fn key(host: &Host, name: &str) -> SvidKey {
    let read = |end: &str| std::fs::read(host.site().file(&format!("{name}.{end}"))).unwrap();
    SvidKey::parse(&read("pem"), &read("key")).unwrap()
}

pub fn asks(host: &Host, who: &str, command: &[&str]) -> Ended {
    let file = format!("{who}.toml");
    let more = ["--operator", &file, "--host", "local", "--json"];
    host.site().run(command.iter().chain(&more))
}

/// A connection to the control plane, shown this operator's SVID.
async fn connected(host: &Host, address: &str, who: &str) -> TlsStream<tokio::net::TcpStream> {
    let bundle = std::fs::read(host.site().file("bundle.json")).unwrap();
    let bundle = TrustBundle::from_json(&"test.example".parse().unwrap(), &bundle).unwrap();
    let key = std::sync::Arc::new(key(host, who));
    let peer: SpiffeId = LOCAL.parse().unwrap();
    let connector = connector(&key.svid().clone(), key, &bundle, &peer).unwrap();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    // As the product's own client: or the request waits for an acknowledgement of the handshake.
    stream.set_nodelay(true).unwrap();
    connector.connect("control", stream).await.unwrap().0
}

/// Requests one after the other on one connection: the answers.
pub async fn post_each(host: &Host, address: &str, who: &str, method: &str, statements: &[String]) -> Vec<Answer> {
    let mut stream = connected(host, address, who).await;
    let (mut answers, mut read) = (Vec::new(), Vec::new());
    for statement in statements {
        let head =
            format!("POST /control/{method} HTTP/1.1\r\nhost: c\r\ncontent-length: 0\r\n{HEADER}: {statement}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let (end, length) = loop {
            assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "no answer: {}", host.log());
            let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:").map(str::trim));
            let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or_default();
            if read.len() >= end + 4 + length {
                break (end + 4, length);
            }
        };
        answers.push(Answer::decode(&read[end..end + length]).unwrap());
        read.drain(..end + length);
    }
    answers
}

/// One request on a connection of its own, as the wire has it.
pub async fn post(
    host: &Host,
    address: &str,
    who: &str,
    method: &str,
    statements: &[&str],
    payload: &[u8],
) -> (Option<String>, Answer) {
    let mut stream = connected(host, address, who).await;
    let mut head = format!(
        "POST /control/{method} HTTP/1.1\r\nhost: c\r\nconnection: close\r\ncontent-length: {}\r\n",
        payload.len()
    );
    for statement in statements {
        let _ = write!(head, "{HEADER}: {statement}\r\n");
    }
    head.push_str("\r\n");
    // A host that has read enough of it may have ended the connection.
    let sent = stream.write_all(&[head.as_bytes(), payload].concat()).await;
    let mut all = Vec::new();
    let read = stream.read_to_end(&mut all).await;
    let end = all.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer: {sent:?}, {read:?}\n{}", host.log()));
    let head = String::from_utf8_lossy(&all[..end]).to_string();
    let statement = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(HEADER).then(|| value.trim().to_owned())
    });
    (statement, Answer::decode(&all[end + 4..]).unwrap())
}

pub fn jti() -> Jti {
    at(OffsetDateTime::now_utc())
}

pub fn at(moment: OffsetDateTime) -> Jti {
    use ring::rand::SecureRandom as _;
    let mut random = [0; 10];
    ring::rand::SystemRandom::new().fill(&mut random).unwrap();
    Jti::new(moment, random)
}

pub const LIFE: Duration = Duration::from_secs(30);

pub fn signed(key: &SvidKey, audience: &str, place: &str, jti: Jti, payload: &[u8]) -> String {
    key.sign_statement(&Draft::by_svid(key.signer(), audience, place, jti, LIFE, payload).unwrap()).unwrap()
}

pub fn code(answer: &Answer) -> &str {
    answer.refused.as_ref().map_or("", |refused| refused.code.as_str())
}

/// Puts a component that was signed on this site into the store of the host, as a fetch would; gives its digest.
pub fn stored(host: &Host, name: &str) -> String {
    let component = host.site().file(&format!("{name}.wasm"));
    let hex = workload::sha256(&component);
    let folder = host.site().file(&format!("state/components/{hex}"));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(&component, folder.join("component.wasm")).unwrap();
    let evidence = host.site().file(&format!("{name}.wasm.sigstore.json"));
    std::fs::copy(evidence, folder.join("component.wasm.sigstore.json")).unwrap();
    format!("sha256:{hex}")
}

/// What could have been accepted before the host was started changes nothing: wait until that is over.
pub async fn settled() {
    tokio::time::sleep(Duration::from_secs(7)).await;
}
