//! The issuer as its process uses it: key directory, admission, caches, handshake signatures, the search for keys.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_identity::limits::{
    MAX_AUDIENCES, MAX_INSTANCES, MAX_WORKLOAD_TEXT_BYTES, MAX_X509_KEYS, X509_JITTER_PERCENT,
};
use portcullis_identity::{
    AdmitError, Audience, InstanceId, IssueError, Issuer, IssuerError, KeyScan, Lifetimes, SignError, TokenError,
    TrustDomain, Workload,
};
use time::OffsetDateTime;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn domain() -> TrustDomain {
    "example.org".parse().unwrap()
}

fn open_at(dir: &Path, now: OffsetDateTime) -> Result<Issuer, IssuerError> {
    Issuer::open(dir, &domain(), Lifetimes::default(), now)
}

/// The key files: the MAC key and one for each authority that signs.
fn key_files(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".key")).collect();
    names.sort();
    names
}

fn state() -> (tempfile::TempDir, PathBuf) {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("identity");
    (temporary, dir)
}

fn workload(instance: &str, id: &str) -> Workload {
    Workload {
        instance: instance.parse().unwrap(),
        spiffe_id: id.parse().unwrap(),
        digest: "sha256:00".into(),
        component: "greeter".into(),
        exportable: false,
    }
}

fn admitted() -> (tempfile::TempDir, Issuer, InstanceId) {
    let (temporary, dir) = state();
    let mut issuer = open_at(&dir, now()).unwrap();
    issuer.admit(workload("one", "spiffe://example.org/a")).unwrap();
    (temporary, issuer, "one".parse().unwrap())
}

fn audiences(names: &[&str]) -> Vec<Audience> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn handshake() -> Vec<u8> {
    [&[0x20; 64][..], b"TLS 1.3, client CertificateVerify\0", &[7; 32]].concat()
}

#[test]
fn a_restart_has_the_same_keys_bundle_and_sequence() {
    let (_temporary, dir) = state();
    let first = open_at(&dir, now()).unwrap();
    let (bundle, mac) = (first.bundle(), first.mac("code cache", b"data"));
    let epoch = first.svid_epoch();
    assert!(bundle.sequence() >= 1_800_000_000);
    drop(first);
    let second = open_at(&dir, now() + HOUR).unwrap();
    assert_eq!(second.bundle(), bundle);
    assert!(second.svid_epoch() > epoch, "leaf keys end with the process, so what was held must be replaced");
    assert!(second.verify_mac("code cache", b"data", &mac));
    assert!(!second.verify_mac("other", b"data", &mac));
}

#[test]
fn a_token_of_before_a_restart_is_still_valid() {
    let (_temporary, dir) = state();
    let mut issuer = open_at(&dir, now()).unwrap();
    issuer.admit(workload("one", "spiffe://example.org/a")).unwrap();
    let token = issuer.jwt_svid(&"one".parse().unwrap(), &audiences(&["vault"]), MINUTE, now()).unwrap().svid;
    drop(issuer);
    let issuer = open_at(&dir, now()).unwrap();
    assert!(issuer.validate_jwt(token.token(), "vault", now()).is_ok());
    assert_eq!(issuer.instances(), 0, "identities end with the process");
}

#[test]
fn authorities_that_ended_while_the_host_was_off_are_replaced_and_the_sequence_grows() {
    let (_temporary, dir) = state();
    let first = open_at(&dir, now()).unwrap().bundle();
    let later = now() + HOUR * 25;
    let second = open_at(&dir, later).unwrap();
    assert!(second.bundle().sequence() > first.sequence());
    assert_eq!(second.bundle().x509_authorities().len(), 1);
    assert_ne!(second.bundle().x509_authorities(), first.x509_authorities());
    assert_ne!(second.bundle().jwt_authorities(), first.jwt_authorities());
    assert_eq!(second.x509_authority_not_after(), later + HOUR * 24);
}

