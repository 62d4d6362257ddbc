//! Finds the token of a file. One that is found must stand at the end, and no token verifies with a key that did not sign it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_signing::wascap;
use portcullis_signing::{KeyKind, PublicKey};

fuzz_target!(|bytes: &[u8]| {
    let Ok(token) = wascap::find(bytes) else { return };
    assert_eq!(wascap::find(bytes).as_ref(), Ok(&token), "the same file has another token");
    // Something behind it, and it does not count any more.
    let longer = [bytes, &[0, 1, 0][..]].concat();
    assert!(wascap::find(&longer).is_err());
    assert!(token.verify(&PublicKey::from_bytes(KeyKind::Signer, [0x58; 32])).is_err());
});
