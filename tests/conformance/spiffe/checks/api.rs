//! SPIFFE Workload API: what its methods answer.

use std::time::Duration;

use tonic::Code;

use crate::evidence::Evidence;
use crate::item::Outcome;

pub fn wa_01(evidence: &Evidence) -> Outcome {
    let mut against = Vec::new();
    let x509 = [evidence.x509.as_ref().err(), evidence.x509_bundles.as_ref().err()];
    let jwt = [evidence.jwt_bundles.as_ref().err(), evidence.jwt.as_ref().err()];
    against.extend(x509.into_iter().chain(jwt).flatten().map(ToString::to_string));
    let wit = [
        evidence.wit.as_ref().err().map(tonic::Status::code),
        evidence.wit_bundles.as_ref().err().map(tonic::Status::code),
    ];
    if wit != [None, None] && wit != [Some(Code::Unimplemented); 2] {
        against.push(format!("the WIT profile is neither there nor Unimplemented: {wit:?}"));
    }
    Outcome::unless(against)
}

pub fn wa_02(evidence: &Evidence) -> Outcome {
    let mut against = Vec::new();
    if evidence.x509_after > portcullis_tests::patience::promised(Duration::from_secs(5)) {
        against.push(format!("the first message came after {:?}", evidence.x509_after));
    }
    if !evidence.still_open {
        against.push("a stream ended, or spoke again, although nothing had changed".to_owned());
    }
    Outcome::unless(against)
}

pub fn wa_03(evidence: &Evidence) -> Outcome {
    let mut against = Vec::new();
    let mut wants = |what: &str, code: Option<Code>| {
        if code != Some(Code::InvalidArgument) {
            against.push(format!("{what}: {code:?}"));
        }
    };
    wants("FetchJWTSVID without an audience", evidence.jwt_without_audience.as_ref().err().map(tonic::Status::code));
    wants("FetchJWTSVID of a malformed ID", evidence.jwt_malformed_id.as_ref().err().map(tonic::Status::code));
    wants(
        "ValidateJWTSVID without an audience",
        evidence.validate_without_audience.as_ref().err().map(tonic::Status::code),
    );
    wants("ValidateJWTSVID without a token", evidence.validate_without_token.as_ref().err().map(tonic::Status::code));
    Outcome::unless(against)
}

pub fn wa_04(evidence: &Evidence) -> Outcome {
    match &evidence.x509 {
        Err(status) => Outcome::Fail(status.to_string()),
        Ok(answer) if answer.svids.is_empty() => Outcome::Fail("no SVID in a message".to_owned()),
        Ok(answer) => {
            let empty = answer.svids.iter().filter(|svid| {
                svid.spiffe_id.is_empty()
                    || svid.x509_svid.is_empty()
                    || svid.x509_svid_key.is_empty()
                    || svid.bundle.is_empty()
            });
            let against: Vec<String> = empty.map(|svid| format!("{:?} lacks a field", svid.spiffe_id)).collect();
            if against.is_empty() { super::x509::x5_key(evidence) } else { Outcome::unless(against) }
        }
    }
}

pub fn wa_05(evidence: &Evidence) -> Outcome {
    let mut hints: Vec<&str> =
        evidence.x509.iter().flat_map(|answer| &answer.svids).map(|svid| svid.hint.as_str()).collect();
    hints.retain(|hint| !hint.is_empty());
    hints.sort_unstable();
    let long = hints.iter().any(|hint| hint.len() > 1024);
    let twice = hints.windows(2).any(|pair| pair[0] == pair[1]);
    Outcome::when(!long && !twice, format!("hints {hints:?}"))
}

pub fn wa_07(evidence: &Evidence) -> Outcome {
    let own = format!("spiffe://{}", evidence.trust_domain);
    let mut against = Vec::new();
    let mut maps: Vec<(&str, Vec<&String>)> = Vec::new();
    if let Ok(answer) = &evidence.x509_bundles {
        maps.push(("FetchX509Bundles", answer.bundles.keys().collect()));
    }
    if let Ok(answer) = &evidence.jwt_bundles {
        maps.push(("FetchJWTBundles", answer.bundles.keys().collect()));
    }
    if let Ok(answer) = &evidence.wit_bundles {
        maps.push(("FetchWITBundles", answer.bundles.keys().collect()));
    }
    if maps.len() < 2 {
        against.push("a bundle method does not answer".to_owned());
    }
    for (method, keys) in maps {
        if !keys.contains(&&own) {
            against.push(format!("{method} lacks {own}"));
        }
        let domains = keys.iter().filter(|key| !key.starts_with("spiffe://") || key[9..].contains('/'));
        against.extend(domains.map(|key| format!("{method}: {key} is not the SPIFFE ID of a trust domain")));
    }
    Outcome::unless(against)
}

