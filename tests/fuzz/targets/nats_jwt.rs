//! Reads NATS JWTs: as they come, and (so that more than the signature is looked at) a line with a header and claims after it,
//! signed here with a key of each kind. What is read says what its reader will rely on.

#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use portcullis_identity::nats_jwt::{Request, Response, TokenType, Verified};
use portcullis_nkey::{KeyPair, Kind};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    look(text);
    let (header, claims) = text.split_once('\n').unwrap_or((HEADER, text));
    for seed in SEEDS {
        let Ok(pair) = KeyPair::from_seed(seed) else { unreachable!("a seed") };
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let Ok(signature) = pair.sign(signed.as_bytes()) else { unreachable!("it signs") };
        look(&format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)));
    }
});

fn look(token: &str) {
    for (wanted, issuer, subject) in [
        (TokenType::Operator, Kind::Operator, Kind::Operator),
        (TokenType::Account, Kind::Operator, Kind::Account),
        (TokenType::User, Kind::Account, Kind::User),
        (TokenType::Request, Kind::Server, Kind::Account),
        (TokenType::Response, Kind::Account, Kind::User),
    ] {
        let Ok(read) = Verified::parse(token, wanted) else { continue };
        assert_eq!((read.issuer().kind(), read.subject().kind()), (issuer, subject));
        assert_eq!(read.nats().get("version").and_then(|version| version.as_u64()), Some(2));
        assert_ne!(read.audience(), Some(""));
        // There is one text for one token.
        assert!(Verified::parse(&format!("{token}="), wanted).is_err());
        assert!(Verified::parse(&token[..token.len() - 1], wanted).is_err());
    }
    let _ = Request::parse(token);
    if let Ok(response) = Response::parse(token) {
        assert_eq!((response.user.kind(), response.server.kind()), (Kind::User, Kind::Server));
    }
}

const HEADER: &str = r#"{"typ":"JWT","alg":"ed25519-nkey"}"#;
/// An operator's, an account's and a server's, made for this.
const SEEDS: [&str; 3] = [
    "SOAJY43ERWCJMJ2QK4PSM3O3XQYB3NTAZYBRVYHGMOXO6NLD7AIR2BBPLQ",
    "SAAG63EKZMBYHD6IZGPSO6AWNKRTTWZC2G55CRHTLHYCJRX4LP3AU654KM",
    "SNAM47VPI4PGCCNSSVNMX7HHTSEEPSTFU575JZPXBFZDGDGXSB3FD2AU5A",
];
