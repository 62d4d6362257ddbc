//! Rotation as whoever runs the issuer sees it: by schedule through many lives, by force, after a taint, after a restart, and
//! from a directory of before there was a journal.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_identity::limits::{MAX_AUTHORITIES, PUBLISHED_HINTS};
use portcullis_identity::{
    Audience, AuthorityChange, AuthorityKind, AuthorityState, AuthorityStatus, Changes, InstanceId, IssueError, Issuer,
    IssuerError, IssuerOptions, JwtAlgorithm, Lifetimes, RotationAction, RotationError, SignError, Slot, TokenError,
    TrustDomain, Workload,
};
use time::OffsetDateTime;

#[path = "issuer_rotation/before_the_journal.rs"]
mod before_the_journal;
#[path = "issuer_rotation/uses.rs"]
mod uses;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn start() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn domain() -> TrustDomain {
    "example.org".parse().unwrap()
}

fn one() -> InstanceId {
    "one".parse().unwrap()
}

fn vault() -> [Audience; 1] {
    ["vault".parse().unwrap()]
}

fn admit(issuer: &mut Issuer) {
    issuer
        .admit(Workload {
            instance: one(),
            spiffe_id: "spiffe://example.org/a".parse().unwrap(),
            digest: "sha256:00".into(),
            component: "greeter".into(),
            exportable: true,
        })
        .unwrap();
}

struct Site {
    _temporary: tempfile::TempDir,
    dir: PathBuf,
    issuer: Issuer,
}

impl Site {
    fn new() -> Self {
        Self::with(IssuerOptions::new(Lifetimes::default()))
    }

    fn with(options: IssuerOptions) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("identity");
        let mut issuer = Issuer::open_with(&dir, &domain(), options, start()).unwrap();
        admit(&mut issuer);
        Self { _temporary: temporary, dir, issuer }
    }

    fn reopen(self, options: IssuerOptions, now: OffsetDateTime) -> Self {
        let Self { _temporary, dir, issuer } = self;
        drop(issuer);
        let mut issuer = Issuer::open_with(&dir, &domain(), options, now).unwrap();
        admit(&mut issuer);
        Self { _temporary, dir, issuer }
    }

    fn states(&self, kind: AuthorityKind) -> Vec<(Option<Slot>, AuthorityState)> {
        let of = self.issuer.authorities().into_iter().filter(|status| status.kind == kind);
        of.map(|status| (status.slot, status.state)).collect()
    }

    fn in_state(&self, kind: AuthorityKind, state: AuthorityState) -> AuthorityStatus {
        self.issuer.authorities().into_iter().find(|status| status.kind == kind && status.state == state).unwrap()
    }

    fn token(&mut self, now: OffsetDateTime) -> String {
        self.issuer.jwt_svid(&one(), &vault(), MINUTE * 5, now).unwrap().svid.token().to_owned()
    }

    fn valid(&self, token: &str, now: OffsetDateTime) -> Result<(), TokenError> {
        self.issuer.validate_jwt(token, "vault", now).map(drop)
    }
}

fn changes_of(changes: &Changes, kind: AuthorityKind) -> Vec<AuthorityChange> {
    changes.events.iter().filter(|event| event.kind == kind).map(|event| event.change).collect()
}

use AuthorityChange::{Activated, Prepared, Pruned, Retired, Tainted};
use AuthorityKind::{Jwt, Wit, X509};
use AuthorityState::{Active, Old};

