//! Signers of a CI: keys behind a command, several signers over one component, provenance, SBOMs, bundles of others, and the same
//! bytes for the same input.

use std::process::Command;

use portcullis_tests::site::{CLUSTER, Ended, Site};
use portcullis_tests::{guests, skip};
use serde_json::{Value, json};

#[test]
fn a_command_signs_with_either_algorithm_and_in_the_forms_that_tools_write() {
    let test = "a_command_signs_with_either_algorithm_and_in_the_forms_that_tools_write";
    let Some(site) = with_keys(test) else { return };
    for (pem, command) in [
        ("ed25519.pub", "exec:sh -c 'cat >m; openssl pkeyutl -sign -rawin -in m -inkey ed25519.key'"),
        ("ed25519.pub", "exec:sh -c 'cat >m; openssl pkeyutl -sign -rawin -in m -inkey ed25519.key | base64'"),
        ("p256.pub", "exec:openssl dgst -sha256 -sign p256.key"),
        ("p256.pub", "exec:sh -c 'printf vault:v1:; openssl dgst -sha256 -sign p256.key | base64 -w0'"),
    ] {
        let signed = sign(&site, &["--key", command, "--public-key", pem]).ok().json();
        let shown = site.run(["keys", "show", pem, "--json"]).ok().json();
        assert_eq!(signed["signer"], shown["publicKey"], "{command}");
    }
}

#[test]
fn a_signature_that_a_command_made_is_taken_by_the_verifier() {
    let test = "a_signature_that_a_command_made_is_taken_by_the_verifier";
    let Some(site) = with_keys(test) else { return };
    let public = text(&site.run(["keys", "show", "ed25519.pub", "--json"]).ok().json(), "publicKey");
    trust(&site, &public);
    let command = "exec:sh -c 'cat >m; openssl pkeyutl -sign -rawin -in m -inkey ed25519.key'";
    sign(&site, &["--key", command, "--public-key", &public]).ok();
    assert_eq!(verify(&site).ok().json()["verdict"], json!("verified"));
}

#[test]
fn what_a_command_gets_are_the_bytes_that_are_signed_and_nothing_else() {
    let site = with_claims();
    // `cat` gives back what it got: no signature, so nothing is written.
    let public = site.public("signer.key");
    let refused = sign(&site, &["--key", "exec:tee got", "--public-key", &public]);
    assert_eq!((refused.exit, refused.code().as_str()), (11, "signature.bad"), "{refused:?}");
    assert!(!site.file("app.wasm.sigstore.json").exists());
    let got = std::fs::read(site.file("got")).unwrap();
    assert!(got.starts_with(b"DSSEv1 28 application/vnd.in-toto+json "), "{}", String::from_utf8_lossy(&got));
    let refused = sign(&site, &["--key", "exec:sh -c 'exit 3'", "--public-key", &public]);
    assert_eq!((refused.exit, refused.code().as_str()), (18, "signer.command"), "{refused:?}");
    let refused = sign(&site, &["--key", "exec:true"]);
    assert_eq!(refused.exit, 2, "which key it is must be said: {refused:?}");
}

#[test]
fn another_key_than_the_one_that_was_named_signs_nothing() {
    let site = with_claims();
    site.run(["keys", "generate", "--out", "other.key"]).ok();
    let refused = sign(&site, &["--key", "other.key", "--public-key", &site.public("signer.key")]);
    assert_eq!(refused.exit, 2, "{refused:?}");
    assert!(!site.file("app.wasm.sigstore.json").exists());
}

#[test]
fn a_key_in_a_variable_signs() {
    let site = with_claims();
    let seed = std::fs::read_to_string(site.file("signer.key")).unwrap();
    let arguments = ["sign", "app.wasm", "--claims", "claims.json", "--key", "env://CI_KEY"];
    assert_eq!(site.run(arguments).exit, 2);
    let signed = site.run_with(&[("CI_KEY", seed.trim())], arguments).ok();
    assert!(!signed.out.contains(seed.trim()) && !signed.err.contains(seed.trim()));
    assert_eq!(verify(&site).ok().json()["verdict"], json!("verified"));
}

