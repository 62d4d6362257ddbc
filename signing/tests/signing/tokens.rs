//! Tokens that are embedded in the file itself (wascap).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis_signing::trust::OriginEvidence;
use portcullis_signing::{ComponentBytes, Digest, SecretKey};
use serde_json::{Value, json};

use crate::fixture::{NOW, World, with};

/// A file with a token of the world's signer as its last section.
struct Tokened {
    file: Vec<u8>,
    at: usize,
}

fn leb(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

fn section(name: &str, content: &[u8]) -> Vec<u8> {
    let body = [leb(name.len()), name.as_bytes().to_vec(), content.to_vec()].concat();
    [vec![0], leb(body.len()), body].concat()
}

fn jwt(key: &SecretKey, header: &Value, claims: &Value) -> String {
    let signed =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes())))
}

fn module_key() -> String {
    nkeys::KeyPair::new_module().public_key()
}

fn token_claims(world: &World, file: &[u8]) -> Value {
    json!({
        "iss": world.signer.public(),
        "sub": module_key(),
        "wascap": { "name": "app", "hash": Digest::of(file).hex().to_uppercase() },
        "wascap_revision": 3
    })
}

fn tokened(world: &World, file: &[u8]) -> Tokened {
    let header = json!({"typ": "jwt", "alg": "Ed25519"});
    let token = jwt(&world.signer, &header, &token_claims(world, file));
    Tokened { file: [file, &section("jwt", token.as_bytes())].concat(), at: file.len() }
}

/// A world that opted in to tokens of its signer.
fn opted_in() -> World {
    let mut world = World::new();
    let identity = world.document.signers()[0].identity.clone();
    let mut document = json!(world.document);
    document["signers"] = json!([]);
    world.document = serde_json::from_value(document).unwrap();
    world.add_origin_signer("former-platform", identity, OriginEvidence::Wascap { subject: None });
    world
}

fn token_code(world: &mut World, file: Vec<u8>) -> String {
    world.component = ComponentBytes::from_vec(file);
    world.code_of(&[])
}

#[test]
fn an_embedded_token_counts_where_the_policy_opted_in() {
    let mut world = opted_in();
    let plain = world.component.bytes().to_vec();
    let good = tokened(&world, &plain);
    assert_eq!(token_code(&mut world, good.file.clone()), "verified");
    world.component = ComponentBytes::from_vec(good.file.clone());
    let verified = world.verify(&[]).unwrap();
    assert_eq!(verified.claims().name().to_string(), "demo:foreign");
    // Not opted in at all: there is no evidence.
    let mut closed = World::new();
    closed.signer = SecretKey::from_seed(&world.signer.seed()).unwrap();
    assert_eq!(token_code(&mut closed, good.file.clone()), "evidence.none");
    // Opted in for somebody else.
    let mut other = opted_in();
    assert_eq!(token_code(&mut other, good.file), "signer.unknown");
}

#[test]
fn a_module_is_refused_as_no_component_after_its_claims_were_reported() {
    let mut world = opted_in();
    let module = wat::parse_str("(module)").unwrap();
    world.component = ComponentBytes::from_vec(tokened(&world, &module).file);
    let refusal = world.verify(&[]).unwrap_err();
    assert_eq!(refusal.code().as_str(), "claims.not-component");
    let record = serde_json::to_value(&refusal).unwrap();
    assert_eq!(record["claims"]["name"], "demo:foreign");
    assert_eq!(record["signer"]["name"], "former-platform");
}

