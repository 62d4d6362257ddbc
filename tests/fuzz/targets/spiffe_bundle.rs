//! Reads a SPIFFE bundle document. Its authorities must be kept under the one trust domain that they were given for.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_identity::{BundleDocument, BundleSet, TrustBundle, TrustDomain};

fuzz_target!(|bytes: &[u8]| {
    let (Ok(own), Ok(other)) = ("example.org".parse::<TrustDomain>(), "other.example".parse::<TrustDomain>()) else {
        unreachable!("both are trust domains");
    };
    let Ok(bundle) = TrustBundle::from_json(&own, bytes) else { return };
    assert!(bundle.authorities(&own).is_some());
    assert!(bundle.authorities(&other).is_none());
    let Ok(document) = BundleDocument::parse(&own, bytes) else { unreachable!("it was read just now") };
    // What is given out of it is a bundle again, with the same token keys.
    let Ok(again) = BundleDocument::parse(&own, document.jwks().as_bytes()) else { unreachable!("a JWK Set is a bundle") };
    let names = |document: &BundleDocument| {
        document.jwt_keys().keys().iter().map(|key| key.kid().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&again), names(&document));
    let foreign = [("other.example", bytes), ("example.org", bytes)];
    assert!(BundleSet::parse(&own, bytes, foreign).is_err(), "a foreign bundle for our own domain");
});
