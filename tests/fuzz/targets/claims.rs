//! Reads claims. What is read must be written and read again as the same claims.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_signing::Claims;

fuzz_target!(|bytes: &[u8]| {
    let Ok(claims) = Claims::parse(bytes) else { return };
    let written = claims.to_json().expect("claims that were read can be written");
    assert_eq!(Ok(claims), Claims::parse(&written));
});
