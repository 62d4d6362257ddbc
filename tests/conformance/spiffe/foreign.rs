//! A foreign trust domain that is all ours: its JWT key lies here, so tokens can be made that are signed as they should be
//! and wrong in one thing only. The server under test is told of it as of any federated domain.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

/// The federated trust domain that the suite speaks for.
pub const TRUST_DOMAIN: &str = "partner.example";
const KID: &str = "partner-key-1";

/// Its JWT authority.
#[derive(Debug, Clone)]
pub struct Foreign {
    key: Arc<EcdsaKeyPair>,
    /// A second one, for tokens that the bundle does not answer for.
    stranger: Arc<EcdsaKeyPair>,
}

/// A token that is wrong in one thing, or in none.
#[derive(Debug, Clone)]
pub struct Forged {
    pub name: &'static str,
    pub token: String,
}

impl Foreign {
    pub fn new() -> Self {
        Self { key: Arc::new(key()), stranger: Arc::new(key()) }
    }

    /// The bundle document that the server under test is given.
    pub fn bundle(&self) -> Value {
        let point = self.key.public_key().as_ref();
        json!({
            "keys": [{
                "kty": "EC", "crv": "P-256", "use": "jwt-svid", "kid": KID,
                "x": B64.encode(&point[1..33]), "y": B64.encode(&point[33..65]),
            }],
            "spiffe_sequence": 1,
            "spiffe_refresh_hint": 300,
        })
    }

    /// A token with nothing wrong.
    pub fn good(&self, audience: &str) -> String {
        self.sign(&header(), &claims(audience))
    }

    /// Tokens with one thing wrong each. A validator refuses them all.
    pub fn forged(&self, audience: &str, own_domain: &str) -> Vec<Forged> {
        let mut all = Vec::new();
        let mut add = |name, token| all.push(Forged { name, token });
        let without = |claim: &str| {
            let mut claims = claims(audience);
            claims.as_object_mut().unwrap().remove(claim);
            claims
        };
        let with = |claim: &str, value: Value| {
            let mut claims = claims(audience);
            claims[claim] = value;
            claims
        };
        let under = |name: &str, value: Value| {
            let mut header = header();
            header[name] = value;
            header
        };
        add("without exp", self.sign(&header(), &without("exp")));
        add("without aud", self.sign(&header(), &without("aud")));
        add("without sub", self.sign(&header(), &without("sub")));
        add("empty aud", self.sign(&header(), &with("aud", json!([]))));
        add("another audience", self.sign(&header(), &with("aud", json!(["somebody-else"]))));
        add("expired", self.sign(&header(), &with("exp", json!(now() - 3600))));
        add("not valid yet", self.sign(&header(), &with("nbf", json!(now() + 3600))));
        add("sub of another trust domain", {
            self.sign(&header(), &with("sub", json!(format!("spiffe://{own_domain}/ns/a/sa/b"))))
        });
        add("sub without a path", self.sign(&header(), &with("sub", json!(format!("spiffe://{TRUST_DOMAIN}")))));
        add("sub that is no SPIFFE ID", self.sign(&header(), &with("sub", json!("https://partner.example/a"))));
        add("sub with a query", self.sign(&header(), &with("sub", json!(format!("spiffe://{TRUST_DOMAIN}/a?b")))));
        add("typ that is not JWT or JOSE", self.sign(&under("typ", json!("at+jwt")), &claims(audience)));
        add("an unknown kid", self.sign(&under("kid", json!("nobody")), &claims(audience)));
        add("a stranger's key under a known kid", sign(&self.stranger, &header(), &claims(audience)));
        add("alg none", {
            let none = json!({ "alg": "none", "kid": KID, "typ": "JWT" });
            format!("{}.{}.", B64.encode(none.to_string()), B64.encode(claims(audience).to_string()))
        });
        add("alg EdDSA", self.sign(&under("alg", json!("EdDSA")), &claims(audience)));
        add("alg HS256 with the public key as the secret", {
            let input = input(&json!({ "alg": "HS256", "kid": KID, "typ": "JWT" }), &claims(audience));
            let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, self.key.public_key().as_ref());
            let tag = ring::hmac::sign(&secret, input.as_bytes());
            format!("{input}.{}", B64.encode(tag.as_ref()))
        });
        add("JSON serialization", {
            let good = self.good(audience);
            let parts: Vec<&str> = good.split('.').collect();
            json!({ "protected": parts[0], "payload": parts[1], "signature": parts[2] }).to_string()
        });
        add("a flipped signature", {
            let good = self.good(audience);
            let (head, signature) = good.rsplit_once('.').unwrap();
            let mut bytes = B64.decode(signature).unwrap();
            bytes[10] ^= 1;
            format!("{head}.{}", B64.encode(bytes))
        });
        add("four parts", format!("{}.e30", self.good(audience)));
        add("nothing", String::new());
        all
    }

    /// Tokens that the standard forbids an issuer to make, without saying that a validator refuses them.
    pub fn irregular(&self, audience: &str) -> Vec<Forged> {
        let mut crit = header();
        crit["x5t"] = json!("abcd");
        let mut no_kid = header();
        no_kid.as_object_mut().unwrap().remove("kid");
        vec![
            Forged { name: "a further header parameter", token: self.sign(&crit, &claims(audience)) },
            Forged { name: "without kid", token: self.sign(&no_kid, &claims(audience)) },
        ]
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        sign(&self.key, header, claims)
    }
}

fn key() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap()
}

fn header() -> Value {
    json!({ "alg": "ES256", "kid": KID, "typ": "JWT" })
}

fn claims(audience: &str) -> Value {
    json!({
        "sub": format!("spiffe://{TRUST_DOMAIN}/ns/partner/sa/caller"),
        "aud": [audience],
        "exp": now() + 300,
        "iat": now(),
    })
}

fn input(header: &Value, claims: &Value) -> String {
    format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims.to_string()))
}

fn sign(key: &EcdsaKeyPair, header: &Value, claims: &Value) -> String {
    let input = input(header, claims);
    let signature = key.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
    format!("{input}.{}", B64.encode(signature.as_ref()))
}

fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}
