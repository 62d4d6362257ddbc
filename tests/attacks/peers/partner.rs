//! A foreign trust domain, made for the test: it can sign anything, which a real issuer would not.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

/// A chain and its key.
pub type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A trust domain with one authority of each kind.
pub struct Partner {
    pub domain: String,
    ca: CertifiedIssuer<'static, KeyPair>,
    jwt: EcdsaKeyPair,
}

impl Partner {
    pub fn new(domain: &str) -> Self {
        Self::with(domain, |_| ())
    }

    pub fn with(domain: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.subject_alt_names = vec![uri(&format!("spiffe://{domain}"))];
        params.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
        params.not_after = OffsetDateTime::now_utc() + Duration::hours(24);
        change(&mut params);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let jwt = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        Self { domain: domain.to_owned(), ca, jwt }
    }

    /// Its SPIFFE bundle document.
    pub fn bundle(&self) -> String {
        let point = self.jwt.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        json!({
            "spiffe_sequence": 1,
            "spiffe_refresh_hint": 3600,
            "keys": [
                { "kty": "EC", "use": "x509-svid", "x5c": [STANDARD.encode(self.ca.der())] },
                { "kty": "EC", "use": "jwt-svid", "kid": KID, "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y) },
            ],
        })
        .to_string()
    }

    /// An ID of this domain.
    pub fn id(&self, path: &str) -> String {
        format!("spiffe://{}/{path}", self.domain)
    }

    /// An X.509-SVID of `path`, then changed.
    pub fn leaf(&self, path: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![uri(&self.id(path))];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = OffsetDateTime::now_utc() - Duration::minutes(1);
        params.not_after = OffsetDateTime::now_utc() + Duration::hours(1);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.ca).unwrap();
        (vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    /// A JWT-SVID with this header and these claims, signed with ES256 whatever they say.
    pub fn token(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", part(header), part(claims));
        let signature = self.jwt.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    /// The header of a good token.
    pub fn header() -> Value {
        json!({ "alg": "ES256", "kid": KID, "typ": "JWT" })
    }

    /// The claims of a good token.
    pub fn claims(&self, path: &str, audience: &str) -> Value {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        json!({ "sub": self.id(path), "aud": [audience], "exp": now + 300, "iat": now })
    }
}

pub fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub const KID: &str = "partner-jwt-1";
