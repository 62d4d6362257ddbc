//! Statements are made by a forge that can make wrong ones, too.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::*;
use crate::limits::{
    LONGEST_REQUEST, MAX_ENVELOPE_BYTES, MAX_PLACE_BYTES, MAX_REPLAY, MAX_REPLAY_PER_SIGNER, MAX_REPLAY_SIGNERS,
    MAX_STATEMENT_BYTES, STATEMENT_CLOCK_SKEW,
};
use crate::p256_key::{P256Key, SignatureForm};
use crate::trust_bundle::TrustBundle;

const NOW: i64 = 1_800_000_000;
const HOST: &str = "spiffe://example.org/portcullis/host/h1";
const LIFE: Duration = Duration::from_secs(30);

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap()
}

fn jti(seconds: i64, n: u8) -> Jti {
    Jti::new(at(seconds), [n; 10])
}

/// An authority that signs whatever certificate a test wants.
struct Ca {
    key: KeyPair,
    params: CertificateParams,
    document: Vec<u8>,
}

impl Ca {
    fn new(domain: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{domain}").try_into().unwrap())];
        (params.not_before, params.not_after) = (at(NOW - 86_400), at(NOW + 86_400));
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let document = json!({"keys": [{"kty": "EC", "use": "x509-svid", "x5c": [STANDARD.encode(der)]}]});
        Self { key, params, document: document.to_string().into_bytes() }
    }

    fn svid(&self, id: &str, ends: i64) -> Svid {
        let key = P256Key::generate(SignatureForm::Asn1).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = (at(NOW - 3_600), at(ends));
        let der = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap().der().to_vec();
        let fixed = P256Key::from_parts(SignatureForm::Fixed, key.scalar().expose(), key.public()).unwrap();
        Svid { key: fixed, signer: SvidSigner::new(vec![der]).unwrap() }
    }
}

struct Svid {
    key: P256Key,
    signer: SvidSigner,
}

impl Svid {
    fn draft(&self, place: &str, payload: &[u8]) -> Draft {
        Draft::by_svid(&self.signer, HOST, place, jti(NOW, 1), LIFE, payload).unwrap()
    }

    fn token(&self, draft: &Draft) -> String {
        draft.token(&self.key.sign(draft.signing_input().as_bytes()).unwrap())
    }
}

struct World {
    ours: Ca,
    theirs: Ca,
    seed: UserSeed,
    signers: Signers,
}

impl World {
    fn new() -> Self {
        let (ours, theirs) = (Ca::new("example.org"), Ca::new("example.com"));
        let mut bundles = TrustBundle::new();
        bundles.insert(&"example.org".parse().unwrap(), &ours.document).unwrap();
        bundles.insert(&"example.com".parse().unwrap(), &theirs.document).unwrap();
        let seed = user();
        let signers = Signers::new(Arc::new(bundles), [seed.public()]);
        Self { ours, theirs, seed, signers }
    }

    fn check(&self, token: &str, place: &str, payload: &[u8], now: i64) -> Result<Statement, StatementError> {
        check(token, payload, &Expected::message(HOST, place), &self.signers, at(now))
    }

    /// A statement of the nkey with changed header and claims, signed all the same.
    fn forged(&self, change: impl FnOnce(&mut Value, &mut Value)) -> Result<Statement, StatementError> {
        let mut header = json!({"alg": "EdDSA", "typ": TYPE, "kid": self.seed.public().to_string()});
        let mut claims = json!({"iss": self.seed.public().to_string(), "aud": HOST, "sub": "control/start",
            "jti": jti(NOW, 1).to_string(), "iat": NOW, "exp": NOW + 30, "sha256": digest_of(b"payload")});
        change(&mut header, &mut claims);
        self.check(&self.signed(&header.to_string(), &claims.to_string()), "control/start", b"payload", NOW)
    }

    fn signed(&self, header: &str, claims: &str) -> String {
        let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(self.seed.sign(input.as_bytes())))
    }

    fn by_key(&self, draft: &Draft) -> String {
        draft.token(&self.seed.sign(draft.signing_input().as_bytes()))
    }

    fn draft(&self, jti: Jti, life: Duration) -> Draft {
        Draft::by_nkey(self.seed.public(), HOST, "control/start", jti, life, b"payload").unwrap()
    }

    fn statement(&self, jti: Jti, life: u64) -> Statement {
        let token = self.by_key(&self.draft(jti, Duration::from_secs(life)));
        self.check(&token, "control/start", b"payload", jti.seconds()).unwrap()
    }
}

