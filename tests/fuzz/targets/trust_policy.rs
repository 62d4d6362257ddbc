//! Reads a trust policy, bare and in its envelope. What is read must be written and read again as the same policy.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_signing::TrustDocument;
use portcullis_signing::trust::read_document;

fuzz_target!(|bytes: &[u8]| {
    let bare = TrustDocument::parse(bytes).ok();
    let enveloped = read_document(bytes).ok().map(|(document, _)| document);
    for document in bare.into_iter().chain(enveloped) {
        assert_eq!(Ok(&document), TrustDocument::parse(&document.to_json()).as_ref());
    }
});
