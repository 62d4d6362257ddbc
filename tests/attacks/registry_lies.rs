//! Registries that lie, break off and flood. Nothing but the bytes of a digest gets through, and "could not be asked" is never
//! taken for "unsigned".

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use portcullis_signing::oci::{
    ComponentArtifact, ComponentManifest, Descriptor, IMAGE_INDEX, IMAGE_MANIFEST, evidence_manifest,
};
use portcullis_signing::{ComponentBytes, Digest, read_interfaces};
use portcullis_tests::guests;
use portcullis_tests::site::{CLUSTER, Ended, Site};
use serde_json::{Value, json};

#[path = "registry_silence.rs"]
mod registry_silence;

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

#[test]
fn an_honest_answer_is_taken_so_that_the_others_prove_something() {
    let world = World::new();
    let registry = Liar::new(world.answers());
    world.verify(&registry).ok();
    // The tag was asked for once; everything else went by digest.
    let asked = registry.asked();
    assert_eq!(asked.iter().filter(|path| path.ends_with("/manifests/1")).count(), 1, "{asked:?}");
}

#[test]
fn other_bytes_than_those_of_a_digest_are_refused() {
    let world = World::new();
    for path in [world.layer_path(), world.manifest_path()] {
        let mut answers = world.answers();
        let mut bytes = answers[&path].body.clone();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        answers.insert(path.clone(), Answer::ok(&bytes));
        let registry = Liar::new(answers);
        let reference = format!("hello@{}", world.manifest.digest());
        let refused = world.verify_as(&registry, &reference);
        assert_eq!((refused.exit, refused.code().as_str()), (13, "registry.other-bytes"), "{path}: {refused:?}");
    }
    // Evidence that was changed on the way is no evidence.
    let mut answers = world.answers();
    answers.insert(world.bundle_path(), Answer::ok(&vec![b'x'; world.bundle.len()]));
    let refused = world.verify(&Liar::new(answers));
    assert_eq!((refused.exit, refused.code().as_str()), (10, "evidence.none"), "{refused:?}");
    assert!(refused.err.contains("is not used"), "it is said which referrer was left out: {}", refused.err);
}

#[test]
fn evidence_that_refers_to_something_else_does_not_count_whatever_the_list_says() {
    let world = World::new();
    let other = Descriptor::of(IMAGE_MANIFEST, b"other");
    let referrer = evidence_manifest(&other, BUNDLE, &world.bundle, None);
    let mut answers = world.answers();
    answers.insert(world.referrers_path(), Answer::ok(index(&[&referrer]).as_bytes()));
    answers.insert(format!("/v2/hello/manifests/{}", Digest::of(&referrer)), Answer::ok(&referrer));
    let refused = world.verify(&Liar::new(answers));
    assert_eq!((refused.exit, refused.code().as_str()), (10, "evidence.none"), "{refused:?}");
}

#[test]
fn an_artifact_type_in_the_list_hides_no_evidence() {
    let world = World::new();
    let mut list: Value = serde_json::from_slice(&world.answers()[&world.referrers_path()].body).unwrap();
    list["manifests"][0]["artifactType"] = json!("application/vnd.oci.empty.v1+json");
    let mut answers = world.answers();
    answers.insert(world.referrers_path(), Answer::ok(list.to_string().as_bytes()));
    assert_eq!(world.verify(&Liar::new(answers)).exit, 0);
}

#[test]
fn a_signature_of_cosign_2_is_found_under_its_tag_and_judged() {
    let world = World::new();
    let mut answers = world.answers();
    answers.insert(world.referrers_path(), Answer::ok(index(&[]).as_bytes()));
    assert_eq!(world.verify(&Liar::new(answers.clone())).code(), "evidence.none");
    let payload = json!({
        "critical": {
            "identity": {"docker-reference": "hello"},
            "image": {"docker-manifest-digest": world.manifest.digest()},
            "type": "cosign container image signature",
        },
        "optional": null,
    })
    .to_string();
    let simple_signing = "application/vnd.dev.cosign.simplesigning.v1+json";
    let mut layer = json!(Descriptor::of(simple_signing, payload.as_bytes()));
    layer["annotations"] = json!({"dev.cosignproject.cosign/signature": "MEUCIQDx"});
    let config = Descriptor::of("application/vnd.oci.image.config.v1+json", b"{}");
    let manifest =
        json!({"schemaVersion": 2, "mediaType": IMAGE_MANIFEST, "config": config, "layers": [layer]}).to_string();
    let tag = format!("/v2/hello/manifests/sha256-{}.sig", world.manifest.digest().hex());
    answers.insert(tag, Answer::ok(manifest.as_bytes()));
    answers.insert(format!("/v2/hello/blobs/{}", Digest::of(payload.as_bytes())), Answer::ok(payload.as_bytes()));
    let refused = world.verify(&Liar::new(answers));
    assert_eq!((refused.exit, refused.code().as_str()), (12, "signer.unknown"), "{refused:?}");
}

