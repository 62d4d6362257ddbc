//! The Workload API of a real host with clients that others wrote: crate `spiffe`, PyPI `spiffe` (gRPC C-core), openssl; and what
//! the standard says of each call, asked over gRPC without any of their conveniences.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use portcullis_identity::workload_api::pb::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use portcullis_identity::workload_api::pb::{
    JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, WitBundlesRequest, WitsvidRequest, X509BundlesRequest,
    X509svidRequest,
};
use portcullis_tests::host::Host;
use portcullis_tests::patience::LONG;
use portcullis_tests::{python, workload};
use serde_json::Value;
use spiffe::{JwtSource, WorkloadApiClient, X509Source};
use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic::{Code, Status};

#[path = "../workload_client.rs"]
mod workload_client;

use workload_client::{call, with};

const OWN: &str = "spiffe://test.example/ns/test/sa/own";

/// A host that knows this test by its path, and again by its digest with another ID.
fn host() -> Host {
    let me = std::env::current_exe().unwrap();
    let second = format!(
        "[[workload]]\nname = \"second\"\nspiffe_path = \"/ns/test/sa/second\"\nuid = {}\nsha256 = \"{}\"\n\
         audiences = [\"bank\"]\nhint = \"external\"\nx509_ttl = \"10m\"\n",
        workload::uid_of_tests(),
        workload::sha256(&me)
    );
    workload::host(&(workload::own_entry("own", "audiences = [\"vault\", \"bank\"]\nhint = \"internal\"") + &second))
}

