//! Measures what a host pays to believe 10,000 control messages: signature, chain, claims, payload, replay window.
//!
//! `cargo run --release -p portcullis-identity --example statements`
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement stops where it breaks, and prints")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_identity::TrustBundle;
use portcullis_identity::statement::{Draft, Expected, Jti, Order, Replay, Signers, SvidKey, UserSeed, check};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

const HOST: &str = "spiffe://example.org/portcullis/host/h1";
const PLACE: &str = "control/start";
const MESSAGES: u32 = 10_000;

fn main() {
    let (svid, bundle) = svid();
    let seed = UserSeed::parse(&nkeys::KeyPair::new_user().seed().unwrap()).unwrap();
    let signers = Signers::new(Arc::new(bundle), [seed.public()]);
    let payload = vec![7_u8; 512];
    let now = OffsetDateTime::now_utc();
    let jti = |n: u32| {
        let mut random = [0; 10];
        random.iter_mut().zip(n.to_be_bytes()).for_each(|(to, from)| *to = from);
        Jti::new(now, random)
    };
    let life = Duration::from_secs(60);
    let by_svid = |n| {
        let draft = Draft::by_svid(svid.signer(), HOST, PLACE, jti(n), life, &payload).unwrap();
        svid.sign_statement(&draft).unwrap()
    };
    let by_nkey = |n| {
        let draft = Draft::by_nkey(seed.public(), HOST, PLACE, jti(n), life, &payload).unwrap();
        draft.token(&seed.sign(draft.signing_input().as_bytes()))
    };
    measure("X.509-SVID (ES256, one chain)", by_svid, &signers, &payload, now);
    measure("nkey (EdDSA)", by_nkey, &signers, &payload, now);
}

fn measure(name: &str, make: impl Fn(u32) -> String, signers: &Signers, payload: &[u8], now: OffsetDateTime) {
    let tokens: Vec<String> = (0..MESSAGES).map(make).collect();
    let mut window = Replay::new(now - time::Duration::HOUR);
    let mut took = Vec::with_capacity(tokens.len());
    let begun = Instant::now();
    for (n, token) in tokens.iter().enumerate() {
        // One signer may fill its share of the window: a host that gets this many at once opens the next one.
        if n % 8_000 == 0 {
            window = Replay::new(now - time::Duration::HOUR);
        }
        let one = Instant::now();
        let statement = check(token, payload, &Expected::message(HOST, PLACE), signers, now).unwrap();
        window.accept(&statement, Order::Any, now).unwrap();
        took.push(one.elapsed());
    }
    let all = begun.elapsed();
    took.sort();
    let at = |percent: usize| took.get(took.len() * percent / 100).copied().unwrap_or_default();
    let each = all / MESSAGES;
    println!("{name}: {MESSAGES} messages in {all:?}, {each:?} each, p50 {:?}, p99 {:?}", at(50), at(99));
}

fn svid() -> (SvidKey, TrustBundle) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.subject_alt_names = vec![SanType::URI("spiffe://example.org".try_into().unwrap())];
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI("spiffe://example.org/ops/ann".try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = params.signed_by(&key, &ca).unwrap();
    let read = SvidKey::parse(leaf.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    let authority = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, ca.der());
    let document = serde_json::json!({"keys": [{"kty": "EC", "use": "x509-svid", "x5c": [authority]}]}).to_string();
    (read, TrustBundle::from_json(&"example.org".parse().unwrap(), document.as_bytes()).unwrap())
}
