//! A Sigstore of our own: certificate authority, certificate log, transparency log. So own claims can be signed by an OIDC
//! identity from end to end, with everything that the public instance gives: SCT, log entry with inclusion proof and signed
//! checkpoint, signed time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_signing::Digest;
use portcullis_signing::envelope::pae;
use portcullis_signing::statement::PAYLOAD_TYPE;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::datetime;

use crate::svids::{self, Certified, name, oid, sequence, tlv};

/// When everything here is signed: in the past of any machine, inside of the certificates.
pub(crate) const SIGNED_AT: OffsetDateTime = datetime!(2026-11-20 12:00 UTC);
pub(crate) const ISSUER: &str = "https://token.ci.example";
pub(crate) const WORKFLOW: &str = "https://ci.example/acme/orders/.ci/release.yml@refs/heads/main";

/// The instance.
pub(crate) struct Sigstore {
    pub(crate) authority: Certified,
    certificates: Certified,
    log: Certified,
}

/// Fulcio's own extensions: 1.3.6.1.4.1.57264.1.
const FULCIO: [u8; 9] = [0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01];
const ISSUER_V2: u8 = 8;
const SOURCE_REPOSITORY_URI: u8 = 12;
/// RFC 6962: 1.3.6.1.4.1.11129.2.4.2.
const SCT_LIST: [u8; 10] = [0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x02];
/// 1.3.6.1.5.5.7.3.3.
const CODE_SIGNING: [u8; 8] = [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03];

impl Sigstore {
    pub(crate) fn new() -> Self {
        Self { authority: svids::authority(), certificates: svids::authority(), log: svids::authority() }
    }

