//! Reads a credentials file, a seed, a client certificate with its key, and the authorities of servers: whatever is taken signs a
//! nonce, a client's handshake, and nothing else.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_identity::nats_tls::NatsRoots;
use portcullis_identity::{NatsCredentials, NatsKey, NatsSeed};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let check = |seed: &NatsSeed| {
        assert!(seed.public().starts_with('U') && seed.public().len() == 56);
        assert!(seed.sign(b"PXoWU7zWAMt75FY").is_ok());
        assert!(seed.sign(b"").is_err() && seed.sign(b"eyJ0eXAi.e30").is_err());
    };
    if let Ok(credentials) = NatsCredentials::parse(text) {
        check(credentials.seed());
        assert_eq!(credentials.token().split('.').count(), 3);
    }
    if let Ok(seed) = NatsSeed::parse(text) {
        check(&seed);
    }
    let _ = NatsRoots::from_pem(bytes);
    // One file may hold both.
    if let Ok(key) = NatsKey::from_pem(bytes, bytes) {
        assert!(!key.chain().is_empty() && key.sign(b"a document").is_err());
    }
});
