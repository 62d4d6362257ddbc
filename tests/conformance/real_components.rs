//! Components that others made, signed with a test key and run for real. Cargo's own client brings them; they are not committed.

use std::path::PathBuf;

use portcullis_tests::host::Host;
use portcullis_tests::site::Site;
use portcullis_tests::{guests, http, skip};
use serde_json::Value;

#[test]
fn a_rust_hello_of_oci_wasm_runs_and_answers() {
    let Some(path) =
        found("oci-wasm", "0.6.0", "tests/data/component.wasm", "a_rust_hello_of_oci_wasm_runs_and_answers")
    else {
        return;
    };
    answers(path, "");
}

#[test]
fn a_javascript_component_of_wash_runtime_runs_and_answers() {
    let test = "a_javascript_component_of_wash_runtime_runs_and_answers";
    let Some(path) = found("wash-runtime", "0.1.0", "tests/fixtures/component.wasm", test) else { return };
    // It can fetch; it is let to import that, and no destination is granted.
    answers(path, "link = [\"wasi:http/outgoing-handler\"]\n");
}

#[test]
fn a_component_that_needs_what_nobody_granted_is_refused_with_each_import_named() {
    let test = "a_component_that_needs_what_nobody_granted_is_refused_with_each_import_named";
    let Some(path) = found("wash-runtime", "0.1.0", "tests/fixtures/http_counter.wasm", test) else { return };
    let mut site = Site::new();
    site.sign("counter", &std::fs::read(path).unwrap());
    site.grants("\n[[grant]]\nid = \"counter\"\nreason = \"a test\"\nowner = \"tests\"\ncomponent = \"test:counter\"\nload = true\ncallers = [\"anonymous\"]\n");
    let inspected = site.run(["inspect", "counter.wasm", "--json"]).ok().json();
    let imports = inspected.pointer("/interfaces/imports").and_then(Value::as_array).cloned().unwrap_or_default();
    let imports: Vec<&str> = imports.iter().filter_map(Value::as_str).collect();

    let host = Host::ready(site);
    let refused = host.run(["start", "counter.wasm"]);
    assert_eq!(refused.exit, 20, "{refused:?}");
    let message = refused.json().pointer("/error/message").and_then(Value::as_str).unwrap_or_default().to_owned();
    for import in NOT_GRANTED {
        assert!(imports.contains(import), "{import} is not an import of it, this test is wrong: {imports:?}");
        assert!(message.contains(import), "the refusal does not name {import}: {message}");
    }
    // What it may use is not complained about.
    for import in imports.iter().filter(|import| !NOT_GRANTED.contains(import)) {
        assert!(!message.contains(import), "{import} is linked for everybody, and yet: {message}");
    }
    assert!(refused.err.contains("hint: "), "{}", refused.err);
    let list = host.run(["list"]).ok().json();
    let states: Vec<&Value> = list.as_array().unwrap().iter().map(|component| &component["state"]).collect();
    assert_eq!(states, ["refused"], "{list:#}");
}

fn answers(path: PathBuf, grant: &str) {
    let mut site = Site::new();
    site.component("real", &std::fs::read(path).unwrap(), grant);
    // Larger than our own guests: a JavaScript engine wants memory and time, above all in a debug build.
    site.config("[[route]]\npath = \"/\"\ncomponent = \"test:real\"\n\n[limits]\nrequest_ms = 60000\ncpu_ms = 30000\nmemory_mib = 512\n");
    let host = Host::ready(site);
    let answer = http::get(host.http(), "/", &[]);
    assert_eq!(answer.status, 200, "{} {}\n{}", answer.head, answer.text(), host.log());
    assert!(answer.complete && !answer.body.is_empty(), "{answer:?}");
}

fn found(name: &str, version: &str, file: &str, test: &str) -> Option<PathBuf> {
    let path = guests::of_crate(name, version, file);
    if path.is_none() {
        skip(test, &format!("cargo cannot get the crate {name} {version} here"), false);
    }
    path
}

/// What http_counter.wasm imports beyond what every component may use.
const NOT_GRANTED: &[&str] = &[
    "wasi:blobstore/blobstore@0.2.0-draft",
    "wasi:blobstore/container@0.2.0-draft",
    "wasi:blobstore/types@0.2.0-draft",
    "wasi:config/runtime@0.2.0-draft",
    "wasi:http/outgoing-handler@0.2.2",
    "wasi:keyvalue/atomics@0.2.0-draft",
    "wasi:keyvalue/store@0.2.0-draft",
    "wasi:logging/logging@0.1.0-draft",
];
