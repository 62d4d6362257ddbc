//! Reads a DSSE envelope and a statement. What is read must be written and read again as the same envelope, and no key's
//! signature may fit what it did not sign.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_signing::envelope::Envelope;
use portcullis_signing::statement::AnyStatement;
use portcullis_signing::{Digest, KeyKind, PublicKey, SignerKey};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(statement) = AnyStatement::parse(bytes) {
        let _ = statement.is_about(&Digest::of(bytes));
    }
    let Ok(envelope) = Envelope::parse(bytes, 1 << 20) else { return };
    let written = envelope.to_json().expect("an envelope that was read can be written");
    assert_eq!(Ok(&envelope), Envelope::parse(&written, 1 << 21).as_ref());
    // The base point: a key whose secret nobody put into a seed.
    let key = SignerKey::from(PublicKey::from_bytes(KeyKind::Signer, [0x58; 32]));
    for signature in envelope.signatures() {
        assert!(!key.verify(&envelope.signed_bytes(), &signature.sig));
    }
});
