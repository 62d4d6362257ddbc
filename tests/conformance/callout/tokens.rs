//! JWT-SVIDs made by hand, and clients that show them.

use async_nats::{Auth, Client, ConnectOptions};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::rig::Rig;

/// A JWT authority of a trust domain.
pub struct Issuer {
    key: EcdsaKeyPair,
}

impl Issuer {
    pub fn new() -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self { key: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap() }
    }

    /// Its entry in a bundle.
    pub fn jwk(&self) -> Value {
        let point = self.key.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        json!({ "kty": "EC", "use": "jwt-svid", "kid": "k1", "crv": "P-256", "x": x, "y": y })
    }

    /// A token for these audiences; `life` in seconds from now, negative for one that is over.
    pub fn token(&self, sub: &str, audiences: &[&str], life: i64) -> String {
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let header = json!({ "alg": "ES256", "kid": "k1", "typ": "JWT" });
        let claims = json!({ "sub": sub, "aud": audiences, "iat": now - 60, "exp": now + life });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// What a client signs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Signs {
    /// The nonce of its connection.
    Nonce,
    /// Something else.
    Other,
    /// Nothing.
    Nothing,
}

/// Options of a client with a token and a key.
pub fn options(token: &str, key: &KeyPair, signs: Signs) -> ConnectOptions {
    let (token, seed) = (token.to_owned(), key.seed().unwrap());
    ConnectOptions::with_auth_callback(move |nonce| {
        let (token, key) = (token.clone(), KeyPair::from_seed(&seed).unwrap());
        async move {
            let mut auth = Auth::new();
            auth.token = Some(token);
            let signed: &[u8] = if signs == Signs::Other { b"another-nonce-0" } else { &nonce };
            if signs != Signs::Nothing {
                auth.nkey = Some(key.public_key());
                auth.signature = Some(key.sign(signed).unwrap());
            }
            Ok(auth)
        }
    })
}

/// Connects without a certificate.
pub async fn connect(rig: &Rig, options: ConnectOptions, inbox: &str) -> Result<Client, String> {
    let options = options
        .add_root_certificates(rig.path("tls/ca.pem"))
        .require_tls(true)
        .tls_first()
        .custom_inbox_prefix(inbox)
        .max_reconnects(1);
    options.connect(rig.server.tls_url()).await.map_err(|error| format!("{error}: {error:?}"))
}
