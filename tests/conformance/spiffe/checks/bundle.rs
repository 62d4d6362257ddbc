//! SPIFFE Trust Domain and Bundle: the bundle document, where the suite knows a way to it.

use serde_json::Value;

use crate::evidence::Evidence;
use crate::item::Outcome;

const NONE: Outcome = Outcome::NotApplicable("no way to the bundle document is known");

fn document(evidence: &Evidence, judge: impl Fn(&Value, &[Value]) -> Vec<String>) -> Outcome {
    match &evidence.bundle_document {
        None => NONE,
        Some(document) => Outcome::unless(judge(document, document["keys"].as_array().map_or(&[][..], Vec::as_slice))),
    }
}

pub fn tb_01(evidence: &Evidence) -> Outcome {
    document(evidence, |document, keys| {
        if document["keys"].is_array() && !keys.is_empty() { vec![] } else { vec!["no keys".to_owned()] }
    })
}

pub fn tb_02(evidence: &Evidence) -> Outcome {
    document(evidence, |document, _| {
        if document["spiffe_sequence"].is_u64() { vec![] } else { vec![format!("{}", document["spiffe_sequence"])] }
    })
}

pub fn tb_03(evidence: &Evidence) -> Outcome {
    document(evidence, |document, _| {
        if document["spiffe_refresh_hint"].as_u64().is_some_and(|hint| hint > 0) {
            vec![]
        } else {
            vec![format!("{}", document["spiffe_refresh_hint"])]
        }
    })
}

pub fn tb_04(evidence: &Evidence) -> Outcome {
    document(evidence, |_, keys| {
        let known = |key: &Value| {
            key["kty"].is_string()
                && key["use"].as_str().is_some_and(|u| ["x509-svid", "jwt-svid", "wit-svid"].contains(&u))
        };
        keys.iter().filter(|key| !known(key)).map(ToString::to_string).collect()
    })
}

pub fn tb_05(evidence: &Evidence) -> Outcome {
    const DEFINED: [&str; 12] = ["kty", "use", "kid", "x5c", "crv", "x", "y", "n", "e", "alg", "key_ops", "x5t#S256"];
    document(evidence, |_, keys| {
        let names = keys.iter().flat_map(|key| key.as_object().into_iter().flat_map(|object| object.keys()));
        names.filter(|name| !DEFINED.contains(&name.as_str())).cloned().collect()
    })
}

pub fn x5_10(evidence: &Evidence) -> Outcome {
    document(evidence, |_, keys| {
        let mut against = Vec::new();
        let x509: Vec<&Value> = keys.iter().filter(|key| key["use"] == "x509-svid").collect();
        if x509.is_empty() {
            against.push("no x509-svid key".to_owned());
        }
        for key in x509 {
            if key["x5c"].as_array().is_none_or(|x5c| x5c.len() != 1) {
                against.push("x5c without exactly one certificate".to_owned());
            }
            if key.get("kid").is_some() {
                against.push("a kid on an x509-svid key".to_owned());
            }
        }
        against
    })
}

pub fn wi_05(evidence: &Evidence) -> Outcome {
    document(evidence, |_, keys| {
        let kids: Vec<&str> = keys.iter().filter_map(|key| key["kid"].as_str()).collect();
        let mut unique = kids.clone();
        unique.sort_unstable();
        unique.dedup();
        if unique.len() == kids.len() { vec![] } else { vec![format!("kids {kids:?}")] }
    })
}