fn user() -> UserSeed {
    UserSeed::parse(&nkeys::KeyPair::new_user().seed().unwrap()).unwrap()
}

#[test]
fn statements_of_an_svid_and_of_a_pinned_key_are_believed_with_all_that_they_say() {
    let world = World::new();
    for id in ["spiffe://example.org/ops/ann", "spiffe://example.com/ops/ann"] {
        let ca = if id.contains("example.org") { &world.ours } else { &world.theirs };
        let svid = ca.svid(id, NOW + 600);
        let draft = svid.draft("control/start", b"payload").answering(jti(NOW - 1, 9)).version(7);
        let statement = world.check(&svid.token(&draft), "control/start", b"payload", NOW).unwrap();
        assert_eq!(statement.signer().to_string(), id);
        assert_eq!(
            (statement.jti(), statement.answers(), statement.version()),
            (jti(NOW, 1), Some(jti(NOW - 1, 9)), Some(7))
        );
        assert_eq!((statement.issued_at(), statement.expires_at()), (NOW, NOW + 30));
    }
    let statement =
        world.check(&world.by_key(&world.draft(jti(NOW, 2), LIFE)), "control/start", b"payload", NOW).unwrap();
    assert_eq!(statement.signer(), &Signer::Nkey(world.seed.public()));
    assert_eq!((statement.answers(), statement.version()), (None, None));
    assert_eq!(statement.sha256(), digest_of(b"payload"));
}

#[test]
fn an_authority_vouches_for_its_own_trust_domain_and_no_other() {
    let world = World::new();
    let svid = world.theirs.svid("spiffe://example.org/ops/ann", NOW + 600);
    let token = svid.token(&svid.draft("control/start", b""));
    assert!(matches!(world.check(&token, "control/start", b"", NOW), Err(StatementError::Chain(_))));
    let stranger = Ca::new("example.net").svid("spiffe://example.net/ops/ann", NOW + 600);
    let token = stranger.token(&stranger.draft("control/start", b""));
    assert!(matches!(world.check(&token, "control/start", b"", NOW), Err(StatementError::Chain(_))));
}

#[test]
fn an_svid_that_ended_signs_nothing_any_more() {
    let world = World::new();
    let svid = world.ours.svid("spiffe://example.org/ops/ann", NOW - 1);
    let token = svid.token(&svid.draft("control/start", b""));
    assert!(matches!(world.check(&token, "control/start", b"", NOW), Err(StatementError::Chain(_))));
}

#[test]
fn a_key_that_is_not_pinned_is_unknown_however_well_it_signs() {
    let (world, other) = (World::new(), user());
    let draft = Draft::by_nkey(other.public(), HOST, "control/start", jti(NOW, 1), LIFE, b"").unwrap();
    let token = draft.token(&other.sign(draft.signing_input().as_bytes()));
    let refused = world.check(&token, "control/start", b"", NOW);
    assert!(matches!(refused, Err(StatementError::UnknownKey(_))), "{refused:?}");
    // With the pinned key's name and its own signature.
    let draft = Draft::by_nkey(world.seed.public(), HOST, "control/start", jti(NOW, 1), LIFE, b"").unwrap();
    let token = draft.token(&other.sign(draft.signing_input().as_bytes()));
    assert_eq!(world.check(&token, "control/start", b"", NOW), Err(StatementError::Signature));
}

#[test]
fn whoever_signs_cannot_say_that_somebody_else_did() {
    let world = World::new();
    for iss in ["spiffe://example.org/ops/ann".to_owned(), user().public().to_string(), String::new()] {
        let refused = world.forged(|_, claims| claims["iss"] = json!(iss));
        assert!(matches!(refused, Err(StatementError::Issuer(_))), "{iss}");
    }
}

#[test]
fn another_audience_place_or_payload_is_refused() {
    let world = World::new();
    let token = world.by_key(&world.draft(jti(NOW, 1), LIFE));
    let other = Expected::message("spiffe://example.org/portcullis/host/h2", "control/start");
    assert!(matches!(check(&token, b"payload", &other, &world.signers, at(NOW)), Err(StatementError::Audience(_))));
    assert!(matches!(world.check(&token, "control/stop", b"payload", NOW), Err(StatementError::Place(_))));
    assert_eq!(world.check(&token, "control/start", b"Payload", NOW), Err(StatementError::Payload));
    assert_eq!(world.check(&token, "control/start", b"", NOW), Err(StatementError::Payload));
}

