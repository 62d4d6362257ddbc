//! Reads nkeys, public ones and seeds. Each key has exactly one text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_nkey::{KeyPair, Kind, NkeyError, PublicKey, decode_public, decode_seed, encode_public, encode_seed};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some((kind, key)) = decode_public(text) {
        assert_eq!(encode_public(kind, &key), text);
        assert_eq!(text.parse::<PublicKey>().map(|key| key.to_string()).as_deref(), Ok(text));
        assert!(decode_seed(text).is_none() && text.starts_with(kind.letter()));
    }
    if let Some((kind, seed)) = decode_seed(text) {
        assert_eq!(*encode_seed(kind, &seed), text);
        assert_eq!(text.parse::<PublicKey>(), Err(NkeyError::SecretGiven));
        match KeyPair::from_seed(text) {
            Ok(pair) => assert_eq!(pair.seed().as_str(), text),
            Err(_) => assert_eq!(kind, Kind::Curve),
        }
    }
    // Any 32 bytes are a key of every kind.
    if let Ok(key) = <[u8; 32]>::try_from(bytes) {
        for kind in Kind::ALL {
            assert_eq!(decode_public(&encode_public(kind, &key)), Some((kind, key)));
        }
    }
});