pub fn wa_08(evidence: &Evidence) -> Outcome {
    let Some(set) = evidence.own_jwks() else { return Outcome::Fail("no JWK Set of the own trust domain".to_owned()) };
    let keys = set["keys"].as_array().cloned().unwrap_or_default();
    let wrong = keys.iter().filter(|key| key.get("use").is_some_and(|u| u != "jwt-svid") || !key["kty"].is_string());
    let against: Vec<String> = wrong.map(ToString::to_string).collect();
    if keys.is_empty() { Outcome::Fail("no keys".to_owned()) } else { Outcome::unless(against) }
}

pub fn wa_11(evidence: &Evidence) -> Outcome {
    let answer = match &evidence.wit {
        Err(status) if status.code() == Code::Unimplemented => {
            return Outcome::NotApplicable("the WIT profile is off");
        }
        Err(status) => return Outcome::Fail(status.to_string()),
        Ok(answer) => answer,
    };
    let mut against = Vec::new();
    for svid in &answer.svids {
        let key: Result<serde_json::Value, _> = serde_json::from_str(&svid.wit_svid_key);
        if !key.is_ok_and(|key| key["d"].is_string()) {
            against.push("wit_svid_key is not a private JWK".to_owned());
        }
    }
    for set in evidence.wit_bundles.iter().flat_map(|answer| answer.bundles.values()) {
        let set: serde_json::Value = serde_json::from_str(set).unwrap_or_default();
        let keys = set["keys"].as_array().cloned().unwrap_or_default();
        against.extend(keys.iter().filter(|key| !key["kid"].is_string()).map(|key| format!("without kid: {key}")));
    }
    if answer.svids.is_empty() { Outcome::Fail("no WIT-SVID".to_owned()) } else { Outcome::unless(against) }
}

/// WI-01 and WI-02: the token itself.
pub fn wi_01_02(evidence: &Evidence) -> Outcome {
    use base64::Engine;
    let Ok(answer) = &evidence.wit else { return Outcome::NotApplicable("the WIT profile is off") };
    let part = |token: &str, index: usize| -> serde_json::Value {
        let text = token.split('.').nth(index).unwrap_or_default();
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    };
    let mut against = Vec::new();
    for svid in &answer.svids {
        let (header, claims) = (part(&svid.wit_svid, 0), part(&svid.wit_svid, 1));
        if header["typ"] != "wit+jwt" || !header["kid"].is_string() {
            against.push(format!("header {header}"));
        }
        let key = &claims["cnf"]["jwk"];
        if claims["sub"] != svid.spiffe_id.as_str()
            || !claims["exp"].is_number()
            || !key["alg"].is_string()
            || key.get("d").is_some()
            || claims.get("aud").is_some()
        {
            against.push(format!("claims {claims}"));
        }
    }
    Outcome::unless(against)
}

pub fn wa_12(evidence: &Evidence) -> Outcome {
    let lists = evidence.x509.iter().flat_map(|answer| &answer.crl);
    let wrong = lists.filter(|der| x509_parser::parse_x509_crl(der).is_err()).count();
    Outcome::when(wrong == 0, format!("{wrong} lists that are no DER"))
}

/// Practice: below the 4 MiB that gRPC clients receive by default.
pub fn wa_size(evidence: &Evidence) -> Outcome {
    use prost::Message;
    let sizes = [
        evidence.x509.as_ref().map_or(0, Message::encoded_len),
        evidence.x509_bundles.as_ref().map_or(0, Message::encoded_len),
        evidence.jwt_bundles.as_ref().map_or(0, Message::encoded_len),
    ];
    Outcome::when(sizes.iter().all(|size| *size < 4 << 20), format!("messages of {sizes:?} bytes"))
}