#[test]
fn too_many_referrers_are_refused() {
    let world = World::new();
    let many: Vec<Vec<u8>> = (0..65u8).map(|n| vec![n]).collect();
    let many: Vec<&Vec<u8>> = many.iter().collect();
    let mut answers = world.answers();
    answers.insert(world.referrers_path(), Answer::ok(index(&many).as_bytes()));
    let refused = world.verify(&Liar::new(answers));
    assert_eq!((refused.exit, refused.code().as_str()), (10, "evidence.too-many"), "{refused:?}");
    // Nor over several pages, nor over pages without an end.
    let page: Vec<&Vec<u8>> = many[..1].to_vec();
    let mut answers = world.answers();
    let endless =
        Answer::ok(index(&page).as_bytes()).with(&format!("link: <{}>; rel=\"next\"", world.referrers_path()));
    answers.insert(world.referrers_path(), endless);
    let refused = world.verify(&Liar::new(answers));
    assert_eq!((refused.exit, refused.code().as_str()), (13, "registry.too-large"), "{refused:?}");
}

#[test]
fn a_page_of_another_registry_is_not_asked_for() {
    let world = World::new();
    let elsewhere = Liar::new(BTreeMap::new());
    let mut answers = world.answers();
    let body = answers[&world.referrers_path()].body.clone();
    let link = format!("link: <http://{}/v2/hello/referrers/x>; rel=\"next\"", elsewhere.address);
    answers.insert(world.referrers_path(), Answer::ok(&body).with(&link));
    assert_eq!(world.verify(&Liar::new(answers)).exit, 0);
    assert!(elsewhere.asked().is_empty());
}

#[test]
fn a_registry_that_fails_is_not_a_component_without_evidence() {
    let world = World::new();
    for status in ["500 Internal Server Error", "429 Too Many Requests", "302 Found", "204 No Content"] {
        let mut answers = world.answers();
        answers.insert(world.referrers_path(), Answer { status: status.to_owned(), ..Answer::ok(b"no") });
        let refused = world.verify(&Liar::new(answers));
        assert_eq!(refused.exit, 18, "{status}: {refused:?}");
    }
    // The same under the fallback tag.
    let mut answers = world.answers();
    answers.remove(&world.referrers_path());
    let tag = format!("/v2/hello/manifests/sha256-{}", world.manifest.digest().hex());
    answers.insert(tag, Answer { status: "503 Service Unavailable".to_owned(), ..Answer::ok(b"no") });
    let refused = world.verify(&Liar::new(answers));
    assert_eq!((refused.exit, refused.code().as_str()), (18, "registry.answer"), "{refused:?}");
}

#[test]
fn floods_end_at_a_limit() {
    let world = World::new();
    let large = vec![b' '; (4 << 20) + 1];
    for path in ["/v2/hello/manifests/1".to_owned(), world.referrers_path()] {
        let mut answers = world.answers();
        answers.insert(path.clone(), Answer::ok(&large));
        let refused = world.verify(&Liar::new(answers));
        assert_eq!((refused.exit, refused.code().as_str()), (13, "registry.too-large"), "{path}: {refused:?}");
        // Without a length and without an end.
        let mut answers = world.answers();
        answers.insert(path.clone(), Answer { endless: true, ..Answer::ok(b"x") });
        let refused = world.verify(&Liar::new(answers));
        assert_eq!((refused.exit, refused.code().as_str()), (13, "registry.too-large"), "{path}: {refused:?}");
    }
    // A blob that goes on behind its size.
    let mut answers = world.answers();
    answers.insert(world.layer_path(), Answer { endless: true, ..Answer::ok(b"x") });
    let refused = world.verify(&Liar::new(answers));
    assert_eq!((refused.exit, refused.code().as_str()), (13, "registry.too-large"), "{refused:?}");
}