#[test]
fn a_lost_journal_makes_new_authorities_under_a_larger_sequence() {
    let (_temporary, dir) = state();
    let first = open_at(&dir, now()).unwrap().bundle();
    fs::remove_file(dir.join("journal.json")).unwrap();
    let second = open_at(&dir, now() + MINUTE).unwrap();
    assert!(second.bundle().sequence() > first.sequence());
    assert_ne!(second.bundle().x509_authorities(), first.x509_authorities());
    assert_eq!(key_files(&dir).len(), 3, "keys that no journal names are destroyed");
}

#[test]
fn a_lost_key_file_is_replaced_and_what_it_signed_stays_valid_until_it_ends() {
    let (_temporary, dir) = state();
    let mut issuer = open_at(&dir, now()).unwrap();
    issuer.admit(workload("one", "spiffe://example.org/a")).unwrap();
    let token = issuer.jwt_svid(&"one".parse().unwrap(), &audiences(&["vault"]), MINUTE * 5, now()).unwrap().svid;
    let lost = issuer.bundle().jwt_authorities()[0].kid().to_owned();
    drop(issuer);
    for name in key_files(&dir).iter().filter(|name| name.starts_with("jwt-")) {
        fs::remove_file(dir.join(name)).unwrap();
    }
    let mut issuer = open_at(&dir, now() + MINUTE).unwrap();
    let kids: Vec<_> = issuer.bundle().jwt_authorities().iter().map(|key| key.kid().to_owned()).collect();
    assert_eq!((kids.len(), kids[0].as_str()), (2, lost.as_str()));
    assert!(issuer.validate_jwt(token.token(), "vault", now() + MINUTE).is_ok());
    issuer.tick(now() + MINUTE * 6);
    assert_eq!(issuer.bundle().jwt_authorities().len(), 1);
}

#[test]
fn half_written_and_damaged_files_are_refused_with_their_path_and_stay_as_they_are() {
    let (_temporary, dir) = state();
    drop(open_at(&dir, now()).unwrap());
    for name in key_files(&dir).into_iter().chain(["journal.json".to_owned()]) {
        let path = dir.join(&name);
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 0x10;
        for bad in [&whole[..whole.len() / 2], &[], b"\0\0\0\0", b"{}\n", &flipped] {
            fs::write(&path, bad).unwrap();
            match open_at(&dir, now()) {
                Err(error @ IssuerError::Damaged { .. }) => {
                    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
                    assert!(error.hint().contains("delete it"));
                }
                other => panic!("{name}: {other:?}"),
            }
            assert_eq!(fs::read(&path).unwrap(), bad, "nothing is overwritten");
        }
        fs::write(&path, &whole).unwrap();
        assert!(open_at(&dir, now()).is_ok());
    }
}

#[test]
fn one_damaged_file_leaves_the_others_alone_even_when_they_expired() {
    let (_temporary, dir) = state();
    drop(open_at(&dir, now()).unwrap());
    let before: Vec<_> = key_files(&dir).iter().map(|name| fs::read(dir.join(name)).unwrap()).collect();
    let mac = fs::read(dir.join("mac.key")).unwrap();
    fs::write(dir.join("mac.key"), b"").unwrap();
    assert!(open_at(&dir, now() + HOUR * 48).is_err());
    fs::write(dir.join("mac.key"), mac).unwrap();
    let after: Vec<_> = key_files(&dir).iter().map(|name| fs::read(dir.join(name)).unwrap()).collect();
    assert_eq!(after, before);
}

