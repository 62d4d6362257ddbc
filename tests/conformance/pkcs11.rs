//! Keys in a token behind PKCS#11: SoftHSM 2, with keys that openssl made and that were imported into it.

use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis_tests::site::{CLUSTER, Ended, Site};
use portcullis_tests::{guests, skip};
use serde_json::Value;

#[test]
fn a_key_in_a_token_signs_and_the_verifier_takes_it() {
    let Some(token) = Token::new("a_key_in_a_token_signs_and_the_verifier_takes_it") else { return };
    for (label, id) in [("ed25519", "01"), ("p256", "02")] {
        let key = token.uri(&format!("token=ci%20token;object={label}"), "pin");
        let shown = token.run(&["keys", "show", &key, "--json"]).ok().json();
        let public = shown.get("publicKey").and_then(Value::as_str).unwrap().to_owned();
        let from_pem = token.site.run(["keys", "show", &format!("{label}.pub"), "--json"]).ok().json();
        assert_eq!(from_pem["publicKey"], shown["publicKey"]);
        token.sign(&key, &[]).ok();
        token
            .sign(&token.uri(&format!("token=ci%20token;id=%{id};type=private"), "pin"), &["--public-key", &public])
            .ok();
        token.trust(label, &public);
        let root = token.site.public("root.key");
        let verify =
            ["verify", "app.wasm", "--trust", "trust.signed.json", "--root", &root, "--audience", CLUSTER, "--json"];
        assert_eq!(token.site.run(verify).ok().json()["verdict"], "verified", "{label}");
    }
}

#[test]
fn what_is_wrong_with_a_token_is_said_and_nothing_is_written() {
    let Some(token) = Token::new("what_is_wrong_with_a_token_is_said_and_nothing_is_written") else { return };
    let site = &token.site;
    std::fs::write(site.file("wrong"), "0000").unwrap();
    std::fs::write(site.file("open"), "1234").unwrap();
    mode(&site.file("wrong"), 0o600);
    mode(&site.file("open"), 0o644);
    let key = "token=ci%20token;object=p256";
    let other = site.run(["keys", "show", "ed25519.pub", "--json"]).ok().json();
    let other = other.get("publicKey").and_then(Value::as_str).unwrap().to_owned();
    for (uri, more, exit) in [
        (token.uri(key, "wrong"), &[][..], 18),
        (token.uri(key, "open"), &[], 2),
        (token.uri(key, "missing"), &[], 2),
        (token.uri("token=ci%20token;object=nothing", "pin"), &[], 18),
        (token.uri("token=nothing;object=p256", "pin"), &[], 18),
        (format!("pkcs11:{key}?module-path=/nonexistent.so&pin-source=file:pin"), &[], 18),
        (format!("pkcs11:{key}?module-path=/etc/hostname&pin-source=file:pin"), &[], 18),
        (format!("pkcs11:{key}?pin-value=98765&module-path=m"), &[], 2),
        // The token has one key, the caller means another.
        (token.uri(key, "pin"), &["--public-key", &other], 18),
    ] {
        let refused = token.sign(&uri, more);
        assert!(refused.exit == exit || (refused.exit == 11 && !more.is_empty()), "{uri}: {refused:?}");
        assert!(refused.err.contains("hint: "), "{refused:?}");
        assert!(!refused.err.contains("98765") && !refused.out.contains("98765"), "{refused:?}");
        assert!(!site.file("app.wasm.sigstore.json").exists(), "{uri}");
    }
}

/// A site with a component, and a SoftHSM token with two keys.
struct Token {
    site: Site,
    module: PathBuf,
}

impl Token {
    fn new(test: &str) -> Option<Self> {
        let places = ["/usr/lib/softhsm", "/usr/lib/x86_64-linux-gnu/softhsm", "/usr/lib/aarch64-linux-gnu/softhsm"];
        let module = places.iter().map(|folder| Path::new(folder).join("libsofthsm2.so")).find(|path| path.exists());
        let Some(module) = module else {
            skip(test, "SoftHSM is not installed (Debian package softhsm2)", false);
            return None;
        };
        let site = Site::new();
        guests::put(site.path(), "app.wasm", &guests::ours("hello"));
        site.run(["claims", "init", "app.wasm", "--name", "test:app", "--audience", CLUSTER, "--out", "claims.json"])
            .ok();
        let tokens = site.file("tokens");
        std::fs::create_dir(&tokens).unwrap();
        std::fs::write(site.file("softhsm2.conf"), format!("directories.tokendir = {}\n", tokens.display())).unwrap();
        std::fs::write(site.file("pin"), "1234\n").unwrap();
        mode(&site.file("pin"), 0o600);
        let token = Self { site, module };
        token.tool(
            "softhsm2-util",
            &["--init-token", "--free", "--label", "ci token", "--pin", "1234", "--so-pin", "4321"],
        );
        for (label, id, algorithm) in
            [("ed25519", "01", vec!["ed25519"]), ("p256", "02", vec!["EC", "-pkeyopt", "ec_paramgen_curve:prime256v1"])]
        {
            let (pem, public) = (format!("{label}.pem"), format!("{label}.pub"));
            let generate: Vec<&str> = ["genpkey", "-out", &pem, "-algorithm"].into_iter().chain(algorithm).collect();
            token.tool("openssl", &generate);
            token.tool("openssl", &["pkey", "-in", &pem, "-pubout", "-out", &public]);
            let import = ["--import", &pem, "--token", "ci token", "--label", label, "--id", id, "--pin", "1234"];
            token.tool("softhsm2-util", &import);
        }
        Some(token)
    }

    fn uri(&self, path: &str, pin: &str) -> String {
        format!("pkcs11:{path}?module-path={}&pin-source=file:{pin}", self.module.display())
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        self.site.run_with(&[("SOFTHSM2_CONF", "softhsm2.conf")], arguments)
    }

    fn sign(&self, key: &str, more: &[&str]) -> Ended {
        let arguments = ["sign", "app.wasm", "--claims", "claims.json", "--key", key, "--force", "--json"];
        self.run(&arguments.iter().chain(more).copied().collect::<Vec<_>>())
    }

    fn trust(&self, name: &str, signer: &str) {
        let add = ["trust", "add", "trust.json", "--signer", signer, "--name", name, "--names", "test:*"];
        let add =
            add.iter().chain(&["--identity-paths", "ns/test/sa/*", "--audiences", CLUSTER, "--imports", "wasi:*"]);
        self.site.run(add).ok();
        self.site.run(["trust", "sign", "trust.json", "--key", "root.key", "--out", "next.json"]).ok();
        std::fs::rename(self.site.file("next.json"), self.site.file("trust.signed.json")).unwrap();
    }

    fn tool(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(program);
        command.current_dir(self.site.path()).args(arguments).env("SOFTHSM2_CONF", "softhsm2.conf");
        let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}
