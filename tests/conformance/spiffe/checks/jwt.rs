//! JWT-SVID: the tokens that were handed out, and what is refused of tokens that are handed in.

use serde_json::Value;
use tonic::Code;

use crate::evidence::{AUDIENCE, Evidence, OTHER_AUDIENCE};
use crate::item::Outcome;

const ALGORITHMS: [&str; 9] = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"];

fn tokens(evidence: &Evidence, wrong: impl Fn(&str, &Value, &Value) -> Option<String>) -> Outcome {
    let tokens = evidence.tokens();
    if tokens.is_empty() {
        return Outcome::Fail(format!("no token was handed out: {:?}", evidence.jwt.as_ref().err()));
    }
    Outcome::unless(tokens.iter().filter_map(|(token, header, claims)| wrong(token, header, claims)).collect())
}

pub fn jw_01(evidence: &Evidence) -> Outcome {
    tokens(evidence, |token, header, _| {
        let names: Vec<&String> = header.as_object().into_iter().flat_map(|object| object.keys()).collect();
        let known = names.iter().all(|name| ["alg", "kid", "typ"].contains(&name.as_str()));
        (!known || token.split('.').count() != 3).then(|| format!("header with {names:?}"))
    })
}

pub fn jw_02(evidence: &Evidence) -> Outcome {
    let issued = tokens(evidence, |_, header, _| {
        let alg = header["alg"].as_str().unwrap_or_default();
        (!ALGORITHMS.contains(&alg)).then(|| format!("alg {alg}"))
    });
    if issued != Outcome::Pass { issued } else { refused(evidence, |name| name.starts_with("alg ")) }
}

pub fn jw_03(evidence: &Evidence) -> Outcome {
    tokens(evidence, |_, header, _| match header.get("typ").map(|typ| typ.as_str().unwrap_or_default()) {
        None | Some("JWT" | "JOSE") => None,
        Some(typ) => Some(format!("typ {typ}")),
    })
}

pub fn jw_04(evidence: &Evidence) -> Outcome {
    tokens(evidence, |_, header, _| {
        header["kid"].as_str().is_none_or(str::is_empty).then(|| "a token without kid".to_owned())
    })
}

pub fn jw_05(evidence: &Evidence) -> Outcome {
    let prefix = format!("spiffe://{}/", evidence.trust_domain);
    let issued = tokens(evidence, |_, _, claims| {
        let subject = claims["sub"].as_str().is_some_and(|sub| sub.starts_with(&prefix));
        let audience = match &claims["aud"] {
            Value::String(_) => true,
            Value::Array(list) => !list.is_empty(),
            _ => false,
        };
        (!subject || !audience || !claims["exp"].is_number()).then(|| format!("claims {claims}"))
    });
    if issued != Outcome::Pass {
        return issued;
    }
    refused(evidence, |name| ["without exp", "without aud", "empty aud", "another audience", "expired"].contains(&name))
}

pub fn jw_06(evidence: &Evidence) -> Outcome {
    tokens(evidence, |_, _, claims| {
        let life = claims["exp"].as_i64()? - claims["iat"].as_i64()?;
        (life > 3600).then(|| format!("a life of {life} s"))
    })
}

pub fn jw_08(evidence: &Evidence) -> Outcome {
    let Some(set) = evidence.own_jwks() else { return Outcome::Fail("no JWK Set of the own trust domain".to_owned()) };
    let keys = set["keys"].as_array().cloned().unwrap_or_default();
    let mut against: Vec<String> = keys
        .iter()
        .filter(|key| key["kid"].as_str().is_none_or(str::is_empty) || key.get("x5c").is_some())
        .map(|key| format!("{key}"))
        .collect();
    for (_, header, _) in evidence.tokens() {
        if !keys.iter().any(|key| key["kid"] == header["kid"]) {
            against.push(format!("kid {} is not in the bundle", header["kid"]));
        }
    }
    if let Outcome::Fail(why) = refused(evidence, |name| name == "sub of another trust domain") {
        against.push(why);
    }
    Outcome::unless(against)
}

pub fn jw_forms(evidence: &Evidence) -> Outcome {
    refused(evidence, |name| ["JSON serialization", "four parts", "nothing", "a flipped signature"].contains(&name))
}