#[test]
fn an_authority_is_prepared_at_half_activated_at_a_sixth_and_the_old_one_forgotten_after_its_last_svid() {
    let mut site = Site::new();
    assert_eq!(site.states(X509), [(Some(Slot::A), Active)]);
    let second = Duration::from_secs(1);
    assert_eq!(site.issuer.next_tick(start()), start() + HOUR * 12);
    assert!(site.issuer.tick(start() + HOUR * 12 - second).is_empty());

    let sequence = site.issuer.bundle().sequence();
    let prepared = site.issuer.tick(start() + HOUR * 12);
    assert!(prepared.bundle && !prepared.svids && prepared.failures.is_empty());
    assert_eq!(changes_of(&prepared, X509), [Prepared]);
    assert_eq!(changes_of(&prepared, Jwt), [Prepared]);
    assert!(site.issuer.bundle().sequence() > sequence);
    assert_eq!(site.issuer.bundle().x509_authorities().len(), 2);
    assert_eq!(site.issuer.bundle().jwt_authorities().len(), 2);
    assert_eq!(site.states(X509), [(Some(Slot::A), Active), (Some(Slot::B), AuthorityState::Prepared)]);

    assert!(site.issuer.tick(start() + HOUR * 20 - second).is_empty());
    let before = site.token(start() + HOUR * 20 - second);
    let activated = site.issuer.tick(start() + HOUR * 20);
    assert!(!activated.bundle, "nobody has to fetch anything: both keys were and are published");
    assert_eq!(changes_of(&activated, X509), [Retired, Activated]);
    assert_eq!(site.states(X509), [(Some(Slot::A), Old), (Some(Slot::B), Active)]);
    let after = site.token(start() + HOUR * 20);
    assert_ne!(before, after, "the cache does not outlive its authority");
    for token in [&before, &after] {
        assert_eq!(site.valid(token, start() + HOUR * 20), Ok(()));
    }

    let old = site.in_state(X509, Old);
    assert_eq!((old.key_place, old.key_present), ("none", false), "an old authority has no private key any more");
    assert_eq!(old.published_until, Some(start() + HOUR * 21));
    assert_eq!(site.in_state(Jwt, Old).published_until, Some(start() + HOUR * 20 + MINUTE * 5));
    assert_eq!(changes_of(&site.issuer.tick(start() + HOUR * 20 + MINUTE * 5), Jwt), [Pruned]);
    assert_eq!(changes_of(&site.issuer.tick(start() + HOUR * 21), X509), [Pruned]);
    assert_eq!(site.states(X509), [(Some(Slot::B), Active)]);
    assert_eq!(site.issuer.bundle().x509_authorities().len(), 1);
}

/// A month of ticks every ten seconds of the schedule's own times, with everything that must hold at each of them.
#[test]
fn through_many_lives_no_svid_is_shortened_no_sequence_used_twice_and_each_key_is_published_long_before_its_use() {
    let mut site = Site::new();
    let (mut now, mut published, mut shown) = (start(), BTreeMap::new(), BTreeMap::new());
    let mut rotations = 0;
    while now < start() + HOUR * 24 * 30 {
        let bundle = site.issuer.bundle();
        let before = shown.insert(bundle.sequence(), bundle.to_json());
        assert!(before.is_none_or(|before| before == bundle.to_json()), "one sequence, one content");
        assert_eq!(shown.last_key_value().map(|(last, _)| *last), Some(bundle.sequence()), "it never goes back");
        for kind in [X509, Jwt] {
            let of = site.states(kind);
            assert!(of.len() <= 2 && of.iter().all(|(slot, _)| slot.is_some()), "two slots are enough: {of:?}");
        }
        for status in site.issuer.authorities() {
            let since = *published.entry(status.id.to_string()).or_insert(now);
            if let Some(used) = status.activated_at
                && since > start()
            {
                assert!(used - since >= Lifetimes::default().refresh_hint() * PUBLISHED_HINTS);
            }
        }
        let svid = site.issuer.x509_svid(&one(), HOUR, now).unwrap().svid;
        assert!(svid.not_after >= now + HOUR / 2 - HOUR / 10, "never at the mercy of the authority's end");
        let token = site.token(now);
        assert_eq!(site.valid(&token, now), Ok(()));
        now = site.issuer.next_tick(now).max(now + Duration::from_secs(1)).min(now + MINUTE * 7);
        let changes = site.issuer.tick(now);
        assert!(changes.failures.is_empty(), "{changes:?}");
        assert_eq!(site.valid(&token, now).is_ok(), site.valid(&token, now) != Err(TokenError::Expired));
        rotations += changes.events.iter().filter(|event| event.change == Activated && event.kind == X509).count();
    }
    assert_eq!(rotations, (30 * 24 - 20) / 12 + 1, "the first signs for 20 hours, each later one for half of its life");
}