#[test]
fn a_manifest_that_is_no_wasm_artifact_is_refused_before_anything_is_fetched() {
    let world = World::new();
    let good: Value = serde_json::from_slice(&world.artifact).unwrap();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut value = good.clone();
        change(&mut value);
        value.to_string()
    };
    let layer = good["layers"][0].clone();
    for text in [
        changed(&|value| value["layers"] = json!([layer, layer])),
        changed(&|value| value["layers"][0]["urls"] = json!(["http://elsewhere.example/"])),
        changed(&|value| value["layers"][0]["digest"] = json!("sha256:../../secret")),
        changed(&|value| value["config"]["mediaType"] = json!("application/vnd.oci.image.config.v1+json")),
        changed(&|value| value["mediaType"] = json!(IMAGE_INDEX)),
        good.to_string().replacen('{', "{\"layers\":[],", 1),
        "<html>".to_owned(),
        String::new(),
    ] {
        let mut answers = world.answers();
        answers.insert("/v2/hello/manifests/1".to_owned(), Answer::ok(text.as_bytes()));
        let registry = Liar::new(answers);
        let refused = world.verify(&registry);
        assert_eq!((refused.exit, refused.code().as_str()), (13, "registry.manifest"), "{text}: {refused:?}");
        assert!(!registry.asked().iter().any(|path| path.contains("/blobs/")), "{text}");
    }
}

#[test]
fn a_component_larger_than_any_policy_allows_is_not_fetched() {
    let world = World::new();
    let mut value: Value = serde_json::from_slice(&world.artifact).unwrap();
    value["layers"][0]["size"] = json!(u64::MAX);
    let mut answers = world.answers();
    answers.insert("/v2/hello/manifests/1".to_owned(), Answer::ok(value.to_string().as_bytes()));
    let registry = Liar::new(answers);
    let refused = world.verify(&registry);
    assert_eq!((refused.exit, refused.code().as_str()), (13, "registry.too-large"), "{refused:?}");
    assert!(!registry.asked().iter().any(|path| path.contains("/blobs/")));
}

#[test]
fn a_connection_that_breaks_off_is_taken_up_where_it_was() {
    let world = World::new();
    let mut answers = world.answers();
    answers
        .insert(world.layer_path(), Answer { piece: Some(world.component.len() / 4), ..Answer::ok(&world.component) });
    let registry = Liar::new(answers);
    assert_eq!(world.verify(&registry).exit, 0);
    let fetched = registry.asked().iter().filter(|path| **path == world.layer_path()).count();
    assert!((4..=6).contains(&fetched), "in quarters: {fetched}");
    // One that brings nothing new any more is given up.
    let mut answers = world.answers();
    answers.insert(world.layer_path(), Answer { piece: Some(0), ..Answer::ok(&world.component) });
    let refused = world.verify(&Liar::new(answers));
    assert_eq!((refused.exit, refused.code().as_str()), (18, "registry.unreachable"), "{refused:?}");
}