#[test]
fn a_statement_holds_from_its_moment_to_its_end_with_the_skew_on_both_sides() {
    let world = World::new();
    let skew = STATEMENT_CLOCK_SKEW.as_secs() as i64;
    let token = world.by_key(&world.draft(jti(NOW, 1), LIFE));
    let check = |now| world.check(&token, "control/start", b"payload", now);
    assert_eq!(check(NOW - skew - 1), Err(StatementError::NotYetValid));
    assert!(check(NOW - skew).is_ok());
    assert!(check(NOW + 30 + skew - 1).is_ok());
    assert_eq!(check(NOW + 30 + skew), Err(StatementError::Expired));
}

#[test]
fn a_request_lives_for_a_minute_at_most_and_what_is_kept_for_years() {
    let world = World::new();
    let token = |life| world.by_key(&world.draft(jti(NOW, 1), life));
    assert!(world.check(&token(LONGEST_REQUEST), "control/start", b"payload", NOW).is_ok());
    let long = token(LONGEST_REQUEST + Duration::from_secs(1));
    assert_eq!(world.check(&long, "control/start", b"payload", NOW), Err(StatementError::TooLong));
    let kept = Expected::kept(HOST, "control/start");
    assert!(check(&long, b"payload", &kept, &world.signers, at(NOW)).is_ok());
    let ages = token(crate::limits::LONGEST_KEPT_STATEMENT + Duration::from_secs(1));
    assert_eq!(check(&ages, b"payload", &kept, &world.signers, at(NOW)), Err(StatementError::TooLong));
}

