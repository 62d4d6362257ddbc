//! What is served to everybody over HTTP: our bundle document (SPIFFE_Federation section 5.1), and the OIDC documents by which
//! others check our JWT-SVIDs (OpenID Connect Discovery 1.0 section 4, RFC 7517).
//!
//! Public keys only. Everybody may ask; nobody is asked who he is. Whatever is no GET or HEAD of one of the documents is
//! refused. The OIDC key set has the JWT keys and no other, so that no X.509 authority is ever taken for a token key.

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Response, StatusCode};
use serde::Serialize;

use crate::bundle_document::BundleDocument;
use crate::jwt_issuer::JwtIssuer;
use crate::jwt_key::JwtKey;
use crate::limits::OIDC_MAX_AGE;
use crate::public_key::PublicKey;

/// The documents of one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Documents {
    /// The SPIFFE bundle.
    Bundle {
        /// At this path and at no other.
        path: String,
    },
    /// OIDC discovery and key set.
    Oidc {
        /// Whose they are: `iss` of our JWT-SVIDs.
        issuer: JwtIssuer,
    },
}

impl Documents {
    /// The answer to a request, by the bundle of our trust domain as it is now.
    pub fn answer(&self, method: &Method, path: &str, bundle: &BundleDocument) -> Response<String> {
        let Some(document) = self.document(path, bundle) else {
            return refused(StatusCode::NOT_FOUND);
        };
        if method != Method::GET && method != Method::HEAD {
            let mut response = refused(StatusCode::METHOD_NOT_ALLOWED);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let mut response = Response::new(document);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(CACHE_CONTROL, self.cache_control());
        response
    }

    fn document(&self, path: &str, bundle: &BundleDocument) -> Option<String> {
        match self {
            Self::Bundle { path: served } => (path == served).then(|| bundle.json().to_owned()),
            Self::Oidc { issuer } => {
                let below = path.strip_prefix(issuer_path(issuer))?;
                match below {
                    DISCOVERY_PATH => Some(discovery(issuer, bundle)),
                    KEYS_PATH => Some(key_set(bundle)),
                    _ => None,
                }
            }
        }
    }

    fn cache_control(&self) -> HeaderValue {
        match self {
            // FE-02: whoever asks gets the newest one.
            Self::Bundle { .. } => HeaderValue::from_static("no-cache"),
            // A key is published for many times this before its first use.
            Self::Oidc { .. } => HeaderValue::from_str(&format!("public, max-age={}", OIDC_MAX_AGE.as_secs()))
                .unwrap_or(HeaderValue::from_static("no-cache")),
        }
    }
}

fn refused(status: StatusCode) -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = status;
    response
}

/// The path of an issuer's URL, without the last slash.
fn issuer_path(issuer: &JwtIssuer) -> &str {
    let rest = issuer.as_str().split_once("://").map_or("", |(_, rest)| rest);
    rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default().trim_end_matches('/')
}

fn discovery(issuer: &JwtIssuer, bundle: &BundleDocument) -> String {
    let mut algorithms: Vec<_> = bundle.jwt_keys().keys().iter().map(algorithm).collect();
    algorithms.sort_unstable();
    algorithms.dedup();
    let document = Discovery {
        issuer: issuer.as_str(),
        jwks_uri: format!("{}{KEYS_PATH}", issuer.as_str().trim_end_matches('/')),
        response_types_supported: ["id_token"],
        subject_types_supported: ["public"],
        id_token_signing_alg_values_supported: algorithms,
        claims_supported: ["iss", "sub", "aud", "exp", "iat", "jti"],
    };
    serde_json::to_string(&document).unwrap_or_default()
}

/// The keys as consumers outside SPIFFE want them: `use` is `sig`, `alg` is there.
fn key_set(bundle: &BundleDocument) -> String {
    let keys: Vec<_> = bundle
        .jwt_keys()
        .keys()
        .iter()
        .map(|key| {
            let mut jwk = key.to_jwk("sig");
            if let Some(members) = jwk.as_object_mut() {
                members.insert("alg".to_owned(), algorithm(key).into());
            }
            jwk
        })
        .collect();
    serde_json::json!({ "keys": keys }).to_string()
}

