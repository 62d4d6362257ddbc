//! docs/signing-in-ci.md is true: its shell runs as it stands, the steps of its YAML run one after the other.
//!
//! What a test has not is stood in for: the name of the registry becomes one on loopback, `docker login` writes a Docker config, the
//! tools of key services sign with keys that openssl made, and where the document builds a component a guest is put. What CI systems
//! set is set. Nothing else is changed, and a block that nothing runs is a failure.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use portcullis_tests::document::{Block, blocks};
use portcullis_tests::registry::{Kind, Registry};
use portcullis_tests::site::{Ended, ended};
use portcullis_tests::{guests, root, skip};

#[test]
fn every_snippet_of_signing_in_ci_runs() {
    let test = "every_snippet_of_signing_in_ci_runs";
    let Some(world) = World::new(test) else { return };
    let blocks = blocks(&std::fs::read_to_string(root().join("docs/signing-in-ci.md")).unwrap());
    assert!(blocks.len() >= 12, "the document has lost its snippets: {}", blocks.len());
    let mut carried = String::new();
    for Block { language, text } in &blocks {
        match language.as_str() {
            // Variables of one block are used in the next, as in one terminal.
            "sh" => {
                let text = world.adapted(text);
                world.sh(&format!("{carried}{text}"), &[]);
                carried.extend(
                    text.lines().filter(|line| line.contains("=$(portcullis ")).map(|line| format!("{line}\n")),
                );
            }
            "yaml" if text.contains("CI_COMMIT_TAG") => world.job(&gitlab_script(text), GITLAB),
            "yaml" => world.job(&github_runs(text), GITHUB),
            other => panic!("nothing runs a block of the language `{other}`"),
        }
    }
}

#[test]
fn every_exit_code_of_the_program_is_explained() {
    let text = std::fs::read_to_string(root().join("docs/signing-in-ci.md")).unwrap();
    let mut codes = vec![0, 1, 2, 18, 20, 64];
    codes.extend(portcullis_signing::RefusalCode::ALL.iter().map(|code| code.exit_code()));
    for code in codes {
        assert!(text.contains(&format!("\n| {code} | ")), "exit code {code} is not explained");
    }
}

#[test]
fn a_block_that_is_lost_would_be_found() {
    let text = "a\n```sh\necho 1\n```\nb\n```yaml\nx:\n  run: |\n    one\n    two\n  run: three\n```\n";
    let found = blocks(text);
    assert_eq!(found.iter().map(|block| block.language.as_str()).collect::<Vec<_>>(), ["sh", "yaml"]);
    assert_eq!(github_runs(&found[1].text), ["one\ntwo\n", "three"]);
    assert_eq!(gitlab_script("a:\n  script:\n    - one\n    - two\n  other:\n    - x\n"), ["one", "two"]);
}

/// What stands behind each `run:`.
fn github_runs(text: &str) -> Vec<String> {
    let mut runs: Vec<String> = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        match line.trim_start().strip_prefix("run: ") {
            Some("|") => {
                let mut run = String::new();
                while let Some(inner) = lines.next_if(|inner| inner.len() - inner.trim_start().len() > indent) {
                    run.push_str(inner.get(indent + 2..).unwrap_or_default());
                    run.push('\n');
                }
                runs.push(run);
            }
            Some(run) => runs.push(run.to_owned()),
            None => {}
        }
    }
    runs
}

/// The items below each `script:`.
fn gitlab_script(text: &str) -> Vec<String> {
    let (mut items, mut within) = (Vec::new(), false);
    for line in text.lines() {
        match line.trim_start().strip_prefix("- ") {
            Some(item) if within => items.push(item.to_owned()),
            _ => within = line.trim() == "script:",
        }
    }
    items
}

/// A folder, a registry and the stand-ins.
struct World {
    folder: tempfile::TempDir,
    registry: Registry,
}