#[test]
fn every_bent_token_is_refused_with_its_own_reason() {
    let mut world = opted_in();
    let plain = world.component.bytes().to_vec();
    let good = tokened(&world, &plain);
    let token_section = good.file[good.at..].to_vec();
    let text = String::from_utf8(token_section[token_section.len() - 40..].to_vec()).unwrap();
    let mut code = |file: Vec<u8>| token_code(&mut world, file);

    // The token of one file in another.
    let other = wat::parse_str("(component)").unwrap();
    assert_eq!(code([other.clone(), token_section.clone()].concat()), "token.hash");
    // Two tokens, of which one is good.
    assert_eq!(code([plain.clone(), token_section.clone(), token_section.clone()].concat()), "token.several");
    // Something behind it, also a section that says nothing.
    assert_eq!(code([good.file.clone(), section("note", b"x")].concat()), "token.not-last");
    // The same length in more bytes than it needs.
    let long = |bytes: &[u8]| {
        let length = leb(token_section.len() - 3);
        assert_eq!(token_section[1..=length.len()], length);
        let mut padded = length.clone();
        *padded.last_mut().unwrap() |= 0x80;
        padded.push(0);
        [&plain[..], &[0], &padded, &bytes[1 + length.len()..]].concat()
    };
    assert_eq!(code(long(&token_section)), "token.encoding");
    // A token in a nested module says nothing about the file around it.
    let inner = [wat::parse_str("(module)").unwrap(), token_section.clone()].concat();
    let nested = [wat::parse_str("(component)").unwrap(), vec![1], leb(inner.len()), inner].concat();
    assert_eq!(code(nested), "evidence.none");
    // Another header word: a module that calls itself a component, or the other way round.
    let mut flipped = good.file.clone();
    flipped[4] ^= 0x0c;
    assert_eq!(code(flipped), "token.hash");
    // Cut off within the token, and before it.
    assert_eq!(code(good.file[..good.file.len() - 1].to_vec()), "evidence.none");
    assert_eq!(code(plain.clone()), "evidence.none");
    assert!(!text.is_empty());
}

#[test]
fn a_token_of_another_form_is_refused() {
    let mut world = opted_in();
    let plain = world.component.bytes().to_vec();
    let header = json!({"typ": "jwt", "alg": "Ed25519"});
    let good = token_claims(&world, &plain);
    let signer = SecretKey::from_seed(&world.signer.seed()).unwrap();
    let mut code = |header: &Value, claims: &Value| {
        let token = jwt(&signer, header, claims);
        token_code(&mut world, [plain.clone(), section("wasmcloud_jwt", token.as_bytes())].concat())
    };
    assert_eq!(code(&header, &good), "verified");
    for header in [
        json!({"typ": "jwt", "alg": "none"}),
        json!({"typ": "jwt", "alg": "EdDSA"}),
        json!({"typ": "jwt", "alg": "HS256"}),
        json!({"typ": "JWT", "alg": "Ed25519"}),
        json!({"typ": "jwt", "alg": "Ed25519", "kid": "x"}),
        json!({"alg": "Ed25519"}),
    ] {
        assert_eq!(code(&header, &good), "token.malformed", "{header}");
    }
    let hash = |to: Value| with(good.clone(), "/wascap/hash", to);
    assert_eq!(code(&header, &hash(json!(Digest::of(&plain).hex()))), "token.hash");
    assert_eq!(code(&header, &hash(json!(null))), "token.hash");
    // An older revision of the format is no excuse for the hash.
    let old = with(hash(json!("00")), "/wascap_revision", 1);
    assert_eq!(code(&header, &old), "token.hash");
    assert_eq!(code(&header, &with(good.clone(), "/sub", "AAAA")), "token.malformed");
    let user = nkeys::KeyPair::new_user().public_key();
    assert_eq!(code(&header, &with(good.clone(), "/iss", user)), "signer.unknown");
    let mut expired = good.clone();
    expired["exp"] = json!(NOW.unix_timestamp());
    assert_eq!(code(&header, &expired), "time.expired");
    expired["exp"] = json!("tomorrow");
    assert_eq!(code(&header, &expired), "token.malformed");
    let mut early = good.clone();
    early["nbf"] = json!(NOW.unix_timestamp() + 3600);
    assert_eq!(code(&header, &early), "time.not-yet");
}

#[test]
fn no_changed_byte_of_a_file_with_a_token_is_accepted() {
    let mut world = opted_in();
    let plain = world.component.bytes().to_vec();
    let good = tokened(&world, &plain).file;
    for position in 0..good.len() {
        for bit in 0..8 {
            let mut changed = good.clone();
            changed[position] ^= 1 << bit;
            assert_ne!(token_code(&mut world, changed), "verified", "byte {position} bit {bit}");
        }
    }
}

#[test]
fn embedded_signatures_of_other_schemes_say_nothing() {
    let mut world = opted_in();
    let plain = world.component.bytes().to_vec();
    // A stolen signature section before another body, a delimiter with part of a file, a section of yet another scheme.
    for name in ["signature", "signature_delimiter", "wasm-cosign"] {
        let file = [&plain[..8], &section(name, &[1; 100]), &plain[8..]].concat();
        assert_eq!(token_code(&mut world, file), "evidence.none", "{name}");
    }
}
