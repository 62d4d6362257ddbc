//! Reads a signed statement: a line with a pinned nkey, a line with the bundle of example.org, a line with the statement, then the
//! payload. Whatever passes is for its reader, about this payload, from a signer that is trusted, and good once. The token is
//! tried as the text of an envelope, too, and an envelope comes back as it was.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use portcullis_identity::TrustBundle;
use portcullis_identity::statement::{Envelope, Expected, Jti, Order, Replay, Signer, Signers, StatementError, check};
use time::OffsetDateTime;

fuzz_target!(|bytes: &[u8]| {
    let (Ok(domain), Ok(now)) = ("example.org".parse(), OffsetDateTime::from_unix_timestamp(NOW)) else {
        unreachable!("a trust domain and a time")
    };
    if let Ok(envelope) = Envelope::parse(bytes) {
        assert_eq!(Envelope::parse(envelope.to_json().as_bytes()).as_ref(), Ok(&envelope));
    }
    let mut lines = bytes.splitn(4, |byte| *byte == b'\n');
    let (Some(key), Some(bundle), Some(token)) = (lines.next(), lines.next(), lines.next()) else { return };
    let payload = lines.next().unwrap_or_default();
    let (Ok(key), Ok(token)) = (std::str::from_utf8(key), std::str::from_utf8(token)) else { return };
    let key = key.parse().ok();
    let bundle = TrustBundle::from_json(&domain, bundle).unwrap_or_default();
    let signers = Signers::new(Arc::new(bundle), key);
    let expected = Expected::message("spiffe://example.org/portcullis/host/h1", "control/start");
    let Ok(statement) = check(token, payload, &expected, &signers, now) else { return };
    match statement.signer() {
        Signer::Svid(id) => assert_eq!(id.trust_domain(), &domain),
        Signer::Nkey(signed) => assert_eq!(Some(*signed), key),
    }
    assert_eq!(statement.jti().to_string().parse::<Jti>(), Ok(statement.jti()));
    assert!(statement.issued_at() < statement.expires_at());
    let mut changed = payload.to_vec();
    changed.push(0);
    assert_eq!(check(token, &changed, &expected, &signers, now), Err(StatementError::Payload));
    let other = Expected::message("spiffe://example.org/portcullis/host/h2", "control/start");
    assert!(check(token, payload, &other, &signers, now).is_err());
    let mut window = Replay::new(now - time::Duration::HOUR);
    assert_eq!(window.accept(&statement, Order::Newest, now), Ok(()));
    assert_eq!(window.accept(&statement, Order::Newest, now), Err(StatementError::Replayed));
});

/// When the seeds are valid.
const NOW: i64 = 1_800_000_000;