async fn channel(host: &Host) -> Channel {
    workload_client::channel(&workload::socket(host)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_answers_as_the_standard_says() {
    let host = host();
    let mut client = SpiffeWorkloadApiClient::new(channel(&host).await);
    no_call_without_exactly_one_security_header(&mut client).await;
    every_identity_comes_with_its_key_bundle_and_hint(&mut client).await;
    bundles_are_keyed_by_trust_domain(&mut client).await;
    tokens_are_for_registered_audiences_and_own_identities(&mut client).await;
    tokens_are_validated_for_one_audience(&mut client).await;
    wit_is_unimplemented_without_the_opt_in(&mut client).await;
    reflection_tells_of_the_service_in_both_versions(channel(&host).await).await;
    what_left_is_in_the_audit_log(&host);
}

async fn no_call_without_exactly_one_security_header(client: &mut SpiffeWorkloadApiClient<Channel>) {
    for header in [&[][..], &["false"], &["True"], &["TRUE"], &["true "], &["true", "true"], &["true,true"], &[""]] {
        let refused: [Status; 5] = [
            client.fetch_x509svid(with(header, X509svidRequest {})).await.map(|_| ()).unwrap_err(),
            client.fetch_x509_bundles(with(header, X509BundlesRequest {})).await.map(|_| ()).unwrap_err(),
            client.fetch_jwtsvid(with(header, JwtsvidRequest::default())).await.map(|_| ()).unwrap_err(),
            client.validate_jwtsvid(with(header, ValidateJwtsvidRequest::default())).await.map(|_| ()).unwrap_err(),
            client.fetch_witsvid(with(header, WitsvidRequest::default())).await.map(|_| ()).unwrap_err(),
        ];
        for status in refused {
            // Blanks around a value are no part of it in HTTP.
            assert_eq!(status.code(), Code::InvalidArgument, "{header:?}: {status}");
        }
    }
}

async fn every_identity_comes_with_its_key_bundle_and_hint(client: &mut SpiffeWorkloadApiClient<Channel>) {
    let mut stream = client.fetch_x509svid(call(X509svidRequest {})).await.unwrap().into_inner();
    let message = stream.next().await.unwrap().unwrap();
    let named: Vec<_> = message.svids.iter().map(|svid| (svid.spiffe_id.as_str(), svid.hint.as_str())).collect();
    assert_eq!(named, [(OWN, "internal"), ("spiffe://test.example/ns/test/sa/second", "external")]);
    assert!(message.crl.is_empty() && message.federated_bundles.is_empty());
    for svid in &message.svids {
        assert!(!svid.bundle.is_empty());
        openssl_takes(&svid.x509_svid, &svid.x509_svid_key, &svid.bundle);
    }
    assert_ne!(message.svids[0].x509_svid_key, message.svids[1].x509_svid_key);
    let again = tokio::time::timeout(Duration::from_millis(700), stream.next()).await;
    assert!(again.is_err(), "a message without a change: {again:?}");
}

/// The chain verifies against the bundle, and key and certificate belong together.
fn openssl_takes(leaf: &[u8], key: &[u8], bundle: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [("leaf.der", leaf), ("key.der", key), ("ca.der", bundle)] {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let run = |arguments: &str| {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    run("x509 -inform der -in leaf.der -out leaf.pem");
    run("x509 -inform der -in ca.der -out ca.pem");
    for purpose in ["sslserver", "sslclient"] {
        let verified = run(&format!("verify -x509_strict -purpose {purpose} -CAfile ca.pem leaf.pem"));
        assert_eq!(verified.trim(), "leaf.pem: OK");
    }
    assert_eq!(run("pkey -inform der -in key.der -pubout"), run("x509 -in leaf.pem -pubkey -noout"));
    // RFC 5958: version, algorithm, key; not encrypted.
    assert!(run("asn1parse -inform der -in key.der").contains("id-ecPublicKey"));
}

async fn bundles_are_keyed_by_trust_domain(client: &mut SpiffeWorkloadApiClient<Channel>) {
    let mut stream = client.fetch_x509_bundles(call(X509BundlesRequest {})).await.unwrap().into_inner();
    let message = stream.next().await.unwrap().unwrap();
    assert_eq!(message.bundles.keys().collect::<Vec<_>>(), ["spiffe://test.example"]);
    let mut stream = client.fetch_jwt_bundles(call(JwtBundlesRequest {})).await.unwrap().into_inner();
    let message = stream.next().await.unwrap().unwrap();
    let keys: Value = serde_json::from_slice(&message.bundles["spiffe://test.example"]).unwrap();
    let keys = keys["keys"].as_array().unwrap();
    assert!(!keys.is_empty());
    for key in keys {
        assert!(key["kid"].is_string() && key["kty"].is_string() && key.get("x5c").is_none(), "{key}");
        assert_eq!(key["use"], "jwt-svid");
    }
}

async fn tokens(
    client: &mut SpiffeWorkloadApiClient<Channel>,
    audience: &[&str],
    id: &str,
) -> Result<Vec<(String, String)>, Status> {
    let request =
        JwtsvidRequest { audience: audience.iter().map(|&a| a.to_owned()).collect(), spiffe_id: id.to_owned() };
    let svids = client.fetch_jwtsvid(call(request)).await?.into_inner().svids;
    Ok(svids.into_iter().map(|svid| (svid.spiffe_id.clone(), svid.svid.clone())).collect())
}

async fn tokens_are_for_registered_audiences_and_own_identities(client: &mut SpiffeWorkloadApiClient<Channel>) {
    let ids = |tokens: Vec<(String, String)>| tokens.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!(ids(tokens(client, &["vault"], "").await.unwrap()), [OWN], "the second has no such audience");
    assert_eq!(ids(tokens(client, &["bank"], "").await.unwrap()).len(), 2);
    assert_eq!(ids(tokens(client, &["bank"], OWN).await.unwrap()), [OWN]);
    assert_eq!(ids(tokens(client, &["vault", "bank"], "").await.unwrap()), [OWN]);
    let nine: Vec<&str> = vec!["bank"; 9];
    for (audience, id, code, text) in [
        (&[][..], "", Code::InvalidArgument, "1 to 8"),
        (&[""], "", Code::InvalidArgument, "empty"),
        (&["a b"], "", Code::InvalidArgument, "character"),
        (&nine, "", Code::InvalidArgument, "1 to 8"),
        (&["bank"], "https://test.example/a", Code::InvalidArgument, "spiffe"),
        (&["bank"], "spiffe://test.example/ns/test/sa/other", Code::PermissionDenied, "no identity issued"),
        (&["bank"], "spiffe://other.example/ns/test/sa/own", Code::PermissionDenied, "no identity issued"),
        (&["vault"], "spiffe://test.example/ns/test/sa/second", Code::PermissionDenied, "audience \"vault\""),
        (&["other"], "", Code::PermissionDenied, "audience \"other\""),
        (&["vault", "other"], "", Code::PermissionDenied, "audience"),
    ] {
        let status = tokens(client, audience, id).await.unwrap_err();
        assert_eq!(status.code(), code, "{audience:?} {id}: {status}");
        assert!(status.message().contains(text), "{audience:?} {id}: {status}");
    }
}

async fn tokens_are_validated_for_one_audience(client: &mut SpiffeWorkloadApiClient<Channel>) {
    let token = tokens(client, &["vault"], "").await.unwrap().remove(0).1;
    let request = |audience: &str, svid: &str| {
        call(ValidateJwtsvidRequest { audience: audience.to_owned(), svid: svid.to_owned() })
    };
    let valid = client.validate_jwtsvid(request("vault", &token)).await.unwrap().into_inner();
    assert_eq!(valid.spiffe_id, OWN);
    let fields = valid.claims.unwrap().fields;
    assert!(["sub", "aud", "exp", "iat", "jti"].iter().all(|claim| fields.contains_key(*claim)), "{fields:?}");
    assert!(matches!(fields["aud"].kind, Some(prost_types::value::Kind::ListValue(_))));
    let (head, signature) = token.rsplit_once('.').unwrap();
    let flipped = signature.replacen(&signature[..1], if signature.starts_with('A') { "B" } else { "A" }, 1);
    for (audience, svid) in [
        ("bank", token.as_str()),
        ("", &token),
        ("vault", ""),
        ("vault", "not a token"),
        ("vault", &format!("{head}.{flipped}")),
        ("vault", &format!("{head}.")),
    ] {
        let status = client.validate_jwtsvid(request(audience, svid)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{audience} {svid}: {status}");
    }
}

async fn wit_is_unimplemented_without_the_opt_in(client: &mut SpiffeWorkloadApiClient<Channel>) {
    let mut svids = client.fetch_witsvid(call(WitsvidRequest::default())).await;
    let refused = match &mut svids {
        Ok(stream) => stream.get_mut().next().await.unwrap().map(|_| ()).unwrap_err(),
        Err(status) => status.clone(),
    };
    assert_eq!(refused.code(), Code::Unimplemented);
    let mut bundles = client.fetch_wit_bundles(call(WitBundlesRequest {})).await;
    let refused = match &mut bundles {
        Ok(stream) => stream.get_mut().next().await.unwrap().map(|_| ()).unwrap_err(),
        Err(status) => status.clone(),
    };
    assert_eq!(refused.code(), Code::Unimplemented);
}

async fn reflection_tells_of_the_service_in_both_versions(channel: Channel) {
    macro_rules! services {
        ($version:ident) => {{
            use tonic_reflection::pb::$version::ServerReflectionRequest;
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
            let ask = |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
            let asked = [
                ask(MessageRequest::ListServices(String::new())),
                ask(MessageRequest::FileContainingSymbol("SpiffeWorkloadAPI".to_owned())),
            ];
            let mut client = ServerReflectionClient::new(channel.clone());
            let mut answers = client.server_reflection_info(tokio_stream::iter(asked)).await.unwrap().into_inner();
            let Some(MessageResponse::ListServicesResponse(list)) =
                answers.next().await.unwrap().unwrap().message_response
            else {
                panic!("no list")
            };
            assert!(list.service.iter().any(|service| service.name == "SpiffeWorkloadAPI"), "{list:?}");
            let file = answers.next().await.unwrap().unwrap().message_response;
            let Some(MessageResponse::FileDescriptorResponse(file)) = file else { panic!("no file: {file:?}") };
            assert!(file.file_descriptor_proto.iter().any(|bytes| contains(bytes, b"FetchWITSVID")));
        }};
    }
    services!(v1);
    services!(v1alpha);
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn what_left_is_in_the_audit_log(host: &Host) {
    let me = std::env::current_exe().unwrap().canonicalize().unwrap();
    let records = host.audit();
    for svid in ["x509", "jwt"] {
        let issued = records.iter().find(|record| record["kind"] == "issuance" && record["svid"] == svid).unwrap();
        assert_eq!((&issued["entry"], &issued["spiffe_id"]), (&"own".into(), &OWN.into()), "{issued}");
        assert_eq!(issued["to"]["pid"], std::process::id());
        assert_eq!(issued["to"]["executable"], me.display().to_string());
        assert_eq!(issued["to"]["sha256"].as_str().unwrap(), workload::sha256(&me));
    }
    let refused = records.iter().find(|record| record["code"] == "workload.audience").unwrap();
    assert!(refused["text"].as_str().unwrap().contains("vault") || refused["text"].as_str().unwrap().contains("other"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_client_keeps_its_svids_through_rotations_of_every_kind() {
    let host = workload::host(&workload::own_entry("own", "audiences = [\"vault\"]"));
    let endpoint = workload::endpoint(&host);
    let source = X509Source::builder().endpoint(&endpoint).build().await.unwrap();
    let tokens = JwtSource::builder().endpoint(&endpoint).build().await.unwrap();
    let mut updates = source.updated();
    let serial = || {
        let svid = source.svid().unwrap();
        assert_eq!(svid.spiffe_id().to_string(), OWN);
        svid.leaf().as_bytes().to_vec()
    };
    let authorities =
        || source.bundle_set().unwrap().iter().map(|(_, bundle)| bundle.authorities().len()).sum::<usize>();
    let mut seen = vec![serial()];
    assert_eq!(authorities(), 1);
    for (round, rotate) in [&["--svids"][..], &["--x509"], &["--svids"], &["--jwt"], &[]].into_iter().enumerate() {
        let arguments = ["identity", "rotate"].iter().chain(rotate).copied();
        host.run(arguments).ok();
        if rotate != ["--jwt"] {
            tokio::time::timeout(LONG, updates.changed()).await.expect("an update").unwrap();
        }
        let until = Instant::now() + LONG;
        while rotate != ["--jwt"] && rotate != ["--x509"] && serial() == *seen.last().unwrap() && Instant::now() < until
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if rotate.contains(&"--svids") || rotate.is_empty() {
            assert!(!seen.contains(&serial()), "round {round}: the SVID is the old one");
            seen.push(serial());
        }
        let token = tokens.fetch_jwt_svid(["vault"]).await.unwrap();
        let bundles = WorkloadApiClient::connect_to(&endpoint).await.unwrap().fetch_jwt_bundles().await.unwrap();
        spiffe::JwtSvid::parse_and_validate(token.token(), &bundles, &["vault"]).unwrap();
    }
    assert!(authorities() > 1, "the new authority is published with the old one");
    assert!(source.is_healthy() && tokens.is_healthy());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_fetches_streams_and_validates() {
    let test = "the_python_client_fetches_streams_and_validates";
    let Some(interpreter) = python::with(test, &["spiffe==0.3.2"]) else { return };
    let entry = workload::entry("py", &interpreter, "audiences = [\"vault\"]");
    let host = workload::host(&entry);
    let script = portcullis_tests::root().join("tests/conformance/clients/py_spiffe.py");
    let mut client = Command::new(interpreter)
        .arg(script)
        .args([workload::endpoint(&host).as_str(), "vault", "bank"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
    let mut next = |step: &str| {
        let line = lines.next().unwrap_or_else(|| panic!("the client ended before {step}\n{}", host.log())).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(said["step"], step, "{said}");
        said
    };
    let id = "spiffe://test.example/ns/test/sa/py";
    assert_eq!(next("x509"), serde_json::json!({"step": "x509", "spiffe_id": id, "chain": 1}));
    assert_eq!(next("x509-bundles")["domains"], serde_json::json!(["test.example"]));
    assert_eq!(next("jwt")["spiffe_id"], id);
    assert_eq!(next("jwt-bundles")["domains"], serde_json::json!(["test.example"]));
    assert_eq!(next("validated")["spiffe_id"], id);
    assert!(next("validated-for-another")["error"].as_str().unwrap().contains("INVALID_ARGUMENT"));
    assert!(next("unregistered")["error"].as_str().unwrap().contains("audience \"bank\""));
    let first = next("source")["serial"].clone();
    host.run(["identity", "rotate"]).ok();
    client.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let rotated = next("rotated");
    assert_eq!(rotated["updated"], true);
    assert_ne!(rotated["serial"], first);
    assert_eq!(rotated["authorities"], 2);
    assert_eq!(next("token")["spiffe_id"], id);
    next("done");
    assert!(client.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_with_unavailable_when_the_host_stops_and_the_socket_is_taken_away() {
    let host = workload::host(&workload::own_entry("own", ""));
    let socket = workload::socket(&host);
    let mut client = SpiffeWorkloadApiClient::new(channel(&host).await);
    let mut svids = client.fetch_x509svid(call(X509svidRequest {})).await.unwrap().into_inner();
    let mut bundles = client.fetch_jwt_bundles(call(JwtBundlesRequest {})).await.unwrap().into_inner();
    svids.next().await.unwrap().unwrap();
    bundles.next().await.unwrap().unwrap();
    let stopped = tokio::task::spawn_blocking(move || host.stop());
    let ends = async { (svids.next().await, bundles.next().await) };
    let (svids, bundles) = tokio::time::timeout(LONG, ends).await.expect("the streams end");
    for end in [svids.map(|end| end.map(|_| ())), bundles.map(|end| end.map(|_| ()))] {
        let status = end.expect("never an end with OK").unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert_eq!(status.message(), "the server ends");
    }
    let _site = stopped.await.unwrap();
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn wit_svids_come_with_the_key_that_they_are_bound_to() {
    use base64::Engine;
    let host = workload::host_with("wit_svid = true", &workload::own_entry("own", ""));
    let mut client = SpiffeWorkloadApiClient::new(channel(&host).await);
    let mut stream = client.fetch_witsvid(call(WitsvidRequest::default())).await.unwrap().into_inner();
    let message = stream.next().await.unwrap().unwrap();
    let svid = &message.svids[0];
    assert_eq!(svid.spiffe_id, OWN);
    let part = |index: usize| -> Value {
        let text = svid.wit_svid.split('.').nth(index).unwrap();
        serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
    };
    let (header, claims) = (part(0), part(1));
    assert_eq!((&header["typ"], &claims["sub"]), (&"wit+jwt".into(), &OWN.into()));
    assert!(claims.get("aud").is_none() && claims["exp"].is_number());
    let key: Value = serde_json::from_str(&svid.wit_svid_key).unwrap();
    let public = &claims["cnf"]["jwk"];
    assert_eq!((&key["x"], &key["y"]), (&public["x"], &public["y"]));
    assert!(key["d"].is_string() && public.get("d").is_none());
    let mut bundles = client.fetch_wit_bundles(call(WitBundlesRequest {})).await.unwrap().into_inner();
    let bundles = bundles.next().await.unwrap().unwrap().bundles;
    let keys: Value = serde_json::from_str(&bundles["spiffe://test.example"]).unwrap();
    let keys = keys["keys"].as_array().unwrap();
    assert!(keys.iter().all(|key| key["use"] == "wit-svid") && keys.iter().any(|key| key["kid"] == header["kid"]));
    let other = WitsvidRequest { spiffe_id: "spiffe://test.example/other".to_owned() };
    let mut refused = client.fetch_witsvid(call(other)).await.unwrap().into_inner();
    let status = refused.next().await.unwrap().unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "no identity issued"));
}

/// Another trust domain: an authority made by openssl, whose key signs tokens, too.
struct Foreign {
    key: ring::signature::EcdsaKeyPair,
    bundle: Value,
    authority: Vec<u8>,
}

impl Foreign {
    fn new() -> Self {
        use base64::Engine;
        use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
        use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
        let random = ring::rand::SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key.der"), pkcs8.as_ref()).unwrap();
        let made = Command::new("openssl")
            .args(["req", "-x509", "-new", "-key", "key.der", "-keyform", "der", "-outform", "der", "-out", "ca.der"])
            .args(["-subj", "/O=other", "-days", "1", "-addext", "subjectAltName=URI:spiffe://other.example"])
            .args(["-addext", "keyUsage=critical,keyCertSign"])
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let authority = std::fs::read(folder.path().join("ca.der")).unwrap();
        let (x, y) = key.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let bundle = serde_json::json!({"spiffe_sequence": 1, "keys": [
            {"use": "x509-svid", "kty": "EC", "crv": "P-256", "x": x, "y": y, "x5c": [STANDARD.encode(&authority)]},
            {"use": "jwt-svid", "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "k1"},
        ]});
        Self { key, bundle, authority }
    }

    /// A token of this trust domain's key for a subject.
    fn token(&self, subject: &str) -> String {
        use base64::Engine;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let end = time::OffsetDateTime::now_utc().unix_timestamp() + 60;
        let header = serde_json::json!({"alg": "ES256", "kid": "k1", "typ": "JWT"});
        let claims = serde_json::json!({"sub": subject, "aud": "vault", "exp": end, "extra": {"a": [1]}});
        let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let signature = self.key.sign(&ring::rand::SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_bundles_go_to_those_entries_that_name_their_trust_domain() {
    let foreign = Foreign::new();
    for federates in [true, false] {
        let more = if federates { "federates_with = [\"other.example\"]" } else { "" };
        let mut site = workload::site("", &workload::own_entry("own", more));
        std::fs::write(site.file("other.json"), foreign.bundle.to_string()).unwrap();
        // Nobody answers there: the host goes on with what the operator gave it.
        site.config(
            "\n[[federation.peer]]\ntrust_domain = \"other.example\"\nurl = \"https://127.0.0.1:9/\"\n\
             profile = \"https_spiffe\"\nendpoint_spiffe_id = \"spiffe://other.example/endpoint\"\nbootstrap = \"other.json\"\n",
        );
        let host = Host::ready(site);
        let mut client = SpiffeWorkloadApiClient::new(channel(&host).await);
        let mut svids = client.fetch_x509svid(call(X509svidRequest {})).await.unwrap().into_inner();
        let svids = svids.next().await.unwrap().unwrap();
        let mut x509 = client.fetch_x509_bundles(call(X509BundlesRequest {})).await.unwrap().into_inner();
        let x509 = x509.next().await.unwrap().unwrap().bundles;
        let mut jwt = client.fetch_jwt_bundles(call(JwtBundlesRequest {})).await.unwrap().into_inner();
        let jwt = jwt.next().await.unwrap().unwrap().bundles;
        let other = "spiffe://other.example";
        let wanted = federates.then_some(&foreign.authority);
        assert_eq!(svids.federated_bundles.get(other), wanted);
        assert_eq!(x509.get(other), wanted);
        assert_eq!(jwt.contains_key(other), federates);
        assert!(x509["spiffe://test.example"] == svids.svids[0].bundle, "the own bundle is the own one alone");
        let validate = |svid: String| call(ValidateJwtsvidRequest { audience: "vault".to_owned(), svid });
        let valid = client.validate_jwtsvid(validate(foreign.token("spiffe://other.example/a"))).await;
        match valid {
            Ok(valid) if federates => {
                let valid = valid.into_inner();
                assert_eq!(valid.spiffe_id, "spiffe://other.example/a");
                assert!(valid.claims.unwrap().fields.contains_key("extra"), "claims are not filtered");
            }
            Err(status) if !federates => assert_eq!(status.code(), Code::InvalidArgument, "{status}"),
            other => panic!("{federates}: {other:?}"),
        }
        // A foreign key vouches for nobody of ours.
        let status = client.validate_jwtsvid(validate(foreign.token(OWN))).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
}