impl World {
    fn new(test: &str) -> Option<Self> {
        let registry = match Registry::start(Kind::Login) {
            Ok(registry) => registry,
            Err(why) => {
                skip(test, &why, false);
                return None;
            }
        };
        let module = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"];
        let Some(module) = module.iter().find(|path| Path::new(path).exists()) else {
            skip(test, "SoftHSM is not installed (Debian package softhsm2)", false);
            return None;
        };
        let world = Self { folder: tempfile::tempdir().unwrap(), registry };
        guests::put(world.path(), "orders.wasm", &guests::ours("hello"));
        std::fs::write(world.path().join("orders.spdx.json"), r#"{"spdxVersion":"SPDX-2.3"}"#).unwrap();
        let bin = world.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(portcullis_tests::binary(), bin.join("portcullis")).unwrap();
        for (name, script) in [("docker", DOCKER), ("aws", AWS), ("gcloud", GCLOUD), ("vault", VAULT)] {
            std::fs::write(bin.join(name), format!("#!/bin/sh\nset -eu\n{script}")).unwrap();
            std::fs::set_permissions(bin.join(name), PermissionsExt::from_mode(0o755)).unwrap();
        }
        world.sh(&SET_UP.replace("MODULE", module), &[]);
        world.login();
        Some(world)
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What an operator did by hand before: logged in.
    fn login(&self) {
        let registry = self.registry.address();
        self.sh(&format!("printf secret | docker login {registry} --username tester --password-stdin"), &[]);
    }

    /// The document's registry is this one.
    fn adapted(&self, text: &str) -> String {
        text.replace("registry.example", self.registry.address())
    }

    /// The steps of a job, in the environment of its platform, each in a shell of its own.
    fn job(&self, steps: &[String], variables: &[(&str, &str)]) {
        assert!(!steps.is_empty(), "a job without steps");
        self.sh("rm -f orders.wasm.* claims.json", &[]);
        let key = std::fs::read_to_string(self.path().join("ci.key")).unwrap();
        let root = self.sh("portcullis keys show root.key | cut -d' ' -f1", &[]).out;
        let auth = format!(r#"{{"auths":{{"{}":{{"auth":"dGVzdGVyOnNlY3JldA=="}}}}}}"#, self.registry.address());
        let mut all = vec![
            ("PORTCULLIS_KEY", key.trim()),
            ("PORTCULLIS_ROOT", root.trim()),
            ("DOCKER_AUTH_CONFIG", &auth),
            ("TOKEN", "secret"),
            ("BUNDLE", "platform.sigstore.json"),
        ];
        all.extend(variables);
        if !steps.iter().any(|step| step.contains("claims init")) {
            self.sh("portcullis claims init orders.wasm --name acme:orders --version 1.4.2 --audience prod-eu --out claims.json", &[]);
            self.sh(PLATFORM_BUNDLE, &[]);
        }
        for step in steps {
            // The one thing that a test cannot do: the guest stands in for what these build.
            if step.starts_with("cargo build ") || step.starts_with("mv target/") {
                continue;
            }
            self.sh(&self.adapted(step), &all);
        }
    }

    fn sh(&self, text: &str, variables: &[(&str, &str)]) -> Ended {
        let path = format!("{}/bin:{}", self.path().display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        command.current_dir(self.path()).args(["-euc", text]).env("PATH", path).env("HOME", self.path());
        command.env("SOFTHSM2_CONF", self.path().join("softhsm2.conf"));
        let module = std::fs::read_to_string(self.path().join("module")).unwrap_or_default();
        command.env("PKCS11_MODULE", module.trim());
        command.envs(variables.iter().copied());
        let ended = ended(command.output().expect("a shell starts"));
        assert_eq!(ended.exit, 0, "a snippet failed:\n{text}\n{}\n{}", ended.out, ended.err);
        ended
    }
}

const GITHUB: &[(&str, &str)] = &[
    ("GITHUB_ACTIONS", "true"),
    ("GITHUB_ACTOR", "tester"),
    ("GITHUB_SERVER_URL", "https://github.example"),
    ("GITHUB_REPOSITORY", "acme/orders"),
    ("GITHUB_REF", "refs/tags/v1.4.3"),
    ("GITHUB_REF_NAME", "v1.4.3"),
    ("GITHUB_SHA", "0123456789012345678901234567890123456789"),
    ("GITHUB_RUN_ID", "7"),
    ("GITHUB_RUN_NUMBER", "143"),
    ("GITHUB_RUN_ATTEMPT", "1"),
    ("GITHUB_WORKFLOW_REF", "acme/orders/.github/workflows/release.yml@refs/tags/v1.4.3"),
];

const GITLAB: &[(&str, &str)] = &[
    ("GITLAB_CI", "true"),
    ("CI_PROJECT_URL", "https://gitlab.example/acme/orders"),
    ("CI_COMMIT_SHA", "0123456789012345678901234567890123456789"),
    ("CI_COMMIT_REF_NAME", "v1.4.4"),
    ("CI_COMMIT_TAG", "v1.4.4"),
    ("CI_PIPELINE_IID", "144"),
    ("CI_JOB_URL", "https://gitlab.example/acme/orders/-/jobs/9"),
    ("CI_JOB_NAME", "sign"),
];

/// Keys of the stand-ins, and a SoftHSM token.
const SET_UP: &str = r#"
printf MODULE >module
for name in aws gcp; do openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:prime256v1 -out $name.key 2>/dev/null; done
openssl genpkey -algorithm ed25519 -out vault.key
for name in gcp vault; do openssl pkey -in $name.key -pubout -out $name.pem; done
mkdir tokens
echo "directories.tokendir = $PWD/tokens" >softhsm2.conf
softhsm2-util --init-token --free --label ci --pin 1234 --so-pin 4321 >/dev/null
softhsm2-util --import gcp.key --token ci --label orders --id 01 --pin 1234 >/dev/null 2>&1 ||
    { openssl pkcs8 -topk8 -nocrypt -in gcp.key -out gcp.p8; softhsm2-util --import gcp.p8 --token ci --label orders --id 01 --pin 1234 >/dev/null; }
printf 1234 >pin
chmod 600 pin
"#;
const DOCKER: &str = r#"
[ "$1 $3 $5" = "login --username --password-stdin" ]
mkdir -p "$HOME/.docker"
printf '{"auths":{"%s":{"auth":"%s"}}}' "$2" "$(printf '%s:%s' "$4" "$(cat)" | base64 -w0)" >"$HOME/.docker/config.json"
"#;
/// Signs a digest, as KMS does with --message-type DIGEST.
const AWS: &str = r#"
case "$*" in
"kms get-public-key --key-id alias/orders-ci --output text --query PublicKey") openssl pkey -in aws.key -pubout -outform DER | base64 -w0 ;;
"kms sign --key-id alias/orders-ci --message fileb:///dev/stdin --message-type DIGEST --signing-algorithm ECDSA_SHA_256 --output text --query Signature")
    cat >aws.digest
    [ "$(wc -c <aws.digest)" = 32 ]
    openssl pkeyutl -sign -in aws.digest -inkey aws.key | base64 -w0 ;;
*) exit 1 ;;
esac
"#;
const GCLOUD: &str = r#"
[ "$*" = "kms asymmetric-sign --location europe-west1 --keyring ci --key orders --version 1 --digest-algorithm sha256 --input-file /dev/stdin --signature-file /dev/stdout" ]
openssl dgst -sha256 -sign gcp.key
"#;
/// The transit engine signs what the base64 stands for.
const VAULT: &str = r#"
[ "$1 $2 $3" = "write -field=signature transit/sign/orders-ci" ]
printf '%s' "${4#input=}" | base64 -d >vault.input
printf 'vault:v1:%s' "$(openssl pkeyutl -sign -rawin -in vault.input -inkey vault.key | base64 -w0)"
"#;
/// What a platform's attestation looks like from outside: a bundle about this file.
const PLATFORM_BUNDLE: &str = r#"
statement=$(printf '{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"orders.wasm","digest":{"sha256":"%s"}}],"predicateType":"https://slsa.dev/provenance/v1","predicate":{}}' "$(sha256sum <orders.wasm | cut -d' ' -f1)")
printf '{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"certificate":{"rawBytes":"AA=="},"tlogEntries":[]},"dsseEnvelope":{"payload":"%s","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"AA=="}]}}' "$(printf '%s' "$statement" | base64 -w0)" >platform.sigstore.json
"#;
