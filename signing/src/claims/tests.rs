use serde_json::json;
use time::macros::datetime;

use super::*;
use crate::draft::ClaimsDraft;
use crate::interface::Interfaces;

fn good() -> Value {
    json!({
        "component": {"name": "acme:orders", "version": "1.4.2", "revision": 142},
        "kind": "component",
        "imports": ["wasi:http/outgoing-handler@0.2.3", "log"],
        "exports": ["wasi:http/incoming-handler@0.2.3"],
        "identity": {"path": "ns/payments/sa/orders"},
        "issuedAt": "2026-11-01T00:00:00Z",
        "notBefore": "2026-11-01T00:00:00Z",
        "expiresAt": "2026-12-01T00:00:00Z",
        "audience": ["prod-eu"],
        "source": {"uri": "git+https://example.org/x", "digest": {"gitCommit": "0123"}},
        "evidence": [{"predicateType": "https://slsa.dev/provenance/v1", "digest": {"sha256": "ab".repeat(32)}}],
        "critical": []
    })
}

fn problems(value: &Value) -> Vec<String> {
    Claims::parse(value.to_string().as_bytes()).unwrap_err().problems().iter().map(ToString::to_string).collect()
}

#[test]
fn claims_survive_their_json() {
    let claims = Claims::parse(good().to_string().as_bytes()).unwrap();
    assert_eq!(claims.name().as_str(), "acme:orders");
    assert_eq!((claims.version().to_string().as_str(), claims.revision()), ("1.4.2", 142));
    assert_eq!(claims.identity_path().as_str(), "ns/payments/sa/orders");
    assert_eq!(claims.expires_at(), datetime!(2026-12-01 0:00 UTC));
    assert_eq!(claims.lifetime(), time::Duration::days(30));
    assert_eq!((claims.imports().len(), claims.exports().len(), claims.evidence().len()), (2, 1, 1));
    assert_eq!(claims.source().unwrap().digest["gitCommit"], "0123");
    assert_eq!(Claims::parse(&claims.to_json().unwrap()).unwrap(), claims);
    assert_eq!(serde_json::to_value(&claims).unwrap(), good());
}

#[test]
fn every_problem_is_listed() {
    let mut value = good();
    value["component"]["name"] = json!("Orders");
    value["component"]["revision"] = json!(-1);
    value["kind"] = json!("module");
    value["imports"][1] = json!(5);
    value["audience"] = json!([]);
    value["extra\n"] = json!(1);
    value.as_object_mut().unwrap().remove("expiresAt");
    let found = problems(&value);
    for at in ["component.name", "component.revision", "kind", "imports[1]", "audience", "extra\\n", "expiresAt"] {
        assert!(found.iter().any(|problem| problem.starts_with(&format!("{at}: "))), "{at} in {found:#?}");
    }
    assert_eq!(found.len(), 7, "{found:#?}");
}

#[test]
fn each_required_field_is_required() {
    for key in ["component", "kind", "imports", "exports", "identity", "issuedAt", "notBefore", "expiresAt", "audience"]
    {
        for absent in [None, Some(Value::Null)] {
            let mut value = good();
            match absent {
                None => drop(value.as_object_mut().unwrap().remove(key)),
                Some(null) => value[key] = null,
            }
            assert_eq!(problems(&value), [format!("{key}: is missing")]);
        }
    }
    for key in ["source", "evidence", "critical"] {
        let mut value = good();
        value.as_object_mut().unwrap().remove(key);
        assert!(Claims::parse(value.to_string().as_bytes()).is_ok(), "{key}");
    }
}

#[test]
fn an_unknown_key_is_refused_at_every_level() {
    for pointer in ["", "/component", "/identity", "/source", "/evidence/0", "/evidence/0/digest"] {
        let mut value = good();
        value.pointer_mut(pointer).unwrap()["unknown"] = json!(1);
        assert_eq!(problems(&value).len(), 1, "{pointer}");
    }
}