    /// Its `trusted_root.json`.
    pub(crate) fn trusted_root(&self) -> Value {
        let valid = json!({ "start": "2026-01-01T00:00:00Z" });
        let log = |url: &str, key: &Certified| {
            json!({
                "baseUrl": url,
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": STANDARD.encode(key.spki()),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": valid,
                },
                "logId": { "keyId": STANDARD.encode(Digest::of(&key.spki()).as_bytes()) },
            })
        };
        json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log("https://rekor.example", &self.log)],
            "certificateAuthorities": [{
                "subject": { "organization": "example", "commonName": "authority" },
                "uri": "https://fulcio.example",
                "certChain": { "certificates": [{ "rawBytes": STANDARD.encode(&self.authority.der) }] },
                "validFor": valid,
            }],
            "ctlogs": [log("https://ct.example", &self.certificates)],
            "timestampAuthorities": [],
        })
    }

    /// A bundle of this statement, signed by whom `issuer` calls `identity`.
    pub(crate) fn bundle(&self, statement: &Value, identity: &str, issuer: &str) -> Value {
        let key = svids::pair();
        let certificate = self.certificate(&key, identity, issuer);
        let payload = statement.to_string().into_bytes();
        let signature = STANDARD.encode(svids::sign(&key, &pae(PAYLOAD_TYPE, &payload)));
        json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": { "rawBytes": STANDARD.encode(&certificate) },
                "tlogEntries": [self.entry(&payload, &signature, &certificate)],
                "timestampVerificationData": {},
            },
            "dsseEnvelope": {
                "payload": STANDARD.encode(&payload),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{ "sig": signature }],
            },
        })
    }

    fn certificate(&self, key: &ring::signature::EcdsaKeyPair, identity: &str, issuer: &str) -> Vec<u8> {
        let own = |id: u8, text: &str| {
            let oid = oid(&[&FULCIO[..], &[id]].concat());
            sequence(&[oid, tlv(0x04, &tlv(0x0c, text.as_bytes()))])
        };
        let san = if identity.contains("://") { 0x86 } else { 0x81 };
        let extensions = vec![
            svids::extension(0x0f, true, &tlv(0x03, &[7, 0x80])),
            svids::extension(0x25, false, &sequence(&[oid(&CODE_SIGNING)])),
            svids::extension(0x11, true, &sequence(&[tlv(san, identity.as_bytes())])),
            own(ISSUER_V2, issuer),
            own(SOURCE_REPOSITORY_URI, "https://ci.example/acme/orders"),
        ];
        let body = |extensions: &[Vec<u8>]| {
            sequence(&[
                tlv(0xa0, &tlv(0x02, &[2])),
                tlv(0x02, &[7]),
                svids::ecdsa_with_sha256(),
                name("authority"),
                sequence(&[tlv(0x17, b"261120115500Z"), tlv(0x17, b"261120120500Z")]),
                name("leaf"),
                svids::spki(key),
                tlv(0xa3, &sequence(extensions)),
            ])
        };
        let list = self.promise(&body(&extensions));
        let list = [&u16::try_from(list.len() + 2).unwrap().to_be_bytes()[..], &length(2, &list)].concat();
        let list = sequence(&[oid(&SCT_LIST), tlv(0x04, &tlv(0x04, &list))]);
        let body = body(&[extensions, vec![list]].concat());
        let signature = self.authority.sign(&body);
        sequence(&[body, svids::ecdsa_with_sha256(), tlv(0x03, &[&[0][..], &signature].concat())])
    }

    /// The certificate log's signed promise (RFC 6962 section 3.2).
    fn promise(&self, precertificate: &[u8]) -> Vec<u8> {
        let at = (u64::try_from(SIGNED_AT.unix_timestamp()).unwrap() * 1000).to_be_bytes();
        let issuer = Digest::of(&self.authority.spki());
        let signed = [&[0, 0][..], &at, &[0, 1], issuer.as_bytes(), &length(3, precertificate), &[0, 0]].concat();
        let signature = self.certificates.sign(&signed);
        let log = Digest::of(&self.certificates.spki());
        [&[0][..], log.as_bytes(), &at, &[0, 0, 4, 3], &length(2, &signature)].concat()
    }

    /// The entry of a transparency log that has this one entry.
    fn entry(&self, payload: &[u8], signature: &str, certificate: &[u8]) -> Value {
        let pem = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            STANDARD
                .encode(certificate)
                .as_bytes()
                .chunks(64)
                .map(|line| String::from_utf8_lossy(line).into_owned())
                .collect::<Vec<_>>()
                .join("\n")
        );
        let sha256 = |bytes: &[u8]| json!({ "algorithm": "sha256", "value": Digest::of(bytes).hex() });
        let body = json!({
            "apiVersion": "0.0.1",
            "kind": "dsse",
            "spec": {
                "envelopeHash": sha256(b"envelope"),
                "payloadHash": sha256(payload),
                "signatures": [{ "signature": signature, "verifier": STANDARD.encode(pem) }],
            },
        })
        .to_string();
        let key = Digest::of(&self.log.spki());
        let root = STANDARD.encode(Digest::of(&[&[0][..], body.as_bytes()].concat()).as_bytes());
        let (body, at) = (STANDARD.encode(body), SIGNED_AT.unix_timestamp());
        // Keys in the order of RFC 8785.
        let promise =
            format!("{{\"body\":\"{body}\",\"integratedTime\":{at},\"logID\":\"{}\",\"logIndex\":0}}", key.hex());
        let note = format!("rekor.example\n1\n{root}\n");
        let hinted = [&key.as_bytes()[..4], &self.log.sign(note.as_bytes())].concat();
        json!({
            "logIndex": "0",
            "logId": { "keyId": STANDARD.encode(key.as_bytes()) },
            "kindVersion": { "kind": "dsse", "version": "0.0.1" },
            "integratedTime": at.to_string(),
            "inclusionPromise": { "signedEntryTimestamp": STANDARD.encode(self.log.sign(promise.as_bytes())) },
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": root,
                "treeSize": "1",
                "hashes": [],
                "checkpoint": {
                    "envelope": format!("{note}\n\u{2014} rekor.example {}\n", STANDARD.encode(hinted)),
                },
            },
            "canonicalizedBody": body,
        })
    }
}

/// Bytes behind their length, as TLS writes them.
fn length(bytes: usize, content: &[u8]) -> Vec<u8> {
    let length = u64::try_from(content.len()).unwrap().to_be_bytes();
    [&length[8 - bytes..], content].concat()
}