#[test]
fn a_restart_in_the_middle_of_a_rotation_goes_on_where_it_was() {
    let mut site = Site::new();
    site.issuer.tick(start() + HOUR * 12);
    let (bundle, before) = (site.issuer.bundle(), site.states(X509));
    let site = site.reopen(IssuerOptions::new(Lifetimes::default()), start() + HOUR * 13);
    assert_eq!((site.issuer.bundle(), site.states(X509)), (bundle, before));
    let site = site.reopen(IssuerOptions::new(Lifetimes::default()), start() + HOUR * 20);
    assert_eq!(site.states(X509), [(Some(Slot::A), Old), (Some(Slot::B), Active)]);
}

#[test]
fn a_forced_rotation_is_in_force_at_once_and_what_was_handed_out_stays_valid() {
    let mut site = Site::new();
    let now = start() + MINUTE;
    let (token, svid) = (site.token(now), site.issuer.x509_svid(&one(), HOUR, now).unwrap().svid);
    for kind in [X509, Jwt] {
        let changes = site.issuer.rotate(kind, now).unwrap();
        assert_eq!(changes_of(&changes, kind), [Prepared, Retired, Activated]);
        assert!(changes.bundle && !changes.svids);
    }
    assert_eq!(site.valid(&token, now), Ok(()));
    assert_ne!(site.token(now), token);
    assert_eq!(site.issuer.bundle().x509_authorities().len(), 2);
    let cached = site.issuer.x509_svid(&one(), HOUR, now).unwrap();
    assert!(!cached.fresh && cached.svid == svid);

    let changes = site.issuer.rotate_svids();
    assert!(changes.svids && changes.events.is_empty());
    let minted = site.issuer.remint_x509(now);
    assert_eq!(minted.len(), 1);
    let new = minted[0].1.as_ref().unwrap();
    assert_ne!(new.serial, svid.serial);
    assert!(!site.issuer.x509_svid(&one(), HOUR, now).unwrap().fresh, "reminted ones are in the cache");
    assert!(site.issuer.remint_x509(now).is_empty(), "once");
    let handshake = [&[0x20; 64][..], b"TLS 1.3, client CertificateVerify\0", &[7; 32]].concat();
    for key_id in [&svid.key_id, &new.key_id] {
        assert!(site.issuer.sign_handshake(&one(), key_id, &handshake).is_ok(), "handshakes under way go on");
    }
}

#[test]
fn a_forced_rotation_never_uses_what_ended_in_the_meantime() {
    let mut site = Site::new();
    site.issuer.tick(start() + HOUR * 12);
    let late = start() + HOUR * 40;
    let changes = site.issuer.rotate(X509, late).unwrap();
    assert_eq!(changes_of(&changes, X509), [Pruned, Prepared, Retired, Activated]);
    assert_eq!(site.in_state(X509, Active).not_after, late + HOUR * 24);
    assert!(site.issuer.x509_svid(&one(), HOUR, late).is_ok());
}

#[test]
fn prepare_and_activate_by_hand_refuse_what_makes_no_sense() {
    let mut site = Site::new();
    assert!(matches!(site.issuer.activate(X509, start()), Err(RotationError::NothingPrepared(X509))));
    site.issuer.prepare(X509, start()).unwrap();
    assert!(matches!(site.issuer.prepare(X509, start()), Err(RotationError::AlreadyPrepared { .. })));
    site.issuer.activate(X509, start()).unwrap();
    assert!(matches!(site.issuer.rotate(Wit, start()), Err(RotationError::Disabled(Wit))));
    assert!(matches!(site.issuer.taint(&"none".parse().unwrap(), start()), Err(RotationError::Unknown(_))));
}