#[test]
fn wide_permissions_are_refused() {
    let (_temporary, dir) = state();
    drop(open_at(&dir, now()).unwrap());
    for name in key_files(&dir).into_iter().chain(["journal.json".to_owned()]) {
        let path = dir.join(name);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(open_at(&dir, now()), Err(IssuerError::Permissions { mode: 0o640, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(open_at(&dir, now()), Err(IssuerError::Permissions { mode: 0o755, .. })));
}

#[test]
fn keys_of_another_trust_domain_are_refused() {
    let (_temporary, dir) = state();
    drop(open_at(&dir, now()).unwrap());
    let other = Issuer::open(&dir, &"example.com".parse().unwrap(), Lifetimes::default(), now());
    assert!(matches!(other, Err(IssuerError::ForeignDomain { .. })));
}

#[test]
fn files_of_one_kind_in_the_place_of_another_are_refused() {
    let (_temporary, dir) = state();
    drop(open_at(&dir, now()).unwrap());
    let names = key_files(&dir);
    let of = |kind: &str| dir.join(names.iter().find(|name| name.starts_with(kind)).unwrap());
    fs::copy(of("jwt"), of("x509")).unwrap();
    assert!(matches!(open_at(&dir, now()), Err(IssuerError::Damaged { .. })));
}

#[test]
fn a_clock_behind_the_keys_and_a_second_process_are_refused() {
    let (_temporary, dir) = state();
    let first = open_at(&dir, now()).unwrap();
    assert!(matches!(open_at(&dir, now()), Err(IssuerError::InUse { .. })));
    drop(first);
    let step = Duration::from_secs(30);
    assert!(matches!(open_at(&dir, now() - step - Duration::from_secs(1)), Err(IssuerError::Clock { .. })));
    assert!(open_at(&dir, now() - step).is_ok(), "a small step back is no damage");
}

#[test]
fn a_state_directory_that_cannot_be_is_refused() {
    let (temporary, _) = state();
    fs::write(temporary.path().join("file"), b"x").unwrap();
    assert!(open_at(&temporary.path().join("file"), now()).is_err());
    assert!(open_at(&temporary.path().join("file/below"), now()).is_err());
}

#[test]
fn no_private_key_is_on_disk_outside_the_key_files() {
    let (_temporary, dir) = state();
    let mut issuer = open_at(&dir, now()).unwrap();
    issuer.admit(workload("one", "spiffe://example.org/a")).unwrap();
    issuer.x509_svid(&"one".parse().unwrap(), HOUR, now()).unwrap();
    let names: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names.len(), 5, "{names:?}");
    assert_eq!(key_files(&dir).len(), 3);
    assert!(names.contains(&"journal.json".to_owned()) && names.contains(&"lock".to_owned()));
    let journal = fs::read_to_string(dir.join("journal.json")).unwrap();
    for name in key_files(&dir) {
        assert!(!journal.contains(&STANDARD.encode(key_in(&dir.join(name)))));
    }
}

#[test]
fn an_identity_exists_from_admission_to_stop() {
    let (_temporary, mut issuer, one) = admitted();
    let unknown: InstanceId = "two".parse().unwrap();
    assert!(matches!(issuer.x509_svid(&unknown, HOUR, now()), Err(IssueError::UnknownInstance(_))));
    let key_id = issuer.x509_svid(&one, HOUR, now()).unwrap().svid.key_id;
    issuer.jwt_svid(&one, &audiences(&["vault"]), MINUTE, now()).unwrap();
    assert!(issuer.sign_handshake(&one, &key_id, &handshake()).is_ok());
    assert_eq!(issuer.workload(&one).unwrap().component, "greeter");
    assert!(issuer.stop(&one));
    assert!(!issuer.stop(&one));
    assert!(issuer.workload(&one).is_none());
    assert!(matches!(issuer.x509_svid(&one, HOUR, now()), Err(IssueError::UnknownInstance(_))));
    let token = issuer.jwt_svid(&one, &audiences(&["vault"]), MINUTE, now());
    assert!(matches!(token, Err(IssueError::UnknownInstance(_))));
    let signed = issuer.sign_handshake(&one, &key_id, &handshake());
    assert!(matches!(signed, Err(SignError::UnknownInstance(_))));
}

#[test]
fn an_instance_is_admitted_once_in_its_domain_with_a_path() {
    let (_temporary, mut issuer, _) = admitted();
    let again = issuer.admit(workload("one", "spiffe://example.org/b"));
    assert!(matches!(again, Err(AdmitError::AlreadyAdmitted(_))));
    let foreign = issuer.admit(workload("two", "spiffe://example.com/a"));
    assert!(matches!(foreign, Err(AdmitError::ForeignDomain { .. })));
    let root = issuer.admit(workload("two", "spiffe://example.org"));
    assert!(matches!(root, Err(AdmitError::RootPath(_))));
    issuer.admit(workload("two", "spiffe://example.org/a")).unwrap();
    let mut long = workload("three", "spiffe://example.org/a");
    long.digest = "x".repeat(MAX_WORKLOAD_TEXT_BYTES + 1);
    assert_eq!(issuer.admit(long.clone()), Err(AdmitError::TooLong));
    long.digest.pop();
    assert_eq!(issuer.admit(long), Ok(()));
}

#[test]
fn the_number_of_instances_is_limited() {
    let (_temporary, mut issuer, _) = admitted();
    for i in 1..MAX_INSTANCES {
        issuer.admit(workload(&format!("i{i}"), "spiffe://example.org/a")).unwrap();
    }
    assert_eq!(issuer.admit(workload("more", "spiffe://example.org/a")), Err(AdmitError::TooMany));
    assert!(issuer.stop(&"i7".parse().unwrap()));
    assert_eq!(issuer.admit(workload("more", "spiffe://example.org/a")), Ok(()));
}

#[test]
fn a_token_comes_from_the_cache_until_half_its_life() {
    let (_temporary, mut issuer, one) = admitted();
    let five = MINUTE * 5;
    let first = issuer.jwt_svid(&one, &audiences(&["b", "a", "b"]), five, now()).unwrap();
    assert!(first.fresh);
    assert_eq!(first.svid.claims().audiences(), audiences(&["a", "b"]));
    let soon = now() + Duration::from_secs(149);
    let again = issuer.jwt_svid(&one, &audiences(&["a", "b"]), five, soon).unwrap();
    assert!(!again.fresh);
    assert_eq!(again.svid.token(), first.svid.token());
    assert!(issuer.jwt_svid(&one, &audiences(&["a"]), five, soon).unwrap().fresh, "other audiences");
    assert!(issuer.jwt_svid(&one, &audiences(&["a", "b"]), MINUTE, soon).unwrap().fresh, "a shorter life");
    let half = now() + Duration::from_secs(150);
    let renewed = issuer.jwt_svid(&one, &audiences(&["a", "b"]), five, half).unwrap();
    assert!(renewed.fresh);
    assert_ne!(renewed.svid.jti(), first.svid.jti());
    let back = issuer.jwt_svid(&one, &audiences(&["a", "b"]), five, now() - MINUTE).unwrap();
    assert!(back.fresh, "a clock that was set back");
}

#[test]
fn instances_do_not_share_tokens() {
    let (_temporary, mut issuer, one) = admitted();
    issuer.admit(workload("two", "spiffe://example.org/a")).unwrap();
    let first = issuer.jwt_svid(&one, &audiences(&["vault"]), MINUTE, now()).unwrap().svid;
    let second = issuer.jwt_svid(&"two".parse().unwrap(), &audiences(&["vault"]), MINUTE, now()).unwrap();
    assert!(second.fresh);
    assert_ne!(first.jti(), second.svid.jti());
}

#[test]
fn lifetimes_are_capped_by_the_issuer_and_by_the_authority() {
    let (_temporary, mut issuer, one) = admitted();
    let token = issuer.jwt_svid(&one, &audiences(&["vault"]), HOUR * 99, now()).unwrap().svid;
    assert_eq!(token.expires_at(), now() + MINUTE * 5);
    let leaf = issuer.x509_svid(&one, HOUR * 99, now()).unwrap().svid;
    assert!(leaf.not_after <= now() + HOUR && leaf.not_after >= now() + MINUTE * 54, "less up to a tenth");
    let late = now() + HOUR * 24 - MINUTE;
    assert_eq!(issuer.x509_svid(&one, HOUR, late).unwrap().svid.not_after, now() + HOUR * 24, "nobody ticked");
    let token = issuer.jwt_svid(&one, &audiences(&["vault"]), MINUTE * 5, late).unwrap().svid;
    assert_eq!(token.expires_at(), now() + HOUR * 24);
    let end = now() + HOUR * 24;
    assert_eq!(issuer.x509_svid(&one, HOUR, end).err(), Some(IssueError::AuthorityExpired));
    let ended = issuer.jwt_svid(&one, &audiences(&["x"]), MINUTE, end);
    assert_eq!(ended.err(), Some(IssueError::AuthorityExpired));
    assert_eq!(issuer.validate_jwt(token.token(), "vault", end), Err(TokenError::Expired));
}

#[test]
fn a_life_of_less_than_a_second_and_bad_audience_counts_are_refused() {
    let (_temporary, mut issuer, one) = admitted();
    let short = Duration::from_millis(999);
    assert_eq!(issuer.jwt_svid(&one, &audiences(&["a"]), short, now()).err(), Some(IssueError::Lifetime));
    assert_eq!(issuer.x509_svid(&one, short, now()).err(), Some(IssueError::Lifetime));
    assert_eq!(issuer.jwt_svid(&one, &[], MINUTE, now()).err(), Some(IssueError::Audiences));
    let longest = |i: usize| format!("{i:a>256}").parse::<Audience>().unwrap();
    let mut many: Vec<_> = (0..MAX_AUDIENCES).map(longest).collect();
    let full = issuer.jwt_svid(&one, &many, MINUTE, now()).unwrap().svid;
    assert!(issuer.validate_jwt(full.token(), many[0].as_str(), now()).is_ok());
    many.push("more".parse().unwrap());
    assert_eq!(issuer.jwt_svid(&one, &many, MINUTE, now()).err(), Some(IssueError::Audiences));
}

#[test]
fn x509_svids_of_one_moment_end_at_different_times_within_a_tenth_of_their_life() {
    let (_temporary, mut issuer, one) = admitted();
    let mut ends: Vec<_> = (0..40)
        .map(|_| {
            issuer.rotate_svids();
            issuer.x509_svid(&one, HOUR, now()).unwrap().svid.not_after
        })
        .collect();
    ends.sort();
    ends.dedup();
    assert!(ends.len() > 20, "{}", ends.len());
    assert!(
        ends.iter().all(|end| *end <= now() + HOUR && *end >= now() + HOUR * (100 - X509_JITTER_PERCENT as u32) / 100)
    );
}

#[test]
fn an_x509_svid_is_renewed_at_half_its_life_and_the_old_key_signs_on() {
    let (_temporary, mut issuer, one) = admitted();
    let first = issuer.x509_svid(&one, HOUR, now()).unwrap();
    assert!(first.fresh);
    let soon = now() + MINUTE * 27 - Duration::from_secs(1);
    let again = issuer.x509_svid(&one, HOUR, soon).unwrap();
    assert!(!again.fresh);
    assert_eq!(again.svid, first.svid);
    let second = issuer.x509_svid(&one, HOUR, now() + Duration::from_secs(1800)).unwrap();
    assert!(second.fresh);
    assert_ne!(second.svid.key_id, first.svid.key_id);
    assert_ne!(second.svid.serial, first.svid.serial);
    for key_id in [&first.svid.key_id, &second.svid.key_id] {
        assert!(issuer.sign_handshake(&one, key_id, &handshake()).is_ok());
    }
    issuer.x509_svid(&one, HOUR, now() + HOUR + Duration::from_secs(1800)).unwrap();
    let old = issuer.sign_handshake(&one, &first.svid.key_id, &handshake());
    assert_eq!(old, Err(SignError::UnknownKey));
}

#[test]
fn the_number_of_keys_of_an_instance_is_limited() {
    let (_temporary, mut issuer, one) = admitted();
    let ids: Vec<_> = (0..=MAX_X509_KEYS as u64)
        .map(|i| issuer.x509_svid(&one, HOUR - Duration::from_secs(i), now()).unwrap().svid.key_id)
        .collect();
    assert_eq!(issuer.sign_handshake(&one, &ids[0], &handshake()), Err(SignError::UnknownKey));
    for id in &ids[1..] {
        assert!(issuer.sign_handshake(&one, id, &handshake()).is_ok());
    }
}

#[test]
fn a_handshake_is_signed_with_the_key_of_the_leaf_and_nothing_else_is_signed() {
    let (_temporary, mut issuer, one) = admitted();
    issuer.admit(workload("two", "spiffe://example.org/b")).unwrap();
    let svid = issuer.x509_svid(&one, HOUR, now()).unwrap().svid;
    let signature = issuer.sign_handshake(&one, &svid.key_id, &handshake()).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&svid.chain[0]).unwrap();
    ring::signature::UnparsedPublicKey::new(
        &ring::signature::ECDSA_P256_SHA256_ASN1,
        &leaf.public_key().subject_public_key.data,
    )
    .verify(&handshake(), &signature)
    .unwrap();
    for message in [&b""[..], b"to be signed", &svid.chain[0], &handshake()[1..], &[&handshake()[..], &[0]].concat()] {
        assert_eq!(issuer.sign_handshake(&one, &svid.key_id, message), Err(SignError::NotAHandshake));
    }
    let other = issuer.sign_handshake(&"two".parse().unwrap(), &svid.key_id, &handshake());
    assert_eq!(other, Err(SignError::UnknownKey), "another instance's key");
    assert_eq!(issuer.sign_handshake(&one, "", &handshake()), Err(SignError::UnknownKey));
}

/// The private key that a file of the state directory holds.
fn key_in(path: &Path) -> Vec<u8> {
    let text = fs::read_to_string(path).unwrap();
    let file: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    STANDARD.decode(file["private_key"].as_str().unwrap()).unwrap()
}

#[test]
fn the_search_finds_each_key_on_disk_in_both_byte_orders_and_nothing_in_random_bytes() {
    let (temporary, mut issuer, one) = admitted();
    issuer.x509_svid(&one, HOUR, now()).unwrap();
    let random = ring::rand::SystemRandom::new();
    let mut noise = vec![0; 1 << 20];
    ring::rand::SecureRandom::fill(&random, &mut noise).unwrap();
    assert_eq!(issuer.find_keys(&noise), 0);
    for (i, name) in key_files(&temporary.path().join("identity")).iter().enumerate() {
        let key = key_in(&temporary.path().join("identity").join(name));
        assert_eq!(key.len(), 32);
        noise[1000 * i..1000 * i + 32].copy_from_slice(&key);
        noise[500_000 + i * 37..][..32].copy_from_slice(&key.iter().rev().copied().collect::<Vec<_>>());
    }
    assert_eq!(issuer.find_keys(&noise), 6);
    assert_eq!(KeyScan::OVERLAP, 31);
}

#[test]
fn no_secret_and_no_token_is_printed() {
    let (_temporary, mut issuer, one) = admitted();
    let token = issuer.jwt_svid(&one, &audiences(&["vault"]), MINUTE, now()).unwrap();
    assert!(!format!("{token:?}").contains(token.svid.token()));
    assert!(!format!("{issuer:?}").contains("Secret"));
    let message = portcullis_identity::rpc::JwtSvid { token: "eyJhbGciOi".into(), ..Default::default() };
    assert!(!format!("{message:?}").contains("eyJhbGciOi"));
}
