//! Authorities whose keys are made in a PKCS#11 token and never leave it, against SoftHSM 2 (`softhsm2-util` and its library).
//!
//! The library reads its configuration from the environment, so each test runs in a process of its own.
#![cfg(feature = "pkcs11")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "the child learns from the environment what it is")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use portcullis_identity::{
    Audience, AuthorityKind, AuthorityState, InstanceId, IssueError, Issuer, IssuerError, IssuerOptions, JwtAlgorithm,
    KeyPlace, Lifetimes, Pkcs11Options, Workload,
};
use time::OffsetDateTime;

const HOUR: Duration = Duration::from_secs(3600);
const PIN: &str = "845271";
const LIBRARIES: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
];

fn at(hours: u32) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap() + HOUR * hours
}

/// A token of its own, and the issuer's directory.
struct Site {
    root: PathBuf,
    library: PathBuf,
}

impl Site {
    fn options(&self) -> IssuerOptions {
        let mut options = IssuerOptions::new(Lifetimes::default());
        options.keys = KeyPlace::Pkcs11(Pkcs11Options {
            module: self.library.clone(),
            token_label: "portcullis test".into(),
            pin_file: self.root.join("pin"),
        });
        options
    }

    fn open_with(&self, options: IssuerOptions, now: OffsetDateTime) -> Result<Issuer, IssuerError> {
        let mut issuer = Issuer::open_with(&self.root.join("identity"), &"example.org".parse().unwrap(), options, now)?;
        issuer
            .admit(Workload {
                instance: one(),
                spiffe_id: "spiffe://example.org/a".parse().unwrap(),
                digest: "sha256:00".into(),
                component: "greeter".into(),
                exportable: false,
            })
            .unwrap();
        Ok(issuer)
    }

    fn open(&self, now: OffsetDateTime) -> Result<Issuer, IssuerError> {
        self.open_with(self.options(), now)
    }

    fn key_files(&self) -> Vec<String> {
        let names = fs::read_dir(self.root.join("identity")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".key")).collect()
    }

    fn pin(&self, pin: &str) {
        fs::write(self.root.join("pin"), format!("{pin}\n")).unwrap();
        fs::set_permissions(self.root.join("pin"), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Private keys in the token, as another program counts them.
    fn keys_in_token(&self) -> Option<usize> {
        let listed = Command::new("pkcs11-tool")
            .args(["--module", self.library.to_str().unwrap(), "--token-label", "portcullis test"])
            .args(["--login", "--pin", PIN, "--list-objects", "--type", "privkey"])
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(listed.status.success(), "{text}{}", String::from_utf8_lossy(&listed.stderr));
        let (keys, never) = (text.matches("Private Key Object").count(), text.matches("never extractable").count());
        assert_eq!(keys, never, "{text}");
        Some(keys)
    }
}

fn one() -> InstanceId {
    "one".parse().unwrap()
}

fn token(issuer: &mut Issuer, now: OffsetDateTime) -> Result<String, IssueError> {
    let audience: [Audience; 1] = ["vault".parse().unwrap()];
    issuer.jwt_svid(&one(), &audience, Duration::from_secs(300), now).map(|minted| minted.svid.token().to_owned())
}

/// Runs the body in a process of its own with a new token; says so loudly when there is no SoftHSM.
fn with_token(test: &str, body: impl FnOnce(&Site)) {
    if let Ok(root) = std::env::var("PORTCULLIS_PKCS11_TEST") {
        let library = PathBuf::from(std::env::var("PORTCULLIS_PKCS11_LIBRARY").unwrap());
        return body(&Site { root: root.into(), library });
    }
    let library = LIBRARIES.iter().find(|library| Path::new(library).exists());
    let (Some(library), Ok(_)) = (library, Command::new("softhsm2-util").arg("--version").output()) else {
        assert!(std::env::var_os("PORTCULLIS_CI").is_none(), "SoftHSM 2 is not installed, and CI must have it");
        eprintln!("SKIPPED {test}: SoftHSM 2 is not installed (Debian: apt-get install softhsm2)");
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let (tokens, conf) = (root.path().join("tokens"), root.path().join("softhsm2.conf"));
    fs::create_dir(&tokens).unwrap();
    let text = format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display());
    fs::write(&conf, text).unwrap();
    let made = Command::new("softhsm2-util")
        .env("SOFTHSM2_CONF", &conf)
        .args(["--init-token", "--free", "--label", "portcullis test", "--so-pin", "123456", "--pin", PIN])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Site { root: root.path().to_owned(), library: library.into() }.pin(PIN);
    let child = Command::new(std::env::current_exe().unwrap())
        .env("SOFTHSM2_CONF", &conf)
        .env("PORTCULLIS_PKCS11_TEST", root.path())
        .env("PORTCULLIS_PKCS11_LIBRARY", library)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && out.contains("1 passed"), "{out}{err}");
}

