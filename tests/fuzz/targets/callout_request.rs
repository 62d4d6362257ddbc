//! Reads what a server asks an auth callout: a line with the value of the header, then claims, which are signed here with a
//! server's key. Whatever is let through is from now, for this account and from the server that signed it; and where nobody is
//! trusted, nothing that a client showed proves anything.

#![no_main]

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use portcullis_identity::callout::{Received, Replays, Requests};
use portcullis_identity::{BundleDocument, BundleSet, TrustDomain, XKey};
use portcullis_nkey::{KeyPair, Kind, PublicKey};
use time::{Duration, OffsetDateTime};

fuzz_target!(|bytes: &[u8]| {
    let (Ok(now), Ok(server), Ok(account)) = (
        OffsetDateTime::from_unix_timestamp(NOW),
        KeyPair::from_seed(SERVER),
        PublicKey::parse(ACCOUNT, Kind::Account),
    ) else {
        unreachable!("a time and keys")
    };
    let (Ok(ours), Ok(theirs)) = (XKey::from_seed(OURS), XKey::from_seed(THEIRS)) else { unreachable!("curve keys") };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (header, claims) = text.split_once('\n').unwrap_or(("", text));
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(JWT), URL_SAFE_NO_PAD.encode(claims));
    let Ok(signature) = server.sign(signed.as_bytes()) else { unreachable!("it signs") };
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    let Ok(sealed) = theirs.seal(&ours.public(), token.as_bytes()) else { unreachable!("it seals") };
    let (Ok(plain), Ok(boxed)) = (Requests::new(account, None), Requests::new(account, Some(Arc::new(ours)))) else {
        unreachable!("an account's key")
    };
    let own = theirs.public().to_string();
    for (requests, payload, xkeys) in [
        (&plain, bytes, vec![]),
        (&plain, token.as_bytes(), vec![]),
        (&boxed, bytes, vec![header]),
        (&boxed, sealed.as_slice(), vec![header]),
        (&boxed, sealed.as_slice(), vec![own.as_str()]),
    ] {
        let mut replays = Replays::new();
        let message = Received { payload, xkeys: &xkeys };
        let Ok(request) = requests.open(&message, &mut replays, now) else {
            assert!(replays.is_empty());
            continue;
        };
        assert_eq!(request.server_id().to_string(), request.server().id);
        assert_eq!(request.user_nkey().kind(), Kind::User);
        assert!(
            request.expires_at() > now - Duration::seconds(5) && request.expires_at() <= now + Duration::seconds(65)
        );
        assert!(requests.open(&message, &mut replays, now).is_err(), "twice");
        assert!(request.prove(&nobody(), &audience(), now).is_err());
    }
});

fn nobody() -> BundleSet {
    let Ok(domain) = "td-a.test".parse::<TrustDomain>() else { unreachable!("a trust domain") };
    let Ok(empty) = BundleDocument::parse(&domain, br#"{"keys":[]}"#) else { unreachable!("a bundle") };
    BundleSet::new(Arc::new(empty))
}

fn audience() -> portcullis_identity::Audience {
    let Ok(audience) = "spiffe://td-a.test/callout".parse() else { unreachable!("an audience") };
    audience
}

/// When the seeds are valid.
const NOW: i64 = 1_800_000_000;
const JWT: &str = r#"{"typ":"JWT","alg":"ed25519-nkey"}"#;
/// Made for this.
const SERVER: &str = "SNAM47VPI4PGCCNSSVNMX7HHTSEEPSTFU575JZPXBFZDGDGXSB3FD2AU5A";
const ACCOUNT: &str = "ACMGKIYNZHYUPAMPHC2IA6WAJKOJT2OFUO4GHLBQMYCVHTR6M57I7NPG";
const OURS: &str = "SXAA5X4ZLU5HLODPXWJATN4OWKN33TW344XJFSUJ4LSBNUNPQXHEJTE7VI";
const THEIRS: &str = "SXADV3D7WTCQFICHWBAJ5QNI3YU2TWF6GKTCP66HH3FLHU275ZUNYT7M34";
