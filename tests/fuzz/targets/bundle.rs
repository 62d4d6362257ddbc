//! Reads a Sigstore bundle, and the statement in it. What is read must be written and read again as the same bundle.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_signing::bundle;
use portcullis_signing::statement::Statement;

fuzz_target!(|bytes: &[u8]| {
    // The statement has a shape of its own, which no mutation of base64 would find.
    let _ = Statement::parse(bytes);
    let Ok(bundle) = bundle::parse(bytes) else { return };
    let _ = bundle.envelope().map(|envelope| Statement::parse(envelope.payload()));
    let written = bundle.to_json().expect("a bundle that was read can be written");
    assert_eq!(Ok(bundle), bundle::parse(&written));
});
