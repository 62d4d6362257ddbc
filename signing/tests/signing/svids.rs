//! X.509-SVIDs for tests, written byte by byte: this crate makes no certificates.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

/// A key with a certificate.
pub(crate) struct Certified {
    pair: EcdsaKeyPair,
    pub(crate) der: Vec<u8>,
}

pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match length {
        0..=127 => out.push(length as u8),
        128..=255 => out.extend([0x81, length as u8]),
        _ => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend_from_slice(content);
    out
}

pub(crate) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

pub(crate) fn oid(bytes: &[u8]) -> Vec<u8> {
    tlv(0x06, bytes)
}

pub(crate) fn name(text: &str) -> Vec<u8> {
    sequence(&[tlv(0x31, &sequence(&[oid(&[0x55, 0x04, 0x03]), tlv(0x0c, text.as_bytes())]))])
}

pub(crate) fn extension(id: u8, critical: bool, value: &[u8]) -> Vec<u8> {
    let mut parts = vec![oid(&[0x55, 0x1d, id])];
    if critical {
        parts.push(tlv(0x01, &[0xff]));
    }
    parts.push(tlv(0x04, value));
    sequence(&parts)
}

/// What a certificate says.
pub(crate) struct Wanted<'a> {
    pub(crate) id: &'a str,
    pub(crate) uris: Vec<&'a str>,
    pub(crate) from: &'a str,
    pub(crate) to: &'a str,
    pub(crate) ca: bool,
    /// The bits of the key usage: 0x80 digitalSignature, 0x04 keyCertSign.
    pub(crate) usage: u8,
}

/// A certificate, by an issuer or by itself.
pub(crate) fn certificate(wanted: &Wanted<'_>, issuer: Option<(&Certified, &str)>) -> Certified {
    let (pair, algorithm) = (pair(), ecdsa_with_sha256());
    let mut extensions = Vec::new();
    if wanted.ca {
        extensions.push(extension(0x13, true, &sequence(&[tlv(0x01, &[0xff])])));
    }
    extensions.push(extension(0x0f, true, &tlv(0x03, &[wanted.usage.trailing_zeros() as u8, wanted.usage])));
    if !wanted.uris.is_empty() {
        let names: Vec<Vec<u8>> = wanted.uris.iter().map(|uri| tlv(0x86, uri.as_bytes())).collect();
        extensions.push(extension(0x11, true, &sequence(&names)));
    }
    let body = sequence(&[
        tlv(0xa0, &tlv(0x02, &[2])),
        tlv(0x02, &[1]),
        algorithm.clone(),
        name(issuer.map_or(wanted.id, |(_, id)| id)),
        sequence(&[tlv(0x17, wanted.from.as_bytes()), tlv(0x17, wanted.to.as_bytes())]),
        name(wanted.id),
        spki(&pair),
        tlv(0xa3, &sequence(&extensions)),
    ]);
    let signing = issuer.map_or(&pair, |(issuer, _)| &issuer.pair);
    let signature = sign(signing, &body);
    let der = sequence(&[body, algorithm, tlv(0x03, &[&[0][..], &signature].concat())]);
    Certified { pair, der }
}

/// A new key.
pub(crate) fn pair() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).unwrap()
}

pub(crate) fn sign(pair: &EcdsaKeyPair, message: &[u8]) -> Vec<u8> {
    pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
}

/// The algorithm of signatures.
pub(crate) fn ecdsa_with_sha256() -> Vec<u8> {
    sequence(&[oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02])])
}

/// SubjectPublicKeyInfo.
pub(crate) fn spki(pair: &EcdsaKeyPair) -> Vec<u8> {
    let ec = sequence(&[
        oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01]),
        oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]),
    ]);
    sequence(&[ec, tlv(0x03, &[&[0][..], pair.public_key().as_ref()].concat())])
}

impl Certified {
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        sign(&self.pair, message)
    }

    /// SubjectPublicKeyInfo.
    pub(crate) fn spki(&self) -> Vec<u8> {
        spki(&self.pair)
    }

    /// SubjectPublicKeyInfo in PEM.
    pub(crate) fn public_pem(&self) -> String {
        let prefix = [
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
            0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ];
        let der = [&prefix[..], self.pair.public_key().as_ref()].concat();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    }
}

/// An authority of the trust domain, valid for the year of the tests.
pub(crate) fn authority() -> Certified {
    let wanted =
        Wanted { id: "authority", uris: Vec::new(), from: "260101000000Z", to: "270101000000Z", ca: true, usage: 0x04 };
    certificate(&wanted, None)
}

/// The SPIFFE bundle of these authorities.
pub(crate) fn bundle(authorities: &[&Certified]) -> Value {
    let keys: Vec<Value> = authorities
        .iter()
        .map(|one| json!({"kty": "EC", "use": "x509-svid", "x5c": [STANDARD.encode(&one.der)]}))
        .collect();
    json!({ "keys": keys, "spiffe_sequence": 1 })
}