#[test]
fn the_same_input_at_the_same_time_gives_the_same_bytes() {
    let site = Site::new();
    guests::put(site.path(), "app.wasm", &guests::ours("hello"));
    let make = |variables: &[(&str, &str)], more: &[&str]| {
        let init = ["claims", "init", "app.wasm", "--name", "test:app", "--version", "1.0.0", "--audience", CLUSTER];
        let init = init.iter().chain(&["--out", "claims.json", "--force"]).chain(more);
        site.run_with(variables, init).ok();
        let sign = ["sign", "app.wasm", "--claims", "claims.json", "--key", "signer.key", "--force"];
        site.run_with(variables, sign.iter().chain(more)).ok();
        (std::fs::read(site.file("claims.json")).unwrap(), std::fs::read(site.file("app.wasm.sigstore.json")).unwrap())
    };
    let epoch = make(&[("SOURCE_DATE_EPOCH", "1767225600")], &[]);
    assert_eq!(make(&[("SOURCE_DATE_EPOCH", "1767225600")], &[]), epoch);
    assert_eq!(make(&[], &["--at", "2026-01-01T00:00:00Z"]), epoch);
    assert_ne!(make(&[("SOURCE_DATE_EPOCH", "1767225601")], &[]), epoch);
    let bad = site.run_with(&[("SOURCE_DATE_EPOCH", "yesterday")], ["claims", "init", "app.wasm"]);
    assert_eq!(bad.exit, 2, "{bad:?}");
}

#[test]
fn several_signers_sign_the_very_same_claims() {
    let site = with_claims();
    for name in ["second", "third"] {
        site.run(["keys", "generate", "--out", &format!("{name}.key")]).ok();
    }
    sign(&site, &["--key", "signer.key"]).ok();
    let again = sign(&site, &["--key", "second.key"]);
    assert!(again.exit == 2 && again.err.contains("--add"), "{again:?}");
    for name in ["second.key", "third.key"] {
        site.run(["sign", "app.wasm", "--add", "--key", name]).ok();
    }
    let payload = |file: &str| {
        let bundle: Value = serde_json::from_slice(&std::fs::read(site.file(file)).unwrap()).unwrap();
        bundle.pointer("/dsseEnvelope/payload").and_then(Value::as_str).unwrap().to_owned()
    };
    let first = payload("app.wasm.sigstore.json");
    assert_eq!(payload("app.wasm.2.sigstore.json"), first);
    assert_eq!(payload("app.wasm.3.sigstore.json"), first);
    assert_eq!(verify(&site).ok().json()["verdict"], json!("verified"));
    // Nothing is added to another component.
    guests::put(site.path(), "app.wasm", &guests::ours("echo"));
    let refused = site.run(["sign", "app.wasm", "--add", "--key", "second.key", "--json"]);
    assert_eq!((refused.exit, refused.code().as_str()), (13, "claims.digest"), "{refused:?}");
}

#[test]
fn provenance_and_sboms_are_bound_to_the_claims_by_digest() {
    let site = with_claims();
    std::fs::write(site.file("spdx.json"), r#"{"spdxVersion":"SPDX-2.3"}"#).unwrap();
    std::fs::write(site.file("cdx.json"), r#"{"bomFormat":"CycloneDX","specVersion":"1.6"}"#).unwrap();
    let arguments = [
        "sign",
        "app.wasm",
        "--claims",
        "claims.json",
        "--key",
        "signer.key",
        "--provenance",
        "--sbom",
        "spdx.json",
        "--sbom",
        "cdx.json",
        "--json",
    ];
    let refused = site.run(arguments);
    assert!(refused.exit == 2 && refused.err.contains("PORTCULLIS_SOURCE_URI"), "{refused:?}");
    let variables = [
        ("PORTCULLIS_SOURCE_URI", "git+https://git.example/acme/app"),
        ("PORTCULLIS_SOURCE_COMMIT", "0123456789012345678901234567890123456789"),
        ("PORTCULLIS_BUILDER_ID", "https://ci.example/runner"),
    ];
    let signed = site.run_with(&variables, arguments).ok().json();
    let bound = signed["evidence"].as_array().cloned().unwrap_or_default();
    let bound: Vec<(String, String)> = bound
        .iter()
        .map(|entry| {
            (text(entry, "predicateType"), entry.pointer("/digest/sha256").and_then(Value::as_str).unwrap().to_owned())
        })
        .collect();
    let of = |name: &str| portcullis_signing::Digest::of(&std::fs::read(site.file(name)).unwrap()).hex();
    assert_eq!(
        bound,
        [
            ("https://slsa.dev/provenance/v1".to_owned(), of("app.wasm.provenance.sigstore.json")),
            ("https://spdx.dev/Document".to_owned(), of("spdx.json")),
            ("https://cyclonedx.org/bom".to_owned(), of("cdx.json")),
        ]
    );
    assert_eq!(of("app.wasm.sbom.json"), of("spdx.json"));
    assert_eq!(verify(&site).ok().json()["verdict"], json!("verified"));
    std::fs::write(site.file("other.json"), "{}").unwrap();
    let refused = sign(&site, &["--key", "signer.key", "--sbom", "other.json", "--force"]);
    assert_eq!(refused.exit, 2, "{refused:?}");
}

#[test]
fn a_bundle_of_others_is_taken_for_this_file_and_this_format_only() {
    let site = with_claims();
    let digest = portcullis_signing::Digest::of(&std::fs::read(site.file("app.wasm")).unwrap()).hex();
    let bundle = |media_type: &str, digest: &str| {
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "app", "digest": {"sha256": digest}}],
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {},
        });
        let envelope = json!({
            "payloadType": "application/vnd.in-toto+json",
            "payload": base64(&statement.to_string()),
            "signatures": [{"sig": base64("x")}],
        });
        json!({"mediaType": media_type, "verificationMaterial": {"certificate": {"rawBytes": ""}}, "dsseEnvelope": envelope})
            .to_string()
    };
    let import = |content: &str, more: &[&str]| {
        std::fs::write(site.file("other.json"), content).unwrap();
        let arguments = ["sign", "app.wasm", "--import-bundle", "other.json", "--json"];
        site.run(arguments.iter().chain(more))
    };
    const V03: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
    let refused = |content: &str| {
        let ended = import(content, &[]);
        (ended.exit, ended.code())
    };
    let v01 = bundle("application/vnd.dev.sigstore.bundle+json;version=0.1", &digest);
    assert_eq!(refused(&v01), (10, "evidence.media-type".to_owned()));
    assert_eq!(refused(&bundle(V03, &"0".repeat(64))), (13, "claims.digest".to_owned()));
    assert_eq!(refused("{}"), (10, "evidence.malformed".to_owned()));
    assert!(!site.file("app.wasm.sigstore.json").exists());

    import(&bundle(V03, &digest), &[]).ok();
    assert!(site.file("app.wasm.sigstore.json").exists());
    assert_eq!(import(&bundle(V03, &digest), &[]).ok().json()["written"], json!([]), "once is enough");
    std::fs::remove_file(site.file("app.wasm.sigstore.json")).unwrap();
    // With claims of our own, these say which bundle belongs to them.
    let signed = import(&bundle(V03, &digest), &["--claims", "claims.json", "--key", "signer.key"]).ok().json();
    let of = portcullis_signing::Digest::of(bundle(V03, &digest).as_bytes()).hex();
    assert_eq!(signed.pointer("/evidence/0/digest/sha256"), Some(&json!(of)));
    assert!(site.file("app.wasm.2.sigstore.json").exists());
}

