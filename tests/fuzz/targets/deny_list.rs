//! Reads a deny list, bare and signed, and a cosign signature document. What is read must be written and read again the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_signing::cosign::CosignEvidence;
use portcullis_signing::trust::DenyListDocument;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(evidence) = CosignEvidence::parse(bytes) {
        let _ = evidence.subject();
    }
    let bare = DenyListDocument::parse(bytes).ok();
    let signed = DenyListDocument::read_signed(bytes).ok();
    for document in bare.into_iter().chain(signed) {
        assert_eq!(DenyListDocument::parse(&document.to_json()).as_ref(), Ok(&document));
    }
});
