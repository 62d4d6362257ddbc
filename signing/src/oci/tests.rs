use serde_json::json;

use super::*;
use crate::bytes::ComponentBytes;
use crate::interface::Interfaces;
use time::OffsetDateTime;

fn component() -> ComponentBytes {
    ComponentBytes::from_vec(b"\0asm\x0d\0\x01\0".to_vec())
}

fn good() -> Value {
    let artifact = ComponentArtifact::new(&component(), &Interfaces::default(), OffsetDateTime::UNIX_EPOCH);
    serde_json::from_slice(artifact.manifest()).unwrap()
}

fn parsed(value: &Value) -> Result<ComponentManifest, OciError> {
    ComponentManifest::parse(value.to_string().as_bytes())
}

#[test]
fn what_is_written_is_read_again_and_is_the_same_every_time() {
    let (one, two) = (good().to_string(), good().to_string());
    assert_eq!(one, two);
    let manifest = ComponentManifest::parse(one.as_bytes()).unwrap();
    assert_eq!(manifest.layer().digest(), component().digest());
    assert_eq!(manifest.layer().size(), 8);
    assert_eq!(manifest.digest(), &Digest::of(one.as_bytes()));
    assert_eq!(manifest.descriptor().size(), one.len() as u64);
}

#[test]
fn exactly_one_wasm_layer_is_accepted() {
    let mut value = good();
    let layer = value["layers"][0].clone();
    value["layers"] = json!([layer, layer]);
    assert_eq!(parsed(&value), Err(OciError::Layers(2)));
    value["layers"] = json!([]);
    assert_eq!(parsed(&value), Err(OciError::Layers(0)));
    let mut value = good();
    value["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+gzip");
    assert!(matches!(parsed(&value), Err(OciError::LayerType(_))));
    value = good();
    value["layers"] = Value::Array(vec![layer; EVIDENCE_COUNT + 1]);
    assert_eq!(parsed(&value), Err(OciError::Layers(EVIDENCE_COUNT + 1)));
}