#[test]
fn an_unknown_critical_name_is_refused() {
    let mut value = good();
    value["critical"] = json!(["sandboxed"]);
    assert!(problems(&value)[0].contains("`sandboxed` must be understood"));
    value["critical"] = json!([7]);
    assert_eq!(problems(&value).len(), 1);
}

#[test]
fn impossible_times_are_refused() {
    for (key, text) in [
        ("expiresAt", "2026-11-01T00:00:00Z"),
        ("expiresAt", "2025-11-01T00:00:00Z"),
        ("expiresAt", "2026-12-01T00:00:00+00:00"),
        ("notBefore", "never"),
        ("issuedAt", "2027-01-01T00:00:00Z"),
    ] {
        let mut value = good();
        value[key] = json!(text);
        assert!(!problems(&value).is_empty(), "{key} {text}");
    }
}

#[test]
fn something_twice_in_a_list_is_refused() {
    let mut value = good();
    value["audience"] = json!(["a", "b", "a"]);
    assert_eq!(problems(&value), ["audience[2]: is there twice"]);
}

#[test]
fn too_many_imports_and_too_large_files_are_refused() {
    let mut value = good();
    value["imports"] = (0..=INTERFACES).map(|i| format!("f{i}")).collect();
    assert!(problems(&value)[0].contains("at most"));
    let large = vec![b' '; CLAIMS_BYTES + 1];
    assert_eq!(Claims::parse(&large), Err(ClaimsError::Json(JsonError::TooLarge { max: CLAIMS_BYTES })));
}

#[test]
fn a_report_of_problems_has_an_end() {
    let mut value = good();
    for i in 0..2 * crate::limits::PROBLEMS {
        value[format!("k{i}")] = json!(1);
    }
    assert_eq!(problems(&value).len(), crate::limits::PROBLEMS);
}

#[test]
fn long_texts_are_refused() {
    let mut value = good();
    value["source"]["uri"] = json!("x".repeat(TEXT_BYTES));
    assert!(Claims::parse(value.to_string().as_bytes()).is_ok());
    value["source"]["uri"] = json!("x".repeat(TEXT_BYTES + 1));
    assert_eq!(problems(&value).len(), 1);
}

#[test]
fn hidden_imports_are_those_that_no_claim_covers() {
    let claims = Claims::parse(good().to_string().as_bytes()).unwrap();
    let actual: Vec<ImportName> =
        ["log", "wasi:http/outgoing-handler@0.2.9", "wasi:http/outgoing-handler@0.3.0", "wasi:sockets/tcp@0.2.0"]
            .map(|t| t.parse().unwrap())
            .into();
    let hidden: Vec<String> = claims.hidden_imports(&actual).iter().map(ToString::to_string).collect();
    assert_eq!(hidden, ["wasi:http/outgoing-handler@0.3.0", "wasi:sockets/tcp@0.2.0"]);
}

#[test]
fn a_fresh_draft_lists_what_is_still_to_be_filled_in() {
    let interfaces = Interfaces { imports: vec!["log".parse().unwrap()], exports: Vec::new() };
    let mut draft = ClaimsDraft::new(&interfaces, datetime!(2026-11-21 9:30:00.123 UTC), "30d".parse().unwrap());
    let at: Vec<String> = draft.build().unwrap_err().problems().into_iter().map(|problem| problem.at).collect();
    assert_eq!(at, ["component.name", "identity.path", "audience"]);
    draft.name = "acme:orders".into();
    draft.identity_path = "ns/acme/sa/orders".into();
    draft.audience = vec!["demo".into()];
    let claims = draft.build().unwrap();
    assert_eq!(claims.issued_at(), datetime!(2026-11-21 9:30 UTC));
    assert_eq!(claims.lifetime(), time::Duration::days(30));
    assert_eq!(Claims::parse(&draft.to_json().unwrap()).unwrap(), claims);
}
