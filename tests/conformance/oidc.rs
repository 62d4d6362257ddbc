//! JWT-SVIDs checked by what others wrote: PyJWT with its PyJWKClient, from the OIDC discovery document of a running host.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a broken test must stop"
)]

use std::path::PathBuf;
use std::process::Command;

use portcullis_tests::guests;
use portcullis_tests::host::Host;
use portcullis_tests::http;
use portcullis_tests::server::Server;
use portcullis_tests::site::Site;
use portcullis_tests::web_pki::WebPki;

/// The version of PyJWT that the test was written for.
const PYJWT: &str = "pyjwt[crypto]==2.10.1";

/// Reads the discovery document, the keys and checks a token; prints `ALGORITHM ISSUER SUBJECT`. Every check is PyJWT's own.
const CHECK: &str = r#"
import json, ssl, sys, urllib.request
import jwt
issuer, ca, audience = sys.argv[1:4]
token = sys.stdin.read()
tls = ssl.create_default_context(cafile=ca)
with urllib.request.urlopen(issuer + "/.well-known/openid-configuration", context=tls) as answer:
    document = json.load(answer)
assert document["issuer"] == issuer, document
assert document["response_types_supported"] and document["subject_types_supported"], document
keys = jwt.PyJWKClient(document["jwks_uri"], ssl_context=tls)
key = keys.get_signing_key_from_jwt(token)
claims = jwt.decode(token, key, algorithms=document["id_token_signing_alg_values_supported"], audience=audience,
    issuer=issuer, options={"require": ["exp", "iat", "iss", "sub", "aud"]})
print(jwt.get_unverified_header(token)["alg"], claims["iss"], claims["sub"])
for wrong in ({"audience": "other"}, {"audience": audience, "issuer": "https://other.example"}):
    try:
        jwt.decode(token, key, algorithms=["ES256", "RS256"], **wrong)
        sys.exit("a wrong audience or issuer was accepted")
    except (jwt.InvalidAudienceError, jwt.InvalidIssuerError):
        pass
"#;

/// A Python with PyJWT, made once into the test cache; `None` after a loud skip.
fn python() -> Option<PathBuf> {
    let venv = portcullis_tests::cache().join("pyjwt");
    let python = venv.join("bin/python");
    let works =
        || Command::new(&python).args(["-c", "import jwt, cryptography"]).output().is_ok_and(|o| o.status.success());
    if works() {
        return Some(python);
    }
    let made = Command::new("python3").args(["-m", "venv"]).arg(&venv).output();
    if !made.is_ok_and(|output| output.status.success()) {
        portcullis_tests::skip("oidc", "no python3 with venv", true);
        return None;
    }
    let installed = Command::new(&python).args(["-m", "pip", "install", "-q", PYJWT]).output().expect("pip starts");
    if !installed.status.success() || !works() {
        let why = String::from_utf8_lossy(&installed.stderr).to_string();
        portcullis_tests::skip("oidc", &format!("PyJWT cannot be installed: {why}"), false);
        return None;
    }
    Some(python)
}

#[test]
fn pyjwt_accepts_es256_tokens_by_the_discovery_document() {
    checked_with("ES256");
}

#[test]
fn pyjwt_accepts_rs256_tokens_by_the_discovery_document() {
    checked_with("RS256");
}

fn checked_with(algorithm: &str) {
    let Some(python) = python() else { return };
    let (pki, port) = (WebPki::new(), portcullis_tests::port::reserved());
    let issuer = format!("https://localhost:{port}/spiffe");
    let far = Server::saying("{}");
    let mut site = Site::new();
    let may = "link = [\"portcullis:identity/*\", \"wasmcloud:identity/*\"]\nidentity = [\"read\", \"x509\"]\naudiences = [\"vault\"]";
    site.component("greeter", &guests::ours("greeter"), may);
    site.grants(&format!(
        "\n[[grant]]\nid = \"far\"\nreason = \"a test\"\nowner = \"tests\"\ncomponent = \"test:greeter\"\nhttp = [\"http://127.0.0.1:{}\"]\naddresses = [\"loopback\"]\n",
        far.port()
    ));
    site.config(&format!(
        "[identity]\njwt_algorithm = \"{algorithm}\"\n\n[oidc]\nissuer = \"{issuer}\"\nlisten = \"127.0.0.1:{port}\"\ncertificate = \"{}\"\nkey = \"{}\"\n\n",
        pki.certificate().display(),
        pki.key().display()
    ));
    let host = Host::ready(site);
    check(&python, &host, &pki, &issuer, &token(&host, &far), algorithm);
    // The keys of after a rotation are there as well.
    host.run(["identity", "rotate", "--jwt"]).ok();
    check(&python, &host, &pki, &issuer, &token(&host, &far), algorithm);
}

/// A token of the component, as it sends it to others.
fn token(host: &Host, far: &Server) -> String {
    let head = format!(
        "GET /greeter HTTP/1.1\r\nhost: x\r\nx-vault-url: http://127.0.0.1:{}/\r\nconnection: close\r\n\r\n",
        far.port()
    );
    let answer = http::raw(host.http(), head.as_bytes());
    let token = answer.json()["token"].as_str().map(str::to_owned);
    token.unwrap_or_else(|| panic!("no token: {}\n{}", answer.text(), host.log()))
}

fn check(python: &PathBuf, host: &Host, pki: &WebPki, issuer: &str, token: &str, algorithm: &str) {
    let mut child = Command::new(python)
        .args(["-c", CHECK, issuer])
        .arg(pki.ca())
        .arg("vault")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("python starts");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), token.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}\n{}", host.log());
    assert_eq!(out.trim(), format!("{algorithm} {issuer} spiffe://test.example/ns/test/sa/greeter"));
}
