//! Reads what a registry hands over: manifests, lists of referrers, references. What was read of a list is written again as the same list.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_signing::Digest;
use portcullis_signing::oci::{ComponentManifest, OciReference, Referrer, ReferrerIndex, layers_of};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = ComponentManifest::parse(bytes) {
        assert_eq!(manifest.digest(), &Digest::of(bytes));
    }
    let subject = Digest::of(b"component");
    if Referrer::parse(bytes, &subject).is_ok() {
        assert!(layers_of(bytes).is_ok());
    }
    if let Ok(index) = ReferrerIndex::parse(bytes) {
        assert_eq!(ReferrerIndex::parse(&index.to_json()).as_ref(), Ok(&index));
    }
    if let Ok(reference) = String::from_utf8_lossy(bytes).parse::<OciReference>() {
        assert_eq!(reference.to_string().parse::<OciReference>().as_ref(), Ok(&reference));
    }
});