fn with_claims() -> Site {
    let site = Site::new();
    guests::put(site.path(), "app.wasm", &guests::ours("hello"));
    let init = ["claims", "init", "app.wasm", "--name", "test:app", "--audience", CLUSTER, "--valid-for", "1d"];
    site.run(init.iter().chain(&["--out", "claims.json"])).ok();
    site
}

/// The same, with keys that openssl made.
fn with_keys(test: &str) -> Option<Site> {
    let site = with_claims();
    for (name, algorithm) in
        [("ed25519", vec!["ed25519"]), ("p256", vec!["EC", "-pkeyopt", "ec_paramgen_curve:prime256v1"])]
    {
        let made = Command::new("openssl")
            .current_dir(site.path())
            .args(["genpkey", "-algorithm"])
            .args(&algorithm)
            .args(["-out", &format!("{name}.key")])
            .output();
        if !made.is_ok_and(|made| made.status.success()) {
            skip(test, "openssl cannot be run here", false);
            return None;
        }
        let key = format!("{name}.key");
        let public = format!("{name}.pub");
        let made = Command::new("openssl")
            .current_dir(site.path())
            .args(["pkey", "-in", &key, "-pubout", "-out", &public])
            .output();
        assert!(made.is_ok_and(|made| made.status.success()));
    }
    Some(site)
}

fn sign(site: &Site, more: &[&str]) -> Ended {
    let arguments = ["sign", "app.wasm", "--claims", "claims.json", "--json"];
    let force = if more.contains(&"exec:tee got") || more == ["--key", "second.key"] { &[][..] } else { &["--force"] };
    site.run(arguments.iter().chain(more).chain(if more.contains(&"--force") { &[] } else { force }))
}

fn verify(site: &Site) -> Ended {
    let root = site.public("root.key");
    site.run(["verify", "app.wasm", "--trust", "trust.signed.json", "--root", &root, "--audience", CLUSTER, "--json"])
}

fn trust(site: &Site, signer: &str) {
    let add = ["trust", "add", "trust.json", "--signer", signer, "--name", "command", "--names", "test:*"];
    let add = add.iter().chain(&["--identity-paths", "ns/test/sa/*", "--audiences", CLUSTER, "--imports", "wasi:*"]);
    site.run(add).ok();
    site.run(["trust", "sign", "trust.json", "--key", "root.key", "--out", "trust2.json"]).ok();
    std::fs::rename(site.file("trust2.json"), site.file("trust.signed.json")).unwrap();
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
