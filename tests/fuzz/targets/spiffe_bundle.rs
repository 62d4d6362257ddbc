//! Reads a SPIFFE bundle document. Its authorities must be kept under the one trust domain that they were given for.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_identity::{TrustBundle, TrustDomain};

fuzz_target!(|bytes: &[u8]| {
    let (Ok(own), Ok(other)) = ("example.org".parse::<TrustDomain>(), "other.example".parse::<TrustDomain>()) else {
        unreachable!("both are trust domains");
    };
    let Ok(bundle) = TrustBundle::from_json(&own, bytes) else { return };
    assert!(bundle.authorities(&own).is_some());
    assert!(bundle.authorities(&other).is_none());
});