#[test]
fn rotations_by_force_are_bounded_by_what_is_still_published() {
    let mut site = Site::new();
    for _ in 1..MAX_AUTHORITIES {
        site.issuer.rotate(Jwt, start()).unwrap();
    }
    assert!(matches!(site.issuer.rotate(Jwt, start()), Err(RotationError::TooMany(Jwt))));
    assert_eq!(site.issuer.bundle().jwt_authorities().len(), MAX_AUTHORITIES);
    let slots: Vec<_> = site.states(Jwt).into_iter().filter(|(slot, _)| slot.is_some()).collect();
    assert_eq!(slots.len(), 2, "those that made room are only published");
    site.issuer.tick(start() + MINUTE * 5);
    assert_eq!(site.issuer.bundle().jwt_authorities().len(), 1);
    assert!(site.issuer.rotate(Jwt, start() + MINUTE * 5).is_ok());
}

#[test]
fn a_tainted_authority_is_out_of_the_bundle_at_once_and_its_svids_are_invalid_and_forgotten() {
    let mut site = Site::new();
    let now = start() + HOUR;
    let (token, svid) = (site.token(now), site.issuer.x509_svid(&one(), HOUR, now).unwrap().svid);
    let (jwt, x509) = (site.in_state(Jwt, Active).id, site.in_state(X509, Active).id);
    let epoch = site.issuer.svid_epoch();

    let changes = site.issuer.taint(&jwt, now).unwrap();
    assert!(changes.bundle && changes.svids);
    assert_eq!(changes_of(&changes, Jwt), [Tainted, Prepared, Activated]);
    assert!(matches!(site.valid(&token, now), Err(TokenError::UnknownKey(_))));
    let fresh = site.token(now);
    assert_ne!(fresh, token);
    assert_eq!(site.valid(&fresh, now), Ok(()));

    let changes = site.issuer.taint(&x509, now).unwrap();
    assert_eq!(changes_of(&changes, X509), [Tainted, Prepared, Activated]);
    assert!(site.issuer.svid_epoch() > epoch);
    let new = site.issuer.x509_svid(&one(), HOUR, now).unwrap();
    assert!(new.fresh && new.svid.serial != svid.serial);
    let handshake = [&[0x20; 64][..], b"TLS 1.3, client CertificateVerify\0", &[7; 32]].concat();
    assert_eq!(site.issuer.sign_handshake(&one(), &svid.key_id, &handshake), Err(SignError::UnknownKey));

    assert_eq!(site.issuer.bundle().x509_authorities().len(), 1);
    assert_eq!(site.issuer.bundle().jwt_authorities().len(), 1);
    assert!(matches!(site.issuer.taint(&jwt, now), Err(RotationError::AlreadyTainted(_))));
    let site = site.reopen(IssuerOptions::new(Lifetimes::default()), now);
    assert!(matches!(site.valid(&token, now), Err(TokenError::UnknownKey(_))), "a restart does not forgive it");
    assert_eq!(site.in_state(Jwt, AuthorityState::Tainted).id, jwt);
    let keys = fs::read_dir(&site.dir)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().ends_with(".key"));
    assert_eq!(keys.count(), 3, "the tainted keys are destroyed");
}

#[test]
fn tainting_with_a_successor_prepared_uses_that_and_tainting_a_prepared_one_leaves_the_active_one() {
    let mut site = Site::new();
    let now = start() + HOUR * 12;
    site.issuer.tick(now);
    let (active, prepared) = (site.in_state(X509, Active).id, site.in_state(X509, AuthorityState::Prepared).id);
    let changes = site.issuer.taint(&active, now).unwrap();
    assert_eq!(changes_of(&changes, X509), [Tainted, Activated]);
    assert_eq!(site.in_state(X509, Active).id, prepared);

    let (active, prepared) = (site.in_state(Jwt, Active).id, site.in_state(Jwt, AuthorityState::Prepared).id);
    let changes = site.issuer.taint(&prepared, now).unwrap();
    assert_eq!(changes_of(&changes, Jwt), [Tainted]);
    assert_eq!(site.in_state(Jwt, Active).id, active);
    assert_eq!(changes_of(&site.issuer.tick(now), Jwt), [Prepared], "another one is prepared");
}

