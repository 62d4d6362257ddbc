//! JWT-SVIDs of a federated domain, as a guest has them checked: the good one, and every bad one of JWT-SVID sections 2 to 5.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis_tests::http;
use serde_json::{Value, json};

use crate::partner::{KID, Partner};
use crate::{Federated, LEDGER};

/// Checks a token as the component does; its claims or the error's name and text.
fn validate(site: &Federated, token: &str, audience: &str) -> Result<Value, String> {
    let answer = http::post(site.host.http(), &format!("/inner/validate?aud={audience}"), token.as_bytes());
    match answer.status {
        200 => Ok(answer.json()),
        422 => Err(format!("{} {}", answer.json()["error"].as_str().unwrap(), answer.json()["text"].as_str().unwrap())),
        other => panic!("{other} {}\n{}", answer.text(), site.host.log()),
    }
}

/// A value with one member changed, or taken out.
fn but(value: &Value, name: &str, with: Value) -> Value {
    let mut changed = value.clone();
    match with {
        Value::Null => drop(changed.as_object_mut().unwrap().remove(name)),
        with => changed[name] = with,
    }
    changed
}

pub fn of_a_federated_domain_are_checked_in_full(site: &Federated) {
    let partner = &site.partner;
    let (header, claims) = (Partner::header(), partner.claims(LEDGER, "orders"));
    let good = partner.token(&header, &claims);
    let checked = validate(site, &good, "orders").unwrap();
    assert_eq!(checked["spiffe_id"], partner.id(LEDGER));
    assert_eq!((&checked["audiences"], &checked["expires_at"]), (&json!(["orders"]), &claims["exp"]));

    let now = claims["iat"].as_i64().unwrap();
    let parts: Vec<&str> = good.split('.').collect();
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = format!("{}.{}.", part(&json!({ "alg": "none", "kid": KID })), parts[1]);
    let json_form = json!({ "payload": parts[1], "protected": parts[0], "signature": parts[2] }).to_string();
    let with_header = |name: &str, value: Value| partner.token(&but(&header, name, value), &claims);
    let with_claim = |name: &str, value: Value| partner.token(&header, &but(&claims, name, value));
    let bad = [
        ("no exp", with_claim("exp", Value::Null)),
        ("no aud", with_claim("aud", Value::Null)),
        ("an empty aud", with_claim("aud", json!([]))),
        ("no sub", with_claim("sub", Value::Null)),
        ("expired", with_claim("exp", json!(now - 120))),
        ("of the future", with_claim("nbf", json!(now + 3600))),
        ("another audience", with_claim("aud", json!(["order", "orders2"]))),
        ("a subject without a path", with_claim("sub", json!("spiffe://partner.example"))),
        ("a subject that is no SPIFFE ID", with_claim("sub", json!("https://partner.example/ns/pay/sa/ledger"))),
        ("our own domain, by the partner's key", with_claim("sub", json!("spiffe://test.example/ns/test/sa/greeter"))),
        ("another federated domain", with_claim("sub", json!("spiffe://fenced.example/ns/pay/sa/ledger"))),
        ("a domain that nobody federates with", with_claim("sub", json!("spiffe://stranger.example/a"))),
        ("no kid", with_header("kid", Value::Null)),
        ("an unknown kid", with_header("kid", json!("other"))),
        ("alg none", with_header("alg", json!("none"))),
        ("alg none, unsigned", unsigned),
        ("HS256", with_header("alg", json!("HS256"))),
        ("EdDSA", with_header("alg", json!("EdDSA"))),
        ("ES384 with a P-256 key", with_header("alg", json!("ES384"))),
        ("RS256 with a P-256 key", with_header("alg", json!("RS256"))),
        ("an unknown type", with_header("typ", json!("wit+jwt"))),
        ("an embedded key", with_header("jwk", json!({ "kty": "EC" }))),
        ("a key by URL", with_header("jku", json!("https://partner.example/keys"))),
        ("a critical extension", with_header("crit", json!(["exp"]))),
        ("JSON form", json_form),
        ("another payload", format!("{}.{}.{}", parts[0], part(&but(&claims, "jti", json!("x"))), parts[2])),
        ("a cut signature", good[..good.len() - 4].to_owned()),
        ("four parts", format!("{good}.{}", parts[2])),
        ("whitespace", format!("{good}\n")),
        ("nothing", String::new()),
    ];
    for (what, token) in bad {
        let refused = validate(site, &token, "orders");
        assert!(refused.as_ref().is_err_and(|why| why.starts_with("invalid-token ")), "{what}: {refused:?}");
    }
    let wider = validate(site, &good, "bank").unwrap_err();
    assert!(wider.starts_with("invalid-token "), "{wider}");
    let huge = validate(site, &"a".repeat((8 << 10) + 1), "orders").unwrap_err();
    assert!(huge.starts_with("invalid-argument token"), "{huge}");
    assert!(validate(site, &good, "").unwrap_err().starts_with("invalid-argument audience"));
    // The stranger's own key does not help it to the partner's name.
    let stranger = Partner::new("partner.example");
    assert!(validate(site, &stranger.token(&header, &claims), "orders").unwrap_err().starts_with("invalid-token "));
}