#[test]
fn a_token_that_is_none_ends_the_command_and_not_the_program() {
    let world = World::new();
    let token = Liar::new(BTreeMap::from([("/token".to_owned(), Answer::ok(br#"{"token":"a\nb\u0000"}"#))]));
    let mut answers = world.answers();
    let challenge = format!("www-authenticate: Bearer realm=\"http://{}/token\",service=\"x\"", token.address);
    answers.insert(
        "/v2/".to_owned(),
        Answer { status: "401 Unauthorized".to_owned(), ..Answer::ok(b"") }.with(&challenge),
    );
    let refused = world.verify(&Liar::new(answers));
    assert_eq!((refused.exit, refused.code().as_str()), (18, "registry.answer"), "{refused:?}");
    assert!(!refused.err.contains("panicked"), "{}", refused.err);
}

#[test]
fn a_token_without_an_end_and_one_from_a_place_without_tls_are_not_taken() {
    let world = World::new();
    let guarded = |challenge: &str| {
        let mut answers = world.answers();
        let answer = Answer { status: "401 Unauthorized".to_owned(), ..Answer::ok(b"") };
        answers.insert("/v2/".to_owned(), answer.with(&format!("www-authenticate: {challenge}")));
        world.verify(&Liar::new(answers))
    };
    let large = format!("{{\"token\":\"{}\"}}", "x".repeat(64 << 10));
    for flood in [Answer { endless: true, ..Answer::ok(b"") }, Answer::ok(large.as_bytes())] {
        let token = Liar::new(BTreeMap::from([("/token".to_owned(), flood)]));
        let refused = guarded(&format!("Bearer realm=\"http://{}/token\",service=\"x\"", token.address));
        assert_eq!((refused.exit, refused.code().as_str()), (13, "registry.too-large"), "{refused:?}");
    }
    let refused = guarded("Bearer realm=\"http://tokens.example/token\"");
    assert_eq!((refused.exit, refused.code().as_str()), (18, "registry.answer"), "{refused:?}");
    // One that is as it should be is shown with every request.
    let token = Liar::new(BTreeMap::from([("/token".to_owned(), Answer::ok(br#"{"access_token":"abc"}"#))]));
    assert_eq!(guarded(&format!("Bearer realm=\"http://{}/token\"", token.address)).exit, 0);
    assert_eq!(token.asked().len(), 1);
}

#[test]
fn no_more_redirects_are_followed_than_the_limit() {
    const REDIRECTS: usize = 4;
    let world = World::new();
    let redirected = |hops: usize| {
        let mut answers = world.answers();
        let whole = answers[&world.layer_path()].clone();
        let place = |hop: usize| if hop == 0 { world.layer_path() } else { format!("/hop/{hop}") };
        for hop in 0..hops {
            let answer = Answer { status: "307 Temporary Redirect".to_owned(), ..Answer::ok(b"") };
            answers.insert(place(hop), answer.with(&format!("location: {}", place(hop + 1))));
        }
        answers.insert(place(hops), whole);
        world.verify(&Liar::new(answers))
    };
    assert_eq!(redirected(REDIRECTS).exit, 0);
    let refused = redirected(REDIRECTS + 1);
    assert_eq!((refused.exit, refused.code().as_str()), (18, "registry.unreachable"), "{refused:?}");
}

#[test]
fn evidence_that_a_registry_never_lists_is_not_taken_for_pushed() {
    const TRIES: usize = 4;
    const CLAIMS: &str = "https://portcullis.dev/component-claims/v1";
    let world = World::new();
    std::fs::write(world.site.file("hello.wasm"), &world.component).unwrap();
    let created = || {
        let answer = Answer { status: "201 Created".to_owned(), ..Answer::ok(b"") };
        answer.with("location: /v2/hello/manifests/x")
    };
    let mut answers = world.answers();
    answers.insert(world.referrers_path(), Answer::ok(index(&[]).as_bytes()));
    answers.insert(format!("/v2/hello/blobs/{}", Digest::of(b"{}")), Answer::ok(b"{}"));
    let referrer = evidence_manifest(&world.manifest.descriptor(), BUNDLE, &world.bundle, Some(CLAIMS));
    for path in [world.manifest_path(), format!("/v2/hello/manifests/{}", Digest::of(&referrer))] {
        answers.insert(path, created());
    }
    let registry = Liar::new(answers);
    let reference = format!("oci://{}/hello:1", registry.address);
    let refused = world.site.run_within(60, ["push", "hello.wasm", &reference, "--json"]);
    assert_eq!((refused.exit, refused.code().as_str()), (18, "registry.answer"), "{refused:?}");
    let asked = registry.asked();
    assert_eq!(asked.iter().filter(|path| **path == world.referrers_path()).count(), TRIES, "{asked:?}");
}

#[test]
fn text_of_a_registry_cannot_steer_a_terminal() {
    let world = World::new();
    let mut answers = world.answers();
    let nasty = Answer { status: "500 Oh".to_owned(), ..Answer::ok(b"\x1b[2J\x1b]0;owned\x07") };
    answers.insert(world.layer_path(), nasty);
    let refused = world.verify(&Liar::new(answers));
    assert_eq!(refused.exit, 18, "{refused:?}");
    assert!(!refused.err.contains('\x1b') && !refused.out.contains("\\u001b["), "{refused:?}");
}

/// A signed component as a registry would hold it.
struct World {
    site: Site,
    root: String,
    component: Vec<u8>,
    bundle: Vec<u8>,
    artifact: Vec<u8>,
    config: Vec<u8>,
    manifest: ComponentManifest,
    referrer: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let site = Site::new();
        site.sign("hello", &guests::ours("hello"));
        let root = site.public("root.key");
        let component = guests::ours("hello");
        let bundle = std::fs::read(site.file("hello.wasm.sigstore.json")).unwrap();
        let bytes = ComponentBytes::from_vec(component.clone());
        let interfaces = read_interfaces(&component).unwrap();
        let artifact = ComponentArtifact::new(&bytes, &interfaces, time::OffsetDateTime::UNIX_EPOCH);
        let manifest = ComponentManifest::parse(artifact.manifest()).unwrap();
        let referrer = evidence_manifest(&manifest.descriptor(), BUNDLE, &bundle, None);
        let (config, artifact) = (artifact.config().to_vec(), artifact.manifest().to_vec());
        Self { site, root, component, bundle, artifact, config, manifest, referrer }
    }

    fn layer_path(&self) -> String {
        format!("/v2/hello/blobs/{}", self.manifest.layer().digest())
    }

    fn manifest_path(&self) -> String {
        format!("/v2/hello/manifests/{}", self.manifest.digest())
    }

    fn bundle_path(&self) -> String {
        format!("/v2/hello/blobs/{}", Digest::of(&self.bundle))
    }

    fn referrers_path(&self) -> String {
        format!("/v2/hello/referrers/{}", self.manifest.digest())
    }

    /// What an honest registry answers.
    fn answers(&self) -> BTreeMap<String, Answer> {
        BTreeMap::from([
            ("/v2/".to_owned(), Answer::ok(b"{}")),
            ("/v2/hello/manifests/1".to_owned(), Answer::ok(&self.artifact)),
            (self.manifest_path(), Answer::ok(&self.artifact)),
            (format!("/v2/hello/blobs/{}", Digest::of(&self.config)), Answer::ok(&self.config)),
            (self.layer_path(), Answer::ok(&self.component)),
            (self.referrers_path(), Answer::ok(index(&[&self.referrer]).as_bytes())),
            (format!("/v2/hello/manifests/{}", Digest::of(&self.referrer)), Answer::ok(&self.referrer)),
            (self.bundle_path(), Answer::ok(&self.bundle)),
        ])
    }

    fn verify(&self, registry: &Liar) -> Ended {
        self.verify_as(registry, "hello:1")
    }

    fn verify_as(&self, registry: &Liar, reference: &str) -> Ended {
        let reference = format!("oci://{}/{reference}", registry.address);
        let arguments = [
            "verify",
            &reference,
            "--trust",
            "trust.signed.json",
            "--root",
            &self.root,
            "--audience",
            CLUSTER,
            "--json",
        ];
        self.site.run_within(60, arguments)
    }
}

fn index(manifests: &[&Vec<u8>]) -> String {
    let manifests: Vec<Descriptor> = manifests.iter().map(|bytes| Descriptor::of(IMAGE_MANIFEST, bytes)).collect();
    json!({ "schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": manifests }).to_string()
}

/// One answer of a registry.
#[derive(Debug, Clone)]
struct Answer {
    status: String,
    body: Vec<u8>,
    header: String,
    /// Send it over and over, without a length.
    endless: bool,
    /// Break off after so many bytes.
    piece: Option<usize>,
}

impl Answer {
    fn ok(body: &[u8]) -> Self {
        Self { status: "200 OK".to_owned(), body: body.to_vec(), header: String::new(), endless: false, piece: None }
    }

    fn with(mut self, header: &str) -> Self {
        self.header = format!("{header}\r\n");
        self
    }
}

/// Answers by path; 404 for everything else. Lives until the test process ends.
struct Liar {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Liar {
    fn new(answers: BTreeMap<String, Answer>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (kept, answers) = (Arc::clone(&asked), Arc::new(answers));
        std::thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                let (kept, answers) = (Arc::clone(&kept), Arc::clone(&answers));
                std::thread::spawn(move || answer(&stream, &answers, &kept));
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(mut stream: &TcpStream, answers: &BTreeMap<String, Answer>, asked: &Mutex<Vec<String>>) -> Option<()> {
    stream.set_read_timeout(Some(portcullis_tests::patience::LONG)).ok()?;
    let (mut path, mut from, mut length) = (String::new(), 0, 0);
    let mut reader = BufReader::new(stream);
    for line in reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
        if path.is_empty() {
            path = line.split(' ').nth(1)?.split('?').next()?.to_owned();
        } else if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().ok()?;
        } else if let Some(text) = line.to_lowercase().strip_prefix("content-length: ") {
            length = text.parse().ok()?;
        }
    }
    // What is left unread when a connection is closed would reset it.
    std::io::copy(&mut reader.take(length), &mut std::io::sink()).ok()?;
    asked.lock().unwrap().push(path.clone());
    let missing = Answer { status: "404 Not Found".to_owned(), ..Answer::ok(b"{\"errors\":[]}") };
    let answer = answers.get(&path).unwrap_or(&missing);
    if answer.endless {
        write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\n{}\r\n", answer.header).ok()?;
        let chunk = vec![b' '; 64 << 10];
        // Ends when the other side has had enough.
        while stream.write_all(&chunk).is_ok() {}
        return None;
    }
    let body = answer.body.get(from..)?;
    let status = if from > 0 { "206 Partial Content" } else { &answer.status };
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n{}\r\n", body.len(), answer.header)
        .ok()?;
    let send = answer.piece.map_or(body.len(), |piece| piece.min(body.len()));
    stream.write_all(&body[..send]).ok()
}
