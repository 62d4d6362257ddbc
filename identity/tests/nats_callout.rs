//! What a real nats-server asked, recorded byte for byte (`fixtures/callout`): each is a request for us at its time, and what its
//! client showed is judged by whom it proves, not by what the server let pass.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_identity::callout::{
    ChainError, ConnectionKind, CredentialError, Protocol, Received, ReplayError, Replays, Request, RequestError,
    Requests,
};
use portcullis_identity::mtls::PeerError;
use portcullis_identity::{Audience, BundleDocument, BundleSet, TokenError, XKey};
use portcullis_nkey::{Kind, PublicKey};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

struct Recorded(Value);

impl Recorded {
    fn load(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/callout/{name}.json"));
        Self(serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
    }

    fn text(&self, member: &str) -> Option<&str> {
        self.0[member].as_str()
    }

    fn at(&self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(self.0["at"].as_i64().unwrap()).unwrap()
    }

    fn requests(&self) -> Requests {
        let account = PublicKey::parse(self.text("account").unwrap(), Kind::Account).unwrap();
        let xkey = self.text("xkey").map(|seed| Arc::new(XKey::from_seed(seed).unwrap()));
        Requests::new(account, xkey).unwrap()
    }

    fn open(&self, replays: &mut Replays, now: OffsetDateTime) -> Result<Request, RequestError> {
        let payload = STANDARD.decode(self.text("payload").unwrap()).unwrap();
        let xkeys: Vec<&str> =
            self.0["header"].as_array().unwrap().iter().map(|value| value.as_str().unwrap()).collect();
        self.requests().open(&Received { payload: &payload, xkeys: &xkeys }, replays, now)
    }

    fn request(&self) -> Request {
        self.open(&mut Replays::new(), self.at()).unwrap()
    }

    /// The bundles of the server's authorities, each for its own trust domain; without any, nobody is trusted.
    fn bundles(&self) -> BundleSet {
        let document = |domain: &str| {
            let keys = match self.0["authorities"][domain].as_str() {
                None => json!([]),
                Some(pem) => {
                    let body: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
                    json!([{"kty": "EC", "use": "x509-svid", "x5c": [body]}])
                }
            };
            let json = json!({ "keys": keys }).to_string();
            Arc::new(BundleDocument::parse(&domain.parse().unwrap(), json.as_bytes()).unwrap())
        };
        BundleSet::with_foreign(document("td-a.test"), [document("td-b.test")]).unwrap()
    }
}

fn audience() -> Audience {
    "spiffe://td-a.test/callout".parse().unwrap()
}

const ALL: [&str; 6] =
    ["plain_token", "plain_password", "plain_nkey", "sealed_nkey", "sealed_mtls", "sealed_mtls_foreign"];

#[test]
fn what_a_real_server_asks_is_a_request_once_and_in_its_time() {
    for name in ALL {
        let recorded = Recorded::load(name);
        let request = recorded.request();
        assert_eq!(
            (request.server().name.as_str(), request.server().version.as_str()),
            ("fixture", "2.15.1"),
            "{name}"
        );
        assert_eq!((request.kind(), request.protocol()), (ConnectionKind::Client, Protocol::Nats), "{name}");
        assert!(request.ip().is_loopback() && request.client_id() > 0, "{name}");
        let mut replays = Replays::new();
        assert!(recorded.open(&mut replays, recorded.at()).is_ok());
        let again = recorded.open(&mut replays, recorded.at());
        assert_eq!(again.err(), Some(RequestError::Replay(ReplayError::Again)), "{name}");
        let late = recorded.open(&mut Replays::new(), recorded.at() + Duration::minutes(1));
        assert_eq!(late.err(), Some(RequestError::Expired), "{name}");
        let early = recorded.open(&mut Replays::new(), recorded.at() - Duration::minutes(1));
        assert_eq!(early.err(), Some(RequestError::NotYet), "{name}");
    }
}

#[test]
fn one_server_gives_every_attempt_a_key_of_its_own() {
    let attempts = ["plain_token", "plain_password", "plain_nkey"].map(|name| Recorded::load(name).request());
    let mut replays = Replays::new();
    for request in &attempts {
        // Its tokens all have one jti: that is nothing to know them by.
        assert_eq!(request.server_id(), attempts[0].server_id());
        assert_eq!(request.once(&mut replays, Recorded::load("plain_token").at()), Ok(()));
    }
    assert_eq!(replays.len(), attempts.len());
}

#[test]
fn the_nonce_that_a_real_client_signed_verifies_and_a_word_is_no_svid() {
    for name in ["plain_nkey", "sealed_nkey", "plain_token"] {
        let recorded = Recorded::load(name);
        let proven = recorded.request().prove(&recorded.bundles(), &audience(), recorded.at());
        // The signature is looked at first.
        assert!(matches!(proven, Err(CredentialError::Token(TokenError::Malformed(_)))), "{name}: {proven:?}");
    }
    let recorded = Recorded::load("plain_password");
    let proven = recorded.request().prove(&recorded.bundles(), &audience(), recorded.at());
    assert_eq!(proven.err(), Some(CredentialError::None), "a password is none");
}

#[test]
fn a_chain_that_a_real_server_found_proves_its_id_until_its_end() {
    let recorded = Recorded::load("sealed_mtls");
    let proven = recorded.request().prove(&recorded.bundles(), &audience(), recorded.at()).unwrap();
    assert_eq!(proven.spiffe_id().to_string(), "spiffe://td-a.test/host/h1");
    assert!(proven.x509() && proven.holds_key() && proven.not_after() > recorded.at());
    let (version, cipher) = recorded.request().tls().map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert!(version.contains("1.3") && cipher.starts_with("TLS_"), "{version} {cipher}");
}

#[test]
fn a_chain_that_a_real_server_let_pass_for_another_domains_id_proves_nothing() {
    let recorded = Recorded::load("sealed_mtls_foreign");
    let refused = recorded.request().prove(&recorded.bundles(), &audience(), recorded.at());
    assert!(matches!(refused, Err(CredentialError::Chain(ChainError::Peer(PeerError::Path(_))))), "{refused:?}");
    // Nor does the right chain where its own trust domain is not trusted, however much others are.
    let mut recorded = Recorded::load("sealed_mtls");
    recorded.0["authorities"]["td-a.test"] = Value::Null;
    let refused = recorded.request().prove(&recorded.bundles(), &audience(), recorded.at());
    assert!(matches!(refused, Err(CredentialError::Chain(ChainError::Peer(_)))), "{refused:?}");
}

#[test]
fn a_box_for_another_key_stays_closed() {
    let mut recorded = Recorded::load("sealed_nkey");
    recorded.0["xkey"] = json!(XKey::generate().unwrap().seed().as_str());
    assert!(matches!(recorded.open(&mut Replays::new(), recorded.at()), Err(RequestError::Box(_))));
    recorded.0["xkey"] = Value::Null;
    assert_eq!(recorded.open(&mut Replays::new(), recorded.at()).err(), Some(RequestError::Encrypted));
}
