//! Directories of versions that kept no journal: taken over with their keys and their sequence, or refused and left.

use super::*;

/// Writes a key as versions without a journal did.
fn write_before_the_journal(dir: &Path, name: &str, kind: &str, key: &rcgen::KeyPair, certificate: &[u8]) {
    use std::os::unix::fs::OpenOptionsExt;
    let pkcs8 = key.serialize_der();
    let line = format!(
        r#"{{"version":1,"kind":"{kind}","trust_domain":"example.org","created_at":{},"not_after":{},"private_key":"{}","public_key":"{}","certificate":"{}"}}"#,
        start().unix_timestamp(),
        (start() + HOUR * 24).unix_timestamp(),
        STANDARD.encode(&pkcs8[36..68]),
        STANDARD.encode(key.public_key_raw()),
        STANDARD.encode(certificate),
    );
    let sum: String = ring::digest::digest(&ring::digest::SHA256, line.as_bytes())
        .as_ref()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(dir.join(name)).unwrap();
    std::io::Write::write_all(&mut file, format!("{line}\n{sum}\n").as_bytes()).unwrap();
}

/// The state of a version without a journal; the DER of its CA.
fn state_before_the_journal(dir: &Path) -> Vec<u8> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    fs::DirBuilder::new().mode(0o700).create(dir).unwrap();
    let (ca_key, jwt_key) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
    let mut params = rcgen::CertificateParams::default();
    params.not_before = start() - Duration::from_secs(30);
    params.not_after = start() + HOUR * 24;
    params.subject_alt_names = vec![rcgen::SanType::URI("spiffe://example.org".try_into().unwrap())];
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let id = ring::digest::digest(&ring::digest::SHA256, ca_key.public_key_raw());
    let id: String = id.as_ref()[..16].iter().map(|b| format!("{b:02x}")).collect();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("Portcullis X.509 authority {id}"));
    let ca = params.self_signed(&ca_key).unwrap().der().to_vec();
    write_before_the_journal(dir, "x509-authority.key", "x509-authority", &ca_key, &ca);
    write_before_the_journal(dir, "jwt-authority.key", "jwt-authority", &jwt_key, b"");
    fs::write(dir.join("bundle.json"), r#"{"sequence":1800000777,"content":"x"}"#).unwrap();
    fs::set_permissions(dir.join("bundle.json"), fs::Permissions::from_mode(0o600)).unwrap();
    ca
}

#[test]
fn a_directory_of_before_there_was_a_journal_is_taken_over_with_its_keys_and_its_sequence() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("identity");
    let ca = state_before_the_journal(&dir);
    let mut issuer = Issuer::open(&dir, &domain(), Lifetimes::default(), start() + MINUTE).unwrap();
    assert_eq!(issuer.bundle().x509_authorities(), [ca.as_slice()]);
    assert_eq!(issuer.bundle().sequence(), 1_800_000_778);
    assert!(dir.join("journal.json").exists() && !dir.join("bundle.json").exists());
    admit(&mut issuer);
    let svid = issuer.x509_svid(&one(), HOUR, start() + MINUTE).unwrap().svid;
    let (_, leaf) = x509_parser::parse_x509_certificate(&svid.chain[0]).unwrap();
    let (_, authority) = x509_parser::parse_x509_certificate(&ca).unwrap();
    assert!(leaf.verify_signature(Some(authority.public_key())).is_ok());
    issuer.tick(start() + HOUR * 12);
    issuer.tick(start() + HOUR * 20);
    assert!(!dir.join("x509-authority.key").exists(), "its private key goes when it is old");
    drop(issuer);
    assert!(Issuer::open(&dir, &domain(), Lifetimes::default(), start() + HOUR * 20).is_ok());
}

#[test]
fn what_is_damaged_in_a_directory_of_before_is_refused_and_left() {
    for (name, bad) in [("x509-authority.key", "x"), ("jwt-authority.key", ""), ("bundle.json", "{")] {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("identity");
        state_before_the_journal(&dir);
        fs::write(dir.join(name), bad).unwrap();
        let refused = Issuer::open(&dir, &domain(), Lifetimes::default(), start() + MINUTE);
        assert!(matches!(refused, Err(IssuerError::Damaged { .. })), "{name}: {refused:?}");
        assert!(!dir.join("journal.json").exists());
        assert_eq!(fs::read_to_string(dir.join(name)).unwrap(), bad);
    }
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("identity");
    state_before_the_journal(&dir);
    let early = Issuer::open(&dir, &domain(), Lifetimes::default(), start() - MINUTE);
    assert!(matches!(early, Err(IssuerError::Clock { .. })));
}