/// What tokens under this key are signed with. Ours are bound to one algorithm; an upstream's key says it by its kind.
fn algorithm(key: &JwtKey) -> &'static str {
    key.algorithm().unwrap_or(match key.public() {
        PublicKey::P256(_) => "ES256",
        PublicKey::P384(_) => "ES384",
        PublicKey::Rsa { .. } => "RS256",
    })
}

#[derive(Serialize)]
struct Discovery<'a> {
    issuer: &'a str,
    jwks_uri: String,
    response_types_supported: [&'static str; 1],
    subject_types_supported: [&'static str; 1],
    id_token_signing_alg_values_supported: Vec<&'static str>,
    claims_supported: [&'static str; 6],
}

const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";
const KEYS_PATH: &str = "/keys";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn bundle() -> BundleDocument {
        let key = |kid: &str, usage: &str| {
            json!({"kty": "EC", "use": usage, "kid": kid, "crv": "P-256",
                "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"})
        };
        let json =
            json!({"keys": [key("a", "jwt-svid"), key("w", "wit-svid"), key("b", "jwt-svid")], "spiffe_sequence": 3});
        BundleDocument::parse(&"example.org".parse().unwrap(), json.to_string().as_bytes()).unwrap()
    }

    fn oidc(issuer: &str) -> Documents {
        Documents::Oidc { issuer: issuer.parse().unwrap() }
    }

    fn get(documents: &Documents, path: &str) -> Response<String> {
        documents.answer(&Method::GET, path, &bundle())
    }

    fn json_of(response: &Response<String>) -> Value {
        assert_eq!(
            (response.status(), &response.headers()[CONTENT_TYPE]),
            (StatusCode::OK, &HeaderValue::from_static("application/json"))
        );
        serde_json::from_str(response.body()).unwrap()
    }

    #[test]
    fn fe_02_the_bundle_is_served_whole_at_its_path_only() {
        let documents = Documents::Bundle { path: "/".to_owned() };
        assert_eq!(get(&documents, "/").body(), bundle().json());
        for path in ["/x", "//", "", "/keys", "/.well-known/openid-configuration"] {
            assert_eq!(get(&documents, path).status(), StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[test]
    fn other_methods_are_refused_with_those_that_are_allowed() {
        let documents = Documents::Bundle { path: "/".to_owned() };
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE] {
            let response = documents.answer(&method, "/", &bundle());
            assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(response.headers()[ALLOW], "GET, HEAD");
        }
        assert_eq!(documents.answer(&Method::HEAD, "/", &bundle()).status(), StatusCode::OK);
    }

    #[test]
    fn discovery_names_the_issuer_and_its_keys() {
        for (issuer, prefix) in [("https://oidc.example.org", ""), ("https://example.org:8443/a/b", "/a/b")] {
            let document = json_of(&get(&oidc(issuer), &format!("{prefix}/.well-known/openid-configuration")));
            assert_eq!(document["issuer"], issuer);
            assert_eq!(document["jwks_uri"], format!("{issuer}/keys"));
            assert_eq!(document["id_token_signing_alg_values_supported"], json!(["ES256"]));
            assert_eq!(get(&oidc(issuer), "/x/keys").status(), StatusCode::NOT_FOUND);
        }
    }

    #[test]
    fn the_key_set_has_jwt_keys_only_and_may_be_cached() {
        let response = get(&oidc("https://oidc.example.org"), "/keys");
        assert_eq!(response.headers()[CACHE_CONTROL], "public, max-age=300");
        let keys = json_of(&response)["keys"].as_array().unwrap().clone();
        assert_eq!(keys.iter().map(|key| key["kid"].as_str().unwrap()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(keys.iter().all(|key| key["use"] == "sig" && key["alg"] == "ES256"));
    }
}