#[test]
fn any_other_header_is_refused() {
    let world = World::new();
    let svid = world.ours.svid("spiffe://example.org/ops/ann", NOW + 600);
    let chain = json!(svid.signer.chain_base64());
    let changes: [&dyn Fn(&mut Value); 12] = [
        &|h| h["alg"] = json!("none"),
        &|h| h["alg"] = json!("HS256"),
        &|h| h["alg"] = json!("ES256"),
        &|h| h["alg"] = json!("eddsa"),
        &|h| h["typ"] = json!("JWT"),
        &|h| h["typ"] = Value::Null,
        &|h| h["crit"] = json!([]),
        &|h| h["jwk"] = json!({}),
        &|h| h["x5c"] = chain.clone(),
        &|h| h["kid"] = Value::Null,
        &|h| *h = json!({"alg": "ES256", "typ": TYPE, "kid": "U"}),
        &|h| *h = json!([]),
    ];
    for (n, change) in changes.into_iter().enumerate() {
        assert_eq!(world.forged(|header, _| change(header)), Err(StatementError::Header), "change {n}");
    }
    for header in [
        format!(r#"{{"alg":"EdDSA","typ":"{TYPE}","kid":"{0}","kid":"{0}"}}"#, world.seed.public()),
        "{}".to_owned(),
        String::new(),
    ] {
        let refused = world.check(&world.signed(&header, "{}"), "control/start", b"payload", NOW);
        assert_eq!(refused, Err(StatementError::Header), "{header}");
    }
}

#[test]
fn missing_unknown_doubled_and_malformed_claims_are_refused() {
    let world = World::new();
    for name in ["iss", "aud", "sub", "jti", "iat", "exp", "sha256"] {
        let refused = world.forged(|_, claims| {
            claims.as_object_mut().unwrap().remove(name);
        });
        assert!(matches!(refused, Err(StatementError::Claims(_))), "{name}: {refused:?}");
    }
    let changes: [(&str, Value); 12] = [
        ("x", json!(1)),
        ("nbf", json!(NOW)),
        ("re", Value::Null),
        ("ver", Value::Null),
        ("ver", json!(-1)),
        ("ver", json!(1.5)),
        ("re", json!("x")),
        ("jti", json!("x")),
        ("jti", json!(jti(NOW - 1, 1).to_string())),
        ("exp", json!(NOW)),
        ("aud", json!([HOST])),
        ("iat", json!(NOW as f64)),
    ];
    for (name, value) in changes {
        let shown = format!("{name}: {value}");
        let refused = world.forged(|_, claims| claims[name] = value);
        assert!(matches!(refused, Err(StatementError::Claims(_))), "{shown}: {refused:?}");
    }
    let refused = world.forged(|_, claims| claims["exp"] = json!(i64::MIN));
    assert!(matches!(refused, Err(StatementError::Claims(_))));
    let header = json!({"alg": "EdDSA", "typ": TYPE, "kid": world.seed.public().to_string()}).to_string();
    let twice = format!(r#"{{"iss":"{0}","iss":"{0}"}}"#, world.seed.public());
    let refused = world.check(&world.signed(&header, &twice), "control/start", b"payload", NOW);
    assert!(matches!(refused, Err(StatementError::Claims(_))));
}

#[test]
fn every_changed_and_every_cut_character_is_refused() {
    let world = World::new();
    let svid = world.ours.svid("spiffe://example.org/ops/ann", NOW + 600);
    for token in [world.by_key(&world.draft(jti(NOW, 1), LIFE)), svid.token(&svid.draft("control/start", b"payload"))] {
        assert!(world.check(&token, "control/start", b"payload", NOW).is_ok());
        for place in (0..token.len()).step_by(7) {
            let mut changed = token.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(world.check(&changed, "control/start", b"payload", NOW).is_err(), "changed at {place}");
            assert!(
                world.check(token.get(..place).unwrap(), "control/start", b"payload", NOW).is_err(),
                "cut at {place}"
            );
        }
    }
}

#[test]
fn a_jwt_svid_and_a_signature_for_a_purpose_are_no_statement() {
    let world = World::new();
    let svid = world.ours.svid("spiffe://example.org/ops/ann", NOW + 600);
    let draft = svid.draft("control/start", b"payload");
    let message = crate::signed_message("control", draft.signing_input().as_bytes()).unwrap();
    let token = draft.token(&svid.key.sign(&message).unwrap());
    assert_eq!(world.check(&token, "control/start", b"payload", NOW), Err(StatementError::Signature));
    assert!(crate::handshake_message::check_certificate_verify(draft.signing_input().as_bytes()).is_err());
    assert!(matches!(world.forged(|header, _| header["typ"] = json!("JOSE")), Err(StatementError::Header)));
}

#[test]
fn limits_hold_where_statements_are_made_and_where_they_are_read() {
    let world = World::new();
    let key = world.seed.public();
    let place = |bytes| Draft::by_nkey(key, HOST, &"x".repeat(bytes), jti(NOW, 1), LIFE, b"");
    assert!(place(MAX_PLACE_BYTES).is_ok());
    assert!(place(MAX_PLACE_BYTES + 1).is_err() && place(0).is_err());
    let long = "x".repeat(MAX_STATEMENT_BYTES + 1);
    assert_eq!(world.check(&long, "x", b"", NOW), Err(StatementError::TooLarge));
    assert_ne!(world.check(long.get(1..).unwrap(), "x", b"", NOW), Err(StatementError::TooLarge));
    assert_eq!(Envelope::parse(&vec![b' '; MAX_ENVELOPE_BYTES + 1]), Err(StatementError::TooLarge));
    let svid = world.ours.svid("spiffe://example.org/ops/ann", NOW + 600);
    let leaf = svid.signer.chain_der();
    let many = SvidSigner::new(std::iter::repeat_n(leaf[0].clone(), 9).collect()).unwrap();
    let draft = Draft::by_svid(&many, HOST, "control/start", jti(NOW, 1), LIFE, b"payload").unwrap();
    let refused = world.check(&svid.token(&draft), "control/start", b"payload", NOW);
    assert_eq!(refused, Err(StatementError::Chain(crate::mtls::PeerError::LongChain)));
}

#[test]
fn an_envelope_is_read_as_it_was_written_and_nothing_else_is() {
    let envelope = Envelope { statement: "a.b.c".to_owned(), payload: vec![0, 255] };
    assert_eq!(Envelope::parse(envelope.to_json().as_bytes()), Ok(envelope));
    for text in [
        "",
        "{}",
        r#"{"statement":"a"}"#,
        r#"{"statement":"a","payload":"?"}"#,
        r#"{"statement":"a","payload":"","x":1}"#,
    ] {
        assert!(Envelope::parse(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn a_statement_is_accepted_once() {
    let world = World::new();
    let mut window = Replay::new(at(NOW - 100));
    let one = world.statement(jti(NOW, 1), 30);
    assert_eq!(window.accept(&one, Order::Any, at(NOW)), Ok(()));
    assert_eq!(window.accept(&one, Order::Any, at(NOW + 34)), Err(StatementError::Replayed));
    assert_eq!(window.accept(&one, Order::Newest, at(NOW)), Err(StatementError::Replayed));
    // When it is forgotten it has expired, also for a clock that was set back.
    assert_eq!(window.accept(&one, Order::Any, at(NOW + 200)), Err(StatementError::Expired));
    assert!(window.is_empty());
    assert_eq!(window.accept(&one, Order::Any, at(NOW)), Err(StatementError::Expired));
}

#[test]
fn what_changes_something_is_accepted_in_its_order_only() {
    let world = World::new();
    let mut window = Replay::new(at(NOW - 100));
    let (first, second) = (world.statement(jti(NOW, 1), 60), world.statement(jti(NOW + 1, 2), 2));
    assert_eq!(window.accept(&second, Order::Newest, at(NOW + 1)), Ok(()));
    assert_eq!(window.accept(&first, Order::Newest, at(NOW + 1)), Err(StatementError::Reordered));
    // The later one was short; the earlier one is still out of order when that one has ended.
    assert_eq!(window.accept(&first, Order::Newest, at(NOW + 20)), Err(StatementError::Reordered));
    assert_eq!(window.accept(&first, Order::Any, at(NOW + 20)), Ok(()));
}

#[test]
fn what_could_have_been_used_before_the_window_was_opened_changes_nothing() {
    let world = World::new();
    let skew = STATEMENT_CLOCK_SKEW.as_secs() as i64;
    let mut window = Replay::new(at(NOW));
    let old = world.statement(jti(NOW + skew, 1), 60);
    assert_eq!(window.accept(&old, Order::Newest, at(NOW + skew)), Err(StatementError::BeforeWindow));
    assert_eq!(window.accept(&old, Order::Any, at(NOW + skew)), Ok(()));
    let new = world.statement(jti(NOW + skew + 1, 1), 60);
    assert_eq!(window.accept(&new, Order::Newest, at(NOW + skew + 1)), Ok(()));
}

#[test]
fn a_full_window_accepts_nothing_more_until_something_ends() {
    let world = World::new();
    let mut window = Replay::new(at(NOW - 100));
    let one = world.statement(jti(NOW, 1), 30);
    let named = |n: usize| {
        let mut random = [0; 10];
        random[..8].copy_from_slice(&(n as u64).to_be_bytes());
        one.renamed(one.signer().clone(), Jti::new(at(NOW), random))
    };
    for n in 0..MAX_REPLAY_PER_SIGNER {
        window.accept(&named(n), Order::Any, at(NOW)).unwrap();
    }
    assert_eq!(window.accept(&named(MAX_REPLAY_PER_SIGNER), Order::Any, at(NOW)), Err(StatementError::WindowFull));
    let id = |n: usize| Signer::Svid(format!("spiffe://example.org/{n}").parse().unwrap());
    for signer in 1..MAX_REPLAY_SIGNERS {
        assert_eq!(window.accept(&one.renamed(id(signer), one.jti()), Order::Any, at(NOW)), Ok(()));
    }
    let more = one.renamed(id(MAX_REPLAY_SIGNERS), one.jti());
    assert_eq!(window.accept(&more, Order::Any, at(NOW)), Err(StatementError::WindowFull));
    for (signer, n) in (1..9).flat_map(|signer| (1..MAX_REPLAY_PER_SIGNER).map(move |n| (signer, n))) {
        if window.len() < MAX_REPLAY {
            let statement = one.renamed(id(signer), named(n).jti());
            window.accept(&statement, Order::Any, at(NOW)).unwrap();
        }
    }
    assert_eq!(window.len(), MAX_REPLAY);
    let other = one.renamed(id(20), jti(NOW, 9));
    assert_eq!(window.accept(&other, Order::Any, at(NOW)), Err(StatementError::WindowFull));
    let later = world.statement(jti(NOW + 66, 1), 30);
    assert_eq!(window.accept(&later, Order::Any, at(NOW + 66)), Ok(()));
    assert_eq!(window.len(), 1);
}

#[test]
fn every_reason_has_a_word_and_a_hint_of_its_own() {
    let errors = [
        StatementError::TooLarge,
        StatementError::Header,
        StatementError::Signature,
        StatementError::Expired,
        StatementError::NotYetValid,
        StatementError::TooLong,
        StatementError::Payload,
        StatementError::Replayed,
        StatementError::Reordered,
        StatementError::BeforeWindow,
        StatementError::WindowFull,
        StatementError::Malformed("x"),
        StatementError::Claims("x"),
    ];
    let words: std::collections::BTreeSet<_> = errors.iter().map(StatementError::code).collect();
    assert_eq!(words.len(), errors.len());
    assert!(errors.iter().all(|error| !error.hint().is_empty()));
}