#[test]
fn keys_are_made_in_the_token_sign_both_kinds_of_svid_and_are_found_again_after_a_restart() {
    with_token("keys_are_made_in_the_token_sign_both_kinds_of_svid_and_are_found_again_after_a_restart", |site| {
        let mut issuer = site.open(at(0)).unwrap();
        assert_eq!(site.key_files(), ["mac.key"], "no authority's key is on disk");
        assert!(issuer.authorities().iter().all(|status| status.key_place == "pkcs11" && status.key_present));
        let svid = issuer.x509_svid(&one(), HOUR, at(0)).unwrap().svid;
        let bundle = issuer.bundle();
        let (_, leaf) = x509_parser::parse_x509_certificate(&svid.chain[0]).unwrap();
        let (_, authority) = x509_parser::parse_x509_certificate(bundle.x509_authorities()[0]).unwrap();
        assert!(leaf.verify_signature(Some(authority.public_key())).is_ok());
        let first = token(&mut issuer, at(0)).unwrap();
        assert!(issuer.validate_jwt(&first, "vault", at(0)).is_ok());
        drop(issuer);
        let mut issuer = site.open(at(0)).unwrap();
        assert_eq!(issuer.bundle(), bundle);
        assert!(issuer.validate_jwt(&first, "vault", at(0)).is_ok());
        assert!(token(&mut issuer, at(0)).is_ok());
        drop(issuer);
        assert_eq!(site.keys_in_token().unwrap_or(2), 2);
    });
}

#[test]
fn rotation_makes_the_next_keys_in_the_token_and_destroys_the_old_ones() {
    with_token("rotation_makes_the_next_keys_in_the_token_and_destroys_the_old_ones", |site| {
        let mut issuer = site.open(at(0)).unwrap();
        for hour in [12, 20, 22] {
            let changes = issuer.tick(at(hour));
            assert!(changes.failures.is_empty(), "{changes:?}");
        }
        assert!(issuer.x509_svid(&one(), HOUR, at(22)).is_ok());
        let active = issuer.authorities().into_iter().find(|status| status.state == AuthorityState::Active).unwrap();
        issuer.taint(&active.id, at(22)).unwrap();
        assert!(issuer.x509_svid(&one(), HOUR, at(22)).is_ok());
        drop(issuer);
        assert_eq!(site.keys_in_token().unwrap_or(2), 2, "one for each kind");
    });
}

#[test]
fn keys_that_no_journal_names_are_destroyed_and_those_of_another_directory_are_left() {
    with_token("keys_that_no_journal_names_are_destroyed_and_those_of_another_directory_are_left", |site| {
        let other = site.root.join("other");
        let open_other = || Issuer::open_with(&other, &"example.org".parse().unwrap(), site.options(), at(0));
        let bundle = open_other().unwrap().bundle();
        drop(site.open(at(0)).unwrap());
        assert_eq!(site.keys_in_token().unwrap_or(4), 4);
        fs::remove_file(site.root.join("identity/journal.json")).unwrap();
        let mut issuer = site.open(at(0)).unwrap();
        assert!(token(&mut issuer, at(0)).is_ok());
        drop(issuer);
        assert_eq!(site.keys_in_token().unwrap_or(4), 4, "two of each directory");
        assert_eq!(open_other().unwrap().bundle(), bundle);
    });
}

#[test]
fn rs256_keys_are_made_in_the_token() {
    with_token("rs256_keys_are_made_in_the_token", |site| {
        let mut options = site.options();
        options.jwt_algorithm = JwtAlgorithm::Rs256;
        let mut issuer = site.open_with(options.clone(), at(0)).unwrap();
        let first = token(&mut issuer, at(0)).unwrap();
        assert!(issuer.validate_jwt(&first, "vault", at(0)).is_ok());
        let jwt = issuer.authorities().into_iter().find(|status| status.kind == AuthorityKind::Jwt).unwrap();
        assert_eq!((jwt.algorithm, jwt.key_place), ("RS256", "pkcs11"));
        drop(issuer);
        let mut issuer = site.open_with(options, at(0)).unwrap();
        assert!(token(&mut issuer, at(0)).is_ok());
    });
}

#[test]
fn while_the_token_is_away_minting_is_denied_and_when_it_comes_back_it_goes_on() {
    with_token("while_the_token_is_away_minting_is_denied_and_when_it_comes_back_it_goes_on", |site| {
        let mut issuer = site.open(at(0)).unwrap();
        let first = token(&mut issuer, at(0)).unwrap();
        let (here, away) = (site.root.join("tokens"), site.root.join("away"));
        fs::rename(&here, &away).unwrap();
        fs::create_dir(&here).unwrap();
        assert_eq!(issuer.x509_svid(&one(), HOUR, at(1)).err(), Some(IssueError::KeyUnavailable));
        assert_eq!(token(&mut issuer, at(1)).err(), Some(IssueError::KeyUnavailable));
        let failed = issuer.tick(at(1));
        assert!(!failed.failures.is_empty());
        assert!(issuer.authorities().iter().all(|status| !status.key_present));
        assert_eq!(issuer.authorities().len(), 2, "a token that is away is no lost key");
        assert!(issuer.validate_jwt(&first, "vault", at(0)).is_ok(), "checking needs no private key");
        drop(issuer);
        let mut issuer = site.open(at(1)).unwrap();
        assert_eq!(token(&mut issuer, at(1)).err(), Some(IssueError::KeyUnavailable), "a start without the token");
        fs::remove_dir(&here).unwrap();
        fs::rename(&away, &here).unwrap();
        let changes = issuer.tick(at(1));
        assert!(changes.failures.is_empty(), "{changes:?}");
        assert!(token(&mut issuer, at(1)).is_ok());
        assert!(issuer.x509_svid(&one(), HOUR, at(1)).is_ok());
    });
}

