//! Servers, clients and trust domains of tests: what an attacker can make, and what a real one makes.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use portcullis_nkey::{KeyPair, Kind, PublicKey};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose,
    SanType,
};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{Received, Replays, Request, RequestError, Requests};
use crate::bundle_document::BundleDocument;
use crate::bundle_set::BundleSet;
use crate::p256_key::{P256Key, SignatureForm};
use crate::xkey::XKey;

pub(super) const NOW: i64 = 1_800_000_000;

pub(super) fn now() -> OffsetDateTime {
    at(0)
}

pub(super) fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(NOW + seconds).unwrap()
}

pub(super) fn key(kind: Kind) -> PublicKey {
    KeyPair::generate(kind).unwrap().public()
}

/// A server with its callout.
pub(super) struct Forge {
    pub(super) server: KeyPair,
    pub(super) server_xkey: XKey,
    pub(super) ours: Arc<XKey>,
    pub(super) account: PublicKey,
    pub(super) user: PublicKey,
}

impl Forge {
    pub(super) fn new() -> Self {
        Self {
            server: KeyPair::generate(Kind::Server).unwrap(),
            server_xkey: XKey::generate().unwrap(),
            ours: Arc::new(XKey::generate().unwrap()),
            account: key(Kind::Account),
            user: key(Kind::User),
        }
    }

    /// What a server asks about a client that shows nothing.
    pub(super) fn claims(&self) -> Value {
        let id = self.server.public().to_string();
        json!({
            "aud": "nats-authorization-request", "iss": id, "sub": self.account.to_string(), "iat": NOW, "exp": NOW + 2, "jti": "J",
            "nats": {
                "type": "authorization_request", "version": 2, "user_nkey": self.user.to_string(),
                "server_id": {"name": "n1", "host": "127.0.0.1", "id": id, "version": "2.15.1", "xkey": self.server_xkey.public().to_string()},
                "client_info": {"host": "192.0.2.7", "id": 9, "kind": "Client", "type": "nats"},
                "connect_opts": {"protocol": 1},
            },
        })
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        self.sign_text(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#, &claims.to_string())
    }

    pub(super) fn sign_text(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(self.server.sign(signed.as_bytes()).unwrap()))
    }

    pub(super) fn requests(&self) -> Requests {
        Requests::new(self.account, Some(Arc::clone(&self.ours))).unwrap()
    }

    pub(super) fn sealed(&self, token: &str) -> Vec<u8> {
        self.server_xkey.seal(&self.ours.public(), token.as_bytes()).unwrap()
    }

    /// Sends the token in a box, with the header that says whose.
    pub(super) fn send(&self, token: &str) -> Result<Request, RequestError> {
        let header = self.server_xkey.public().to_string();
        let message = Received { payload: &self.sealed(token), xkeys: &[&header] };
        self.requests().open(&message, &mut Replays::new(), now())
    }

    /// Sends the claims of [`Forge::claims`], changed.
    pub(super) fn changed(&self, change: impl FnOnce(&mut Value)) -> Result<Request, RequestError> {
        let mut claims = self.claims();
        change(&mut claims);
        self.send(&self.sign(&claims))
    }

    /// The request about a client that shows this.
    pub(super) fn shows(&self, change: impl FnOnce(&mut Value)) -> Request {
        self.changed(|claims| change(&mut claims["nats"])).unwrap()
    }
}

/// A trust domain with an X.509 authority and a key for tokens.
pub(super) struct Domain {
    pub(super) name: String,
    authority: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
    jwt: P256Key,
}

impl Domain {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.subject_alt_names = vec![uri(&format!("spiffe://{name}"))];
        params.not_before = at(-86_400);
        params.not_after = at(86_400);
        let authority = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
        Self { name: name.to_owned(), authority, jwt: P256Key::generate(SignatureForm::Fixed).unwrap() }
    }

    pub(super) fn document(&self) -> Arc<BundleDocument> {
        let half = |range| URL_SAFE_NO_PAD.encode(&self.jwt.public()[range]);
        let json = json!({"keys": [
            {"kty": "EC", "use": "jwt-svid", "kid": "k", "crv": "P-256", "x": half(1..33), "y": half(33..65)},
            {"kty": "EC", "use": "x509-svid", "x5c": [STANDARD.encode(self.authority.der())]},
        ]});
        Arc::new(BundleDocument::parse(&self.name.parse().unwrap(), json.to_string().as_bytes()).unwrap())
    }

    pub(super) fn token(&self, claims: &Value) -> String {
        let text = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", text(&json!({"alg": "ES256", "kid": "k", "typ": "JWT"})), text(claims));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(self.jwt.sign(signed.as_bytes()).unwrap()))
    }

    /// The chain that a server finds, leaf first, for a certificate of this authority with these names.
    pub(super) fn chain(&self, names: &[&str], ends: OffsetDateTime) -> Value {
        self.chain_of(|params| {
            params.subject_alt_names = names.iter().map(|name| uri(name)).collect();
            params.not_after = ends;
        })
    }

    pub(super) fn chain_of(&self, change: impl FnOnce(&mut CertificateParams)) -> Value {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = at(-3600);
        params.not_after = at(3600);
        change(&mut params);
        let issuer: &Issuer<'_, rcgen::KeyPair> = &self.authority;
        let leaf = params.signed_by(&rcgen::KeyPair::generate().unwrap(), issuer).unwrap();
        json!([leaf.pem(), self.authority.pem()])
    }
}

/// The bundles of both, the first ours.
pub(super) fn trusting(own: &Domain, foreign: &[&Domain]) -> BundleSet {
    BundleSet::with_foreign(own.document(), foreign.iter().map(|domain| domain.document())).unwrap()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// A signature over a nonce, as a client sends it.
pub(super) fn signed(pair: &KeyPair, nonce: &str) -> String {
    URL_SAFE_NO_PAD.encode(pair.sign(nonce.as_bytes()).unwrap())
}

pub(super) const MINUTE: Duration = Duration::from_secs(60);