#[test]
fn other_artifacts_are_refused() {
    let mut value = good();
    value["config"]["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
    assert!(matches!(parsed(&value), Err(OciError::NotWasm(_))));
    let mut value = good();
    value["mediaType"] = json!(IMAGE_INDEX);
    assert_eq!(parsed(&value), Err(OciError::Index));
    let mut value = good();
    value["manifests"] = json!([]);
    assert_eq!(parsed(&value), Err(OciError::Index), "both forms at once");
    let mut value = good();
    value["mediaType"] = json!("application/vnd.docker.distribution.manifest.v2+json");
    assert!(matches!(parsed(&value), Err(OciError::Form(_))));
    let mut value = good();
    value["schemaVersion"] = json!(1);
    assert!(matches!(parsed(&value), Err(OciError::Form(_))));
}

#[test]
fn descriptors_that_are_no_sha256_or_point_elsewhere_are_refused() {
    for (name, bad) in [
        ("digest", json!("sha256:../../../etc/passwd")),
        ("digest", json!("sha512:00")),
        ("digest", json!(format!("sha256:{}", "AB".repeat(32)))),
        ("size", json!(-1)),
        ("size", json!("8")),
        ("urls", json!(["http://elsewhere.example/"])),
        ("urls", json!("http://elsewhere.example/")),
        ("annotations", json!({"a": 1})),
        ("mediaType", json!("x".repeat(1000))),
    ] {
        let mut value = good();
        value["layers"][0][name] = bad.clone();
        assert!(matches!(parsed(&value), Err(OciError::Form(_))), "{name} {bad}");
    }
}

#[test]
fn duplicate_keys_deep_nesting_and_too_many_bytes_are_refused() {
    let twice = good().to_string().replacen('{', r#"{"layers":[],"#, 1);
    assert!(matches!(ComponentManifest::parse(twice.as_bytes()), Err(OciError::Json(_))));
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    assert!(matches!(ComponentManifest::parse(deep.as_bytes()), Err(OciError::Json(_))));
    let mut bytes = good().to_string().into_bytes();
    bytes.resize(OCI_MANIFEST_BYTES, b' ');
    assert!(ComponentManifest::parse(&bytes).is_ok());
    bytes.push(b' ');
    assert!(matches!(ComponentManifest::parse(&bytes), Err(OciError::Json(JsonError::TooLarge { .. }))));
}

#[test]
fn a_referrer_must_name_its_subject_itself() {
    let subject = ComponentManifest::parse(good().to_string().as_bytes()).unwrap().descriptor();
    let bytes = evidence_manifest(&subject, "a/b", b"evidence", Some("https://x.example/v1"));
    let referrer = Referrer::parse(&bytes, subject.digest()).unwrap();
    assert_eq!(referrer.layers("a/b").map(|layer| *layer.digest()).collect::<Vec<_>>(), [Digest::of(b"evidence")]);
    assert_eq!(referrer.layers("c/d").count(), 0);
    let other = Digest::of(b"other");
    assert!(matches!(Referrer::parse(&bytes, &other), Err(OciError::Subject { .. })));
    let mut value: Value = serde_json::from_slice(&bytes).unwrap();
    value.as_object_mut().unwrap().remove("subject");
    assert!(matches!(Referrer::parse(value.to_string().as_bytes(), subject.digest()), Err(OciError::Subject { .. })));
}

#[test]
fn a_list_of_referrers_is_bounded_and_keeps_what_it_does_not_know() {
    let entry = |n: usize| {
        let mut entry = json!(Descriptor::of(IMAGE_MANIFEST, n.to_string().as_bytes()));
        entry["future"] = json!(n);
        entry
    };
    let list =
        |count: usize| json!({"schemaVersion": 2, "manifests": (0..count).map(entry).collect::<Vec<_>>()}).to_string();
    let mut index = ReferrerIndex::parse(list(EVIDENCE_COUNT - 1).as_bytes()).unwrap();
    index.add(Descriptor::of(IMAGE_MANIFEST, b"new")).unwrap();
    assert_eq!(index.add(Descriptor::of(IMAGE_MANIFEST, b"one more")), Err(OciError::Referrers(EVIDENCE_COUNT + 1)));
    let again = ReferrerIndex::parse(&index.to_json()).unwrap();
    assert_eq!(again, index);
    assert!(again.has(&Digest::of(b"new")) && String::from_utf8(again.to_json()).unwrap().contains("\"future\":3"));
    assert_eq!(ReferrerIndex::parse(list(EVIDENCE_COUNT + 1).as_bytes()), Err(OciError::Referrers(EVIDENCE_COUNT + 1)));
    let mut full = ReferrerIndex::parse(list(EVIDENCE_COUNT).as_bytes()).unwrap();
    assert!(full.extend(ReferrerIndex::parse(list(1).as_bytes()).unwrap()).is_err());
}

#[test]
fn an_index_without_entries_is_an_empty_list_and_a_manifest_is_none() {
    for text in
        [r#"{"schemaVersion":2}"#, r#"{"schemaVersion":2,"manifests":null}"#, r#"{"schemaVersion":2,"manifests":[]}"#]
    {
        assert_eq!(ReferrerIndex::parse(text.as_bytes()).unwrap().manifests().count(), 0);
    }
    assert!(ReferrerIndex::parse(good().to_string().as_bytes()).is_err());
    assert!(ReferrerIndex::parse(br#"{"schemaVersion":2,"manifests":{}}"#).is_err());
}

#[test]
fn an_entry_of_the_list_is_not_judged_by_the_type_that_the_list_gives_it() {
    let mut entry = json!(Descriptor::of(IMAGE_MANIFEST, b"x"));
    entry["artifactType"] = json!("application/vnd.oci.empty.v1+json");
    let index = ReferrerIndex::parse(json!({"schemaVersion": 2, "manifests": [entry]}).to_string().as_bytes()).unwrap();
    assert_eq!(index.manifests().count(), 1);
}
