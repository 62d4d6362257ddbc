//! `verify --as-host`: what CI is told is what the host says, and a dry run tells all of it.

use portcullis_tests::forge::{self, Evidence};
use portcullis_tests::guests;
use portcullis_tests::host::Host;
use portcullis_tests::site::Site;
use serde_json::json;

#[test]
fn verify_as_host_predicts_what_the_host_says() {
    let mut site = Site::new();
    site.guest("hello", "");
    let bytes = guests::ours("hello");
    site.sign("unknown", &bytes);
    let host = Host::ready(site);
    let ask = |name: &str| host.run(["verify", name, "--as-host"]);
    let granted = ask("hello.wasm").ok().json();
    assert_eq!(granted["admittedAs"], "spiffe://test.example/ns/test/sa/hello", "{granted}");
    // Signed as it should be, and nobody granted it anything: the plain verdict is good, the host's is not.
    host.run(["verify", "unknown.wasm"]).ok();
    let (predicted, started) = (ask("unknown.wasm"), host.run(["start", "unknown.wasm"]));
    assert_eq!(predicted.exit, 20, "{predicted:?}");
    assert_eq!((predicted.exit, predicted.code()), (started.exit, started.code()));
}

#[test]
fn a_dry_run_lists_everything_that_would_be_denied() {
    let site = Site::new();
    let bytes = guests::ours("hello");
    guests::put(site.path(), "bent.wasm", &bytes);
    let mut evidence = Evidence::honest("bent", &bytes);
    evidence.claims["component"]["name"] = json!("other:bent");
    evidence.claims["identity"]["path"] = json!("ns/other/sa/bent");
    evidence.claims["expiresAt"] = json!(forge::at(-5));
    evidence.claims["audience"] = json!(["elsewhere"]);
    let signer = forge::key(&site.file("signer.key"));
    std::fs::write(site.file("bent.wasm.sigstore.json"), evidence.sign(&signer).to_string()).unwrap();
    site.write();
    let asked = |more: &[&str]| site.run([&["verify", "bent.wasm", "--config", "portcullis.toml"], more].concat());
    let plain = asked(&[]);
    let dry = asked(&["--dry-run"]);
    assert_eq!((plain.exit, dry.exit), (14, 14), "{plain:?} {dry:?}");
    let listed = format!("{}{}", dry.out, dry.err);
    for code in ["time.expired", "claims.audience", "signer.name"] {
        assert!(listed.contains(&format!("would be denied: {code}")), "{code}: {listed}");
    }
}
