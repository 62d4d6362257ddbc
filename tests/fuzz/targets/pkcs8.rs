//! Reads a private key as an agent of SPIRE hands it over. What is read is the very scalar that lies in the bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_identity::p256_scalar;

fuzz_target!(|bytes: &[u8]| {
    let Ok(scalar) = p256_scalar(bytes) else { return };
    assert!(bytes.windows(scalar.len()).any(|window| window == scalar.as_slice()));
    // Nothing may follow, and nothing may be missing.
    assert!(p256_scalar(&[bytes, &[0]].concat()).is_err());
    assert!(p256_scalar(&bytes[..bytes.len() - 1]).is_err());
});
