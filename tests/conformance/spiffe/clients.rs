//! A client that others wrote, through rotations: go-spiffe's X509Source, JWTSource and watch. (The Rust and Python clients
//! are in `tests/conformance/workload_api.rs`.)

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::evidence::AUDIENCE;
use crate::subjects;

/// How many rotations the client is taken through.
const ROTATIONS: usize = 5;

#[test]
fn go_spiffe_fetches_verifies_and_follows_rotations() {
    let Some(client) = program() else { return };
    let host = subjects::host();
    let socket = subjects::socket();
    let (socket, rotations) = (socket.display().to_string(), ROTATIONS.to_string());
    let mut child = Command::new(client)
        .args([&socket, AUDIENCE, &rotations])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the client starts");
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut seen: Vec<Value> = Vec::new();
    for line in lines {
        let line: Value = serde_json::from_str(&line).expect("the client speaks JSON");
        // Each SVID that the watch sees is answered with a rotation, until it has seen enough.
        if line["what"] == "watched" {
            host.run(["identity", "rotate", "--svids"]).ok();
        }
        seen.push(line);
    }
    let status = child.wait().unwrap();
    assert!(status.success(), "{seen:#?}\n{}", host.log());
    let id = format!("spiffe://{}/ns/test/sa/suite-go", portcullis_tests::site::TRUST_DOMAIN);
    for what in ["x509", "jwt"] {
        assert!(seen.iter().any(|line| line["what"] == what && line["id"] == id.as_str()), "{what}: {seen:#?}");
    }
    let watched = seen.iter().filter(|line| line["what"] == "watched").count();
    assert!(watched > ROTATIONS, "{watched} SVIDs were seen: {seen:#?}");
}

/// The client, built once into the test cache; `None` after a loud skip.
pub fn program() -> Option<PathBuf> {
    static BUILT: std::sync::LazyLock<Option<PathBuf>> = std::sync::LazyLock::new(|| {
        let target = portcullis_tests::cache().join("go-spiffe-client");
        let source = portcullis_tests::root().join("tests/conformance/spiffe/go");
        let built = Command::new("go").current_dir(source).args(["build", "-o"]).arg(&target).arg(".").output();
        match built {
            Ok(output) if output.status.success() => Some(target),
            Ok(output) => panic!("the go-spiffe client does not build: {}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => {
                portcullis_tests::skip("go-spiffe", &format!("no Go: {error}"), true);
                None
            }
        }
    });
    BUILT.clone()
}
