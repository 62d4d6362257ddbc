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
fn verify_as_host_knows_what_was_revoked_on_that_host() {
    let mut site = Site::new();
    site.guest("hello", "");
    let host = Host::ready(site);
    host.run(["verify", "hello.wasm", "--as-host"]).ok();
    let id = "spiffe://test.example/ns/test/sa/hello";
    host.run(["identity", "revoke", id]).ok();
    host.run(["stop", "test:hello"]).ok();
    let (predicted, started) = (host.run(["verify", "hello.wasm", "--as-host"]), host.run(["start", "hello.wasm"]));
    assert_eq!((predicted.exit, predicted.code().as_str()), (16, "identity.revoked"), "{predicted:?}");
    assert_eq!((predicted.exit, predicted.code()), (started.exit, started.code()));
    // A list that cannot be read is not an empty one.
    std::fs::write(host.site().file("state/revoked.json"), "{").unwrap();
    assert_eq!(host.run(["verify", "hello.wasm", "--as-host"]).exit, 16);
    host.run(["verify", "hello.wasm"]).ok();
}

#[test]
fn a_verdict_as_host_takes_its_trust_from_the_host_and_never_from_fewer_root_keys() {
    let mut site = Site::new();
    site.guest("hello", "");
    site.write();
    let root = site.public("root.key");
    let as_host = ["verify", "hello.wasm", "--config", "portcullis.toml", "--as-host"];
    site.run(as_host).ok();
    for other in [["--root", &root], ["--audience", "test"]] {
        assert_eq!(site.run([&as_host[..], &other].concat()).exit, 2, "{other:?}");
    }
    // A host that wants two root keys is not talked round by naming one of them.
    site.run(["keys", "generate", "--kind", "root", "--out", "second.key"]).ok();
    let second = site.public("second.key");
    let text = std::fs::read_to_string(site.file("portcullis.toml")).unwrap();
    let two = text.replace(&format!("[\"{root}\"]"), &format!("[\"{root}\", \"{second}\"]\nthreshold = 2"));
    assert_ne!(text, two);
    std::fs::write(site.file("portcullis.toml"), two).unwrap();
    let plain = ["verify", "hello.wasm", "--config", "portcullis.toml"];
    for more in [&[][..], &["--root", &root], &["--root", &root, "--root", &second]] {
        let refused = site.run([&plain[..], more].concat());
        assert_eq!(refused.exit, 17, "{more:?}: {refused:?}");
    }
}

#[test]
fn a_deny_list_that_the_trust_policy_does_not_ask_for_is_named_as_unread() {
    let site = Site::new();
    let bytes = guests::ours("hello");
    site.sign("hello", &bytes);
    guests::put(site.path(), "hello.wasm", &bytes);
    site.write();
    site.run(["trust", "deny", "deny.json", "--key", "root.key"]).ok();
    let verified = site.run(["verify", "hello.wasm", "--config", "portcullis.toml", "--deny-list", "deny.json"]).ok();
    assert!(verified.err.contains("deny.json was not read"), "{verified:?}");
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

#[test]
fn a_signer_delegates_on_the_command_line_and_the_delegation_travels_with_the_evidence() {
    let site = Site::new();
    for key in ["account.key", "ci.key"] {
        site.run(["keys", "generate", "--kind", "signer", "--out", key]).ok();
    }
    let (account, ci) = (site.public("account.key"), site.public("ci.key"));
    let wide = ["--names", "test:*", "--identity-paths", "ns/test/sa/*", "--audiences", "test", "--imports", "wasi:*"];
    let add = ["trust", "add", "trust.json", "--signer", &account, "--name", "account", "--onward", "1"];
    site.run([&add[..], &wide].concat()).ok();
    site.run(["trust", "sign", "trust.json", "--key", "root.key", "--out", "trust.signed.json"]).ok();
    let delegate = |key: &str, out: &str, names: &str| {
        let narrow =
            ["--identity-paths", "ns/test/sa/*", "--audiences", "test", "--imports", "wasi:*", "--names", names];
        let start = ["trust", "delegate", "--signer", &ci, "--name", "ci", "--key", key, "--out", out];
        site.run([&start[..], &narrow].concat()).ok();
    };
    delegate("account.key", "link.json", "test:hello");
    delegate("account.key", "wide.json", "other:*");
    delegate("signer.key", "other.json", "test:hello");
    site.sign("hello", &guests::ours("hello"));
    site.run(["sign", "hello.wasm", "--claims", "hello.claims.json", "--key", "ci.key", "--force"]).ok();
    site.write();
    let verify = |more: &[&str]| {
        let ask =
            ["verify", "hello.wasm", "--config", "portcullis.toml", "--bundle", "hello.wasm.sigstore.json", "--json"];
        site.run([&ask[..], more].concat())
    };
    let verified = verify(&["--bundle", "link.json"]).ok().json();
    assert_eq!(verified["signer"]["name"], "account/ci", "{verified}");
    assert_eq!(verified["signer"]["delegatedBy"], json!(["account"]), "{verified}");
    for (more, code) in [
        (vec![], "signer.unknown"),
        (vec!["--bundle", "wide.json"], "delegation.widens"),
        (vec!["--bundle", "other.json"], "delegation.widens"),
    ] {
        let refused = verify(&more);
        assert_eq!((refused.exit, refused.code().as_str()), (12, code), "{refused:?}");
    }
}