#[test]
fn a_token_that_comes_back_is_used_by_the_next_request_without_a_tick() {
    with_token("a_token_that_comes_back_is_used_by_the_next_request_without_a_tick", |site| {
        let mut issuer = site.open(at(0)).unwrap();
        let (here, away) = (site.root.join("tokens"), site.root.join("away"));
        fs::rename(&here, &away).unwrap();
        fs::create_dir(&here).unwrap();
        assert_eq!(token(&mut issuer, at(1)).err(), Some(IssueError::KeyUnavailable));
        fs::remove_dir(&here).unwrap();
        fs::rename(&away, &here).unwrap();
        assert!(token(&mut issuer, at(1)).is_ok());
    });
}

#[test]
fn a_wrong_pin_a_readable_pin_file_and_a_wrong_label_are_refused_and_a_wrong_pin_is_tried_once() {
    let name = "a_wrong_pin_a_readable_pin_file_and_a_wrong_label_are_refused_and_a_wrong_pin_is_tried_once";
    with_token(name, |site| {
        site.pin("000000");
        let refused = site.open(at(0)).unwrap_err();
        assert!(matches!(refused, IssuerError::Token { .. }), "{refused}");
        assert!(!refused.to_string().contains("000000"));
        site.pin(PIN);
        fs::set_permissions(site.root.join("pin"), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(site.open(at(0)), Err(IssuerError::Permissions { mode: 0o640, .. })));
        fs::remove_file(site.root.join("pin")).unwrap();
        assert!(matches!(site.open(at(0)), Err(IssuerError::Token { .. })));
        site.pin(&"7".repeat(portcullis_identity::limits::MAX_PIN_BYTES));
        assert!(matches!(site.open(at(0)), Err(IssuerError::Damaged { .. })), "with the end of the line one too many");
        site.pin(PIN);
        let mut options = site.options();
        if let KeyPlace::Pkcs11(pkcs11) = &mut options.keys {
            pkcs11.token_label = "another".into();
        }
        assert!(matches!(site.open_with(options, at(0)), Err(IssuerError::Token { .. })));

        let mut issuer = site.open(at(0)).unwrap();
        let (here, away) = (site.root.join("tokens"), site.root.join("away"));
        fs::rename(&here, &away).unwrap();
        fs::create_dir(&here).unwrap();
        assert!(token(&mut issuer, at(1)).is_err());
        fs::remove_dir(&here).unwrap();
        fs::rename(&away, &here).unwrap();
        site.pin("000000");
        for hour in 1..4 {
            assert!(token(&mut issuer, at(hour)).is_err());
        }
        let again = issuer.tick(at(4));
        assert!(
            again.failures.iter().any(|failure| failure.error.to_string().contains("not tried again")),
            "{again:?}"
        );
        site.pin(PIN);
        assert!(token(&mut issuer, at(4)).is_ok(), "a PIN that was changed is tried");
    });
}

#[test]
fn from_disk_to_token_and_back_the_keys_move_by_rotation() {
    with_token("from_disk_to_token_and_back_the_keys_move_by_rotation", |site| {
        let disk = || IssuerOptions::new(Lifetimes::default());
        let mut issuer = site.open_with(disk(), at(0)).unwrap();
        let first = token(&mut issuer, at(0)).unwrap();
        drop(issuer);
        let mut issuer = site.open(at(0)).unwrap();
        assert!(token(&mut issuer, at(0)).is_ok(), "the key on disk signs until the next one was published");
        assert!(issuer.validate_jwt(&first, "vault", at(0)).is_ok());
        issuer.tick(at(1));
        let active = issuer.authorities().into_iter().filter(|status| status.state == AuthorityState::Active);
        assert!(active.map(|status| status.key_place).eq(["pkcs11", "pkcs11"]));
        drop(issuer);
        assert_eq!(site.key_files(), ["mac.key"]);
        let mut issuer = site.open_with(disk(), at(2)).unwrap();
        assert!(token(&mut issuer, at(2)).is_ok(), "no token is configured any more: a new key on disk signs at once");
        assert_eq!(site.key_files().len(), 3);
    });
}