pub fn jw_subject(evidence: &Evidence) -> Outcome {
    refused(evidence, |name| name != "sub without a path" && (name.starts_with("sub ") || name == "without sub"))
}

pub fn jw_keys(evidence: &Evidence) -> Outcome {
    refused(evidence, |name| name.contains("kid") || name == "not valid yet")
}

pub fn jw_root(evidence: &Evidence) -> Outcome {
    refused(evidence, |name| name == "sub without a path")
}

pub fn jw_irregular(evidence: &Evidence) -> Outcome {
    if evidence.foreign_irregular.is_empty() {
        return Outcome::NotApplicable("no federated domain was set up");
    }
    let taken = evidence.foreign_irregular.iter().filter(|(_, answer)| answer.is_ok());
    let typ = refused(evidence, |name| name.starts_with("typ"));
    if typ != Outcome::Pass {
        return typ;
    }
    Outcome::unless(taken.map(|(name, _)| format!("a token with {name} is taken")).collect())
}

/// WA-10: what was fetched is valid for its audience, and the answer says what is in it.
pub fn wa_10(evidence: &Evidence) -> Outcome {
    let Some(validated) = &evidence.validated else {
        return Outcome::Fail("there was no token to validate".to_owned());
    };
    let mut against = Vec::new();
    match validated {
        Err(status) => against.push(format!("a fresh token is refused: {status}")),
        Ok(answer) => {
            let (_, _, claims) = evidence.tokens().remove(0);
            if claims["sub"] != answer.spiffe_id.as_str() {
                against.push(format!("spiffe_id {}", answer.spiffe_id));
            }
            let fields = answer.claims.as_ref().map(|claims| &claims.fields);
            for claim in ["sub", "aud", "exp"] {
                if fields.is_none_or(|fields| !fields.contains_key(claim)) {
                    against.push(format!("no claim {claim}"));
                }
            }
        }
    }
    if !matches!(&evidence.validated_for_another, Some(Err(status)) if status.code() == Code::InvalidArgument) {
        against.push(format!("for another audience: {:?}", evidence.validated_for_another));
    }
    Outcome::unless(against)
}

/// WA-09: `aud` is what was asked for; somebody else's SVID is not to be had.
pub fn wa_09(evidence: &Evidence) -> Outcome {
    let mut against = Vec::new();
    for (answer, wanted) in
        [(&evidence.jwt, vec![AUDIENCE]), (&evidence.jwt_two_audiences, vec![AUDIENCE, OTHER_AUDIENCE])]
    {
        match answer {
            Err(status) => against.push(format!("{wanted:?}: {status}")),
            Ok(answer) if answer.svids.is_empty() => against.push(format!("{wanted:?}: nothing")),
            Ok(answer) => {
                for svid in &answer.svids {
                    let found = evidence.tokens().into_iter().find(|(token, _, _)| *token == svid.svid);
                    let Some((_, _, claims)) = found else { continue };
                    let mut audience: Vec<&str> = match &claims["aud"] {
                        Value::String(one) => vec![one],
                        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
                        _ => Vec::new(),
                    };
                    audience.sort_unstable();
                    if audience != wanted {
                        against.push(format!("asked for {wanted:?}, got {audience:?}"));
                    }
                }
            }
        }
    }
    match &evidence.jwt_of_somebody_else {
        Err(status) if status.code() == Code::PermissionDenied => {}
        other => against.push(format!("an ID that one is not entitled to: {other:?}")),
    }
    Outcome::unless(against)
}

/// Tokens that are signed by a federated domain as they should be, and wrong in one thing.
fn refused(evidence: &Evidence, which: impl Fn(&str) -> bool) -> Outcome {
    let Some(good) = &evidence.foreign_good else {
        return Outcome::NotApplicable("no federated domain was set up");
    };
    if let Err(status) = good {
        return Outcome::Fail(format!("a good token of a federated domain is refused: {status}"));
    }
    let chosen: Vec<_> = evidence.foreign_forged.iter().filter(|(name, _)| which(name)).collect();
    assert!(!chosen.is_empty(), "no forged token has such a name");
    let taken = chosen.iter().filter(|(_, answer)| answer.is_ok());
    Outcome::unless(taken.map(|(name, _)| format!("a token with {name} is taken")).collect())
}