#[test]
fn tainting_an_old_authority_makes_its_svids_invalid() {
    let mut site = Site::new();
    let token = site.token(start());
    let old = site.in_state(Jwt, Active).id;
    site.issuer.rotate(Jwt, start()).unwrap();
    assert_eq!(site.valid(&token, start()), Ok(()));
    site.issuer.taint(&old, start()).unwrap();
    assert!(matches!(site.valid(&token, start()), Err(TokenError::UnknownKey(_))));
}

#[test]
fn a_change_of_the_algorithm_is_prepared_at_once_and_used_when_it_was_published_long_enough() {
    let mut rsa = IssuerOptions::new(Lifetimes::default());
    rsa.jwt_algorithm = JwtAlgorithm::Rs256;
    let mut site = Site::new();
    let before = site.token(start());
    let mut site = site.reopen(rsa.clone(), start() + MINUTE);
    assert_eq!(site.in_state(Jwt, Active).algorithm, "ES256");
    assert_eq!(site.in_state(Jwt, AuthorityState::Prepared).algorithm, "RS256");
    let used = start() + MINUTE + Lifetimes::default().refresh_hint() * PUBLISHED_HINTS;
    let next = site.issuer.next_actions(start() + MINUTE);
    assert!(next.iter().any(|next| next.kind == Jwt && next.action == RotationAction::Activate && next.at == used));
    assert_eq!(site.valid(&before, start() + MINUTE), Ok(()));
    site.issuer.tick(used);
    let token = site.token(used);
    let header = STANDARD_NO_PAD_URL.decode(token.split('.').next().unwrap()).unwrap();
    assert!(String::from_utf8(header).unwrap().contains(r#""alg":"RS256""#));
    assert_eq!(site.valid(&token, used), Ok(()));
    let document: serde_json::Value = serde_json::from_str(&site.issuer.bundle().to_json()).unwrap();
    let rsa_key = document["keys"].as_array().unwrap().iter().find(|key| key["kty"] == "RSA").unwrap();
    assert_eq!((rsa_key["use"].as_str(), rsa_key["e"].as_str()), (Some("jwt-svid"), Some("AQAB")));
    let mut site = site.reopen(rsa, used + MINUTE);
    let again = site.token(used + MINUTE);
    assert_eq!(site.valid(&again, used + MINUTE), Ok(()), "an RSA key is read back");
    assert_eq!(site.in_state(Jwt, Active).algorithm, "RS256");
}

#[test]
fn an_rsa_key_that_was_made_ahead_is_used_so_that_nobody_waits_for_one() {
    assert!(!Site::new().issuer.wants_spare_key(), "other keys are made in no time");
    let mut rsa = IssuerOptions::new(Lifetimes::default());
    rsa.jwt_algorithm = JwtAlgorithm::Rs256;
    let mut site = Site::new().reopen(rsa, start() + MINUTE);
    assert!(site.issuer.wants_spare_key());
    site.issuer.keep_spare_key(portcullis_identity::SpareKey::generate().unwrap());
    assert!(!site.issuer.wants_spare_key());
    site.issuer.rotate(Jwt, start() + MINUTE).unwrap();
    // What was prepared is in use; the one made ahead is for the next.
    assert!(!site.issuer.wants_spare_key());
    let began = std::time::Instant::now();
    site.issuer.rotate(Jwt, start() + MINUTE).unwrap();
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(site.issuer.wants_spare_key(), "it is in use now");
    let token = site.token(start() + MINUTE);
    assert_eq!(site.valid(&token, start() + MINUTE), Ok(()));
}

const STANDARD_NO_PAD_URL: base64::engine::GeneralPurpose = base64::engine::general_purpose::URL_SAFE_NO_PAD;
