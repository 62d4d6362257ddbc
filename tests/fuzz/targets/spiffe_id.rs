//! Reads a SPIFFE ID. What is read must be written and read again as the same ID, and its parts must make it up.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_identity::SpiffeId;

fuzz_target!(|text: &str| {
    let Ok(id) = text.parse::<SpiffeId>() else { return };
    let written = id.to_string();
    assert_eq!(Ok(&id), written.parse().as_ref());
    assert_eq!(Ok(&id), SpiffeId::new(id.trust_domain(), id.path()).as_ref());
    // SPIFFE-ID section 2: only scheme and trust domain are read without regard to case.
    assert!(written.eq_ignore_ascii_case(text) && written.ends_with(id.path()));
    assert!(written.len() <= portcullis_identity::limits::MAX_SPIFFE_ID_BYTES);
});
