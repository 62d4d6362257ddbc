//! The seams of the workspace: who may depend on whom, and where unsafe code may be. Read from `cargo metadata`.

use std::process::Command;

use portcullis_tests::root;
use serde_json::Value;

#[test]
fn signing_identity_and_policies_do_not_depend_on_one_another() {
    let parts = ["portcullis-signing", "portcullis-identity", "portcullis-policies"];
    for part in parts {
        let named = dependencies(part);
        let others = ["portcullis", "portcullis-native"].iter().chain(&parts).filter(|other| **other != part);
        for other in others {
            assert!(!named.iter().any(|name| name == other), "{part} depends on {other}");
        }
    }
    // What two of them share is a leaf: it depends on none of ours.
    let leaf = dependencies("portcullis-nkey");
    assert!(!leaf.iter().any(|name| name.starts_with("portcullis")), "portcullis-nkey depends on {leaf:?}");
    let host = dependencies("portcullis");
    assert!(parts.iter().all(|part| host.iter().any(|name| name == part)), "the host uses all three: {host:?}");
}

#[test]
fn only_identity_names_tls_and_certificate_issuing() {
    // Certificates of signers are verified without TLS: paths by webpki, with the types that it takes. The tests are foreign
    // peers, which may show what no workload of ours would.
    let paths = ["rustls-webpki", "rustls-pki-types"];
    let tls = ["portcullis-identity", "portcullis-tls", "portcullis-tests"];
    only_in(&["portcullis-identity", "portcullis-tls", "portcullis-tests", "portcullis-signing"], |name| {
        paths.contains(&name)
    });
    only_in(&tls, |name| {
        ["rustls", "rcgen", "jwt-simple"].contains(&name)
            || name.ends_with("-rustls")
            || (name.starts_with("rustls-") && !paths.contains(&name))
    });
}

/// The one feature that weakens anything is not in what is built here: not by a default, not through another crate, not in the
/// binary; and what would use it is refused as any unknown key is.
#[test]
fn a_default_build_has_no_way_to_leave_the_gate_open() {
    let declared = manifest("host/Cargo.toml");
    assert!(declared.pointer("/features/bench-ungated").is_some(), "the feature of this name is what is looked for");
    let metadata = metadata(&["metadata", "--format-version", "1", "--offline", "--locked"]);
    let nodes = metadata.pointer("/resolve/nodes").and_then(Value::as_array).expect("resolved packages");
    for node in nodes {
        let features = node.get("features").and_then(Value::as_array).expect("features");
        assert!(!features.iter().any(|feature| feature == "bench-ungated"), "{}", text(node, "id"));
    }
    let binary = std::fs::read(portcullis_tests::binary()).expect("the binary under test");
    for trace in ["danger_bench_gate", "THE GATE IS OPEN"] {
        assert!(!binary.windows(trace.len()).any(|bytes| bytes == trace.as_bytes()), "{trace} is in the binary");
    }
    let mut site = portcullis_tests::site::Site::new();
    site.top("danger_bench_gate = \"off\"\n");
    site.write();
    let checked = site.run(["config", "check", "--config", "portcullis.toml"]);
    assert_eq!(checked.exit, 64, "{}{}", checked.out, checked.err);
    assert!(checked.err.contains("danger_bench_gate: unknown key"), "{}{}", checked.out, checked.err);
}

#[test]
fn only_the_host_names_wasmtime() {
    only_in(&["portcullis", "portcullis-native"], |name| name.starts_with("wasmtime"));
}

#[test]
fn deciding_parts_know_no_sockets_and_no_executor() {
    let io = ["tokio", "hyper", "hyper-util", "tonic", "async-nats", "reqwest", "mio", "rustix", "libc"];
    for part in ["portcullis-signing", "portcullis-policies", "portcullis-nkey", "portcullis-cluster"] {
        let named = dependencies(part);
        assert!(!named.iter().any(|name| io.contains(&name.as_str())), "{part} depends on {named:?}");
    }
}

#[test]
fn every_part_has_the_lints_of_the_workspace_and_only_native_may_be_unsafe() {
    let workspace = manifest("Cargo.toml");
    assert_eq!(workspace.pointer("/workspace/lints/rust/unsafe_code"), Some(&Value::from("forbid")));
    for package in packages() {
        let name = text(&package, "name");
        let path = text(&package, "manifest_path");
        let folder = path.strip_prefix(&format!("{}/", root().display())).unwrap_or(&path).to_owned();
        let manifest = manifest(&folder);
        let inherited = manifest.pointer("/lints/workspace") == Some(&Value::Bool(true));
        assert_ne!(manifest.pointer("/lints/rust/unsafe_code"), Some(&Value::from("allow")), "{folder}");
        match name.as_str() {
            // Tests stop where something is wrong: without the lints against panics, and with this one.
            "portcullis-tests" => assert_eq!(manifest.pointer("/lints/rust/unsafe_code"), Some(&Value::from("forbid"))),
            // Forbidden could not be allowed again where it is needed, so there it is denied: each place says why.
            "portcullis-native" => {
                assert_eq!(manifest.pointer("/lints/rust/unsafe_code"), Some(&Value::from("deny")));
                assert_eq!(manifest.pointer("/lints/clippy/undocumented_unsafe_blocks"), Some(&Value::from("deny")));
            }
            _ => assert!(inherited, "{folder} is without `[lints] workspace = true`"),
        }
    }
}

fn only_in(parts: &[&str], what: impl Fn(&str) -> bool) {
    let mut found = false;
    for package in packages() {
        let name = text(&package, "name");
        let named: Vec<String> = dependencies(&name).into_iter().filter(|name| what(name)).collect();
        found |= !named.is_empty();
        assert!(named.is_empty() || parts.contains(&name.as_str()), "{name} depends on {named:?}");
    }
    assert!(found, "nobody names them: this test looks for the wrong thing");
}

fn dependencies(part: &str) -> Vec<String> {
    let package = packages().into_iter().find(|package| text(package, "name") == part);
    let package = package.unwrap_or_else(|| panic!("there is no package {part}"));
    let list = package.get("dependencies").and_then(Value::as_array).cloned().unwrap_or_default();
    list.iter().map(|dependency| text(dependency, "name")).collect()
}

fn packages() -> Vec<Value> {
    let metadata = metadata(&["metadata", "--format-version", "1", "--no-deps", "--offline"]);
    metadata.get("packages").and_then(Value::as_array).cloned().unwrap()
}

fn metadata(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().expect("cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn manifest(path: &str) -> Value {
    let text = std::fs::read_to_string(root().join(path)).unwrap();
    let table: toml::Table = text.parse().unwrap();
    serde_json::to_value(table).unwrap()
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap().to_owned()
}
