//! The SPIFFE Broker API of a real host (facts 1.9), asked with the bindings of the crate `spiffe` over mutual TLS. The brokers get
//! their own X.509-SVIDs as brokers do: from the Workload API.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_identity::broker::component_reference::ComponentReference;
use portcullis_identity::broker::{COMPONENT_REFERENCE, pb as ours};
use portcullis_identity::limits::BROKER_REQUEST_BYTES;
use portcullis_identity::mtls::{HandshakeSigner, Svid, connector};
use portcullis_identity::{BundleDocument, BundleSet};
use portcullis_tests::host::Host;
use portcullis_tests::site::{Site, TRUST_DOMAIN};
use portcullis_tests::{guests, http, workload};
use prost::Message;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use serde_json::Value;
use spiffe::broker_api::SecurityHeader;
use spiffe::broker_api::pb::spiffe::broker::api_client::ApiClient;
use spiffe::broker_api::pb::spiffe::broker::{
    FetchJwtsvidRequest, SubscribeToJwtBundlesRequest, SubscribeToX509BundlesRequest, SubscribeToX509svidRequest,
    WorkloadPidReference, WorkloadReference,
};
use spiffe::{JwtSvid, WorkloadApiClient, X509Svid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

#[path = "broker_limits.rs"]
mod broker_limits;

type Client<I> = ApiClient<InterceptedService<Channel, I>>;

/// Greeter, whose key may leave; plain, whose may not; hidden, which no broker may name.
fn site() -> Site {
    let mut site = Site::new();
    let link = "link = [\"portcullis:identity/*\", \"wasmcloud:identity/*\", \"wasi:http/outgoing-handler\"]\naudiences = [\"vault\"]\n";
    site.component("greeter", &guests::ours("greeter"), &format!("{link}identity = [\"read\", \"x509\", \"export\"]"));
    site.component("plain", &guests::ours("greeter"), &format!("{link}identity = [\"read\", \"x509\"]"));
    site.component("hidden", &guests::ours("greeter"), &format!("{link}identity = [\"read\", \"x509\"]"));
    site.top("danger_exportable_keys = [\"test:greeter\"]\n");
    let allow = |name: &str, more: &str| {
        format!(
            "[[broker.allow]]\nid = \"spiffe://{TRUST_DOMAIN}/ns/test/sa/{name}\"\n\
             components = [\"test:greeter\", \"test:plain\"]\n{more}\n\n"
        )
    };
    site.config(&format!(
        "[workload_api]\nsocket = \"workload.sock\"\n\n{}{}{}[broker]\nsocket = \"broker.sock\"\n\n{}{}",
        workload::own_entry("mesh", "hint = \"mesh\""),
        workload::own_entry("tokens", "hint = \"tokens\""),
        workload::own_entry("stranger", "hint = \"stranger\""),
        allow("mesh", "x509 = true\njwt = true"),
        allow("tokens", "jwt = true"),
    ));
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_get_what_they_and_the_component_may_have_and_nothing_else() {
    let host = tokio::task::spawn_blocking(|| Host::ready(site())).await.unwrap();
    let mesh = Broker::new(&host, "mesh").await;
    br_01_a_listed_broker_gets_svids_and_bundles(&host, &mesh).await;
    br_02_reflection_tells_of_the_service(&mesh).await;
    be_01_calls_without_exactly_one_security_header_are_refused(&host, &mesh).await;
    br_03_references_are_resolved_by_the_host_alone(&host, &mesh).await;
    br_04_what_was_not_granted_is_not_given(&host, &mesh).await;
    be_02_only_listed_brokers_with_an_svid_are_served(&host).await;
    br_05_streams_end_when_the_workload_ends(&host, &mesh).await;
}

async fn br_01_a_listed_broker_gets_svids_and_bundles(host: &Host, mesh: &Broker) {
    let mut client = mesh.client().await;
    let reference = mesh.reference(host, "test:greeter");
    let id = format!("spiffe://{TRUST_DOMAIN}/ns/test/sa/greeter");
    let request = FetchJwtsvidRequest {
        reference: Some(reference.clone()),
        audience: vec!["vault".into()],
        spiffe_id: String::new(),
    };
    let svids = client.fetch_jwtsvid(request).await.unwrap().into_inner().svids;
    let [svid] = svids.as_slice() else { panic!("not one token") };
    assert_eq!(svid.spiffe_id, id);
    let request = SubscribeToJwtBundlesRequest { reference: Some(reference.clone()) };
    let bundles =
        client.subscribe_to_jwt_bundles(request).await.unwrap().into_inner().message().await.unwrap().unwrap();
    let keys = &bundles.bundles[&format!("spiffe://{TRUST_DOMAIN}")];
    let bundle = spiffe::JwtBundle::from_jwt_authorities(TRUST_DOMAIN.try_into().unwrap(), keys).unwrap();
    let mut set = spiffe::JwtBundleSet::new();
    set.add_bundle(bundle);
    // Code that others wrote validates what came.
    let token = JwtSvid::parse_and_validate(&svid.svid, &set, &["vault"]).unwrap();
    assert_eq!(token.spiffe_id().to_string(), id);
    let record = host.record(&[("kind", "issuance"), ("broker", &mesh.id), ("component", "test:greeter")]);
    assert_eq!(record["audiences"], serde_json::json!(["vault"]), "{record}");

    let request = SubscribeToX509svidRequest { reference: Some(reference.clone()) };
    let svids = client.subscribe_to_x509svid(request).await.unwrap().into_inner().message().await.unwrap().unwrap();
    let [svid] = svids.svids.as_slice() else { panic!("not one SVID") };
    let parsed = X509Svid::parse_from_der(&svid.x509_svid, &svid.x509_svid_key).unwrap();
    assert_eq!((parsed.spiffe_id().to_string(), &svid.spiffe_id), (id.clone(), &id));
    assert!(!svid.bundle.is_empty());
    let record = host.record(&[("kind", "key-export"), ("broker", &mesh.id)]);
    assert!(record["serial"].as_str().is_some_and(|serial| !serial.is_empty()), "{record}");
    let request = SubscribeToX509BundlesRequest { reference: Some(reference) };
    let bundles =
        client.subscribe_to_x509_bundles(request).await.unwrap().into_inner().message().await.unwrap().unwrap();
    assert_eq!(bundles.bundles[&format!("spiffe://{TRUST_DOMAIN}")], svid.bundle);
}

async fn br_02_reflection_tells_of_the_service(mesh: &Broker) {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let mut client = ServerReflectionClient::new(mesh.channel().await.unwrap());
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = client.server_reflection_info(tokio_stream::once(ask)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(services)) = answer else { panic!("no list of services") };
    assert!(services.service.iter().any(|service| service.name == "spiffe.broker.API"), "{services:?}");
}

async fn be_01_calls_without_exactly_one_security_header_are_refused(host: &Host, mesh: &Broker) {
    let request = || FetchJwtsvidRequest {
        reference: Some(mesh.reference(host, "test:greeter")),
        audience: vec!["vault".into()],
        spiffe_id: String::new(),
    };
    for headers in [&[][..], &["false"], &["True"], &["true", "true"], &["true", "false"], &[""]] {
        let with = move |mut call: Request<()>| {
            for value in headers {
                call.metadata_mut().append("broker.spiffe.io", value.parse().unwrap());
            }
            Ok(call)
        };
        let mut client = ApiClient::with_interceptor(mesh.channel().await.unwrap(), with);
        let refused = client.fetch_jwtsvid(request()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{headers:?}: {refused}");
        let request = SubscribeToX509svidRequest { reference: Some(mesh.reference(host, "test:greeter")) };
        let refused = client.subscribe_to_x509svid(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{headers:?}: {refused}");
    }
}

async fn br_03_references_are_resolved_by_the_host_alone(host: &Host, mesh: &Broker) {
    let mut client = mesh.client().await;
    let good = mesh.facts(host, "test:greeter");
    let changed = |change: &dyn Fn(&mut ComponentReference)| {
        let mut reference = good.clone();
        change(&mut reference);
        packed(COMPONENT_REFERENCE, &reference)
    };
    for (reference, code, reason) in [
        (None, Code::InvalidArgument, "WORKLOAD_REFERENCE_INVALID"),
        (Some(WorkloadReference { reference: None }), Code::InvalidArgument, "WORKLOAD_REFERENCE_INVALID"),
        (Some(WorkloadPidReference { pid: 1 }.into()), Code::InvalidArgument, "WORKLOAD_REFERENCE_INVALID"),
        (
            Some(packed("type.googleapis.com/other.Reference", &good)),
            Code::InvalidArgument,
            "WORKLOAD_REFERENCE_INVALID",
        ),
        (Some(changed(&|r| r.instance_id = "../x".into())), Code::InvalidArgument, "WORKLOAD_REFERENCE_INVALID"),
        (Some(changed(&|r| r.host_spiffe_id = "x".into())), Code::InvalidArgument, "WORKLOAD_REFERENCE_INVALID"),
        (Some(changed(&|r| r.signer = "x".repeat(9000))), Code::InvalidArgument, "WORKLOAD_REFERENCE_INVALID"),
        (Some(changed(&|r| r.instance_id = "nobody".into())), Code::NotFound, "WORKLOAD_NOT_FOUND"),
        (Some(changed(&|r| r.component = "test:plain".into())), Code::NotFound, "WORKLOAD_NOT_FOUND"),
        (
            Some(changed(&|r| r.component_digest = format!("sha256:{}", "0".repeat(64)))),
            Code::NotFound,
            "WORKLOAD_NOT_FOUND",
        ),
        (Some(changed(&|r| r.signer = "somebody".into())), Code::NotFound, "WORKLOAD_NOT_FOUND"),
        (
            Some(changed(&|r| r.host_spiffe_id = format!("spiffe://{TRUST_DOMAIN}/other"))),
            Code::NotFound,
            "WORKLOAD_NOT_FOUND",
        ),
        // One that runs and that no broker may name is told from one that does not run by nothing.
        (Some(mesh.reference(host, "test:hidden")), Code::NotFound, "WORKLOAD_NOT_FOUND"),
        // The host itself and processes of the Workload API are no components.
        (Some(changed(&|r| r.instance_id = "portcullis-host".into())), Code::NotFound, "WORKLOAD_NOT_FOUND"),
        (Some(changed(&|r| r.instance_id = "workload.mesh".into())), Code::NotFound, "WORKLOAD_NOT_FOUND"),
    ] {
        let shown = format!("{reference:?}");
        let jwt = FetchJwtsvidRequest {
            reference: reference.clone(),
            audience: vec!["vault".into()],
            spiffe_id: String::new(),
        };
        for refused in [
            client.fetch_jwtsvid(jwt).await.unwrap_err(),
            end(client.subscribe_to_x509svid(SubscribeToX509svidRequest { reference: reference.clone() }).await).await,
            end(client.subscribe_to_x509_bundles(SubscribeToX509BundlesRequest { reference: reference.clone() }).await)
                .await,
            end(client.subscribe_to_jwt_bundles(SubscribeToJwtBundlesRequest { reference }).await).await,
        ] {
            assert_eq!((refused.code(), error_info(&refused).as_str()), (code, reason), "{shown}: {refused}");
        }
    }
}

async fn br_04_what_was_not_granted_is_not_given(host: &Host, mesh: &Broker) {
    let mut client = mesh.client().await;
    let jwt = |component: &str, audiences: &[&str], spiffe_id: &str| FetchJwtsvidRequest {
        reference: Some(mesh.reference(host, component)),
        audience: audiences.iter().map(ToString::to_string).collect(),
        spiffe_id: spiffe_id.to_owned(),
    };
    for audiences in [&["bank"][..], &["vault", "bank"]] {
        let refused = client.fetch_jwtsvid(jwt("test:greeter", audiences, "")).await.unwrap_err();
        assert_eq!(error_info(&refused), "WORKLOAD_NOT_ENTITLED", "{audiences:?}: {refused}");
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
    let other = format!("spiffe://{TRUST_DOMAIN}/ns/test/sa/plain");
    let refused = client.fetch_jwtsvid(jwt("test:greeter", &["vault"], &other)).await.unwrap_err();
    assert_eq!(error_info(&refused), "WORKLOAD_NOT_ENTITLED", "{refused}");
    for bad in [&[][..], &[""]] {
        let refused = client.fetch_jwtsvid(jwt("test:greeter", bad, "")).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{bad:?}: {refused}");
    }
    let huge = "x".repeat(BROKER_REQUEST_BYTES);
    let refused = client.fetch_jwtsvid(jwt("test:greeter", &[&huge], "")).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    assert!(client.fetch_jwtsvid(jwt("test:plain", &["vault"], "")).await.is_ok());
    // Its key was not granted to leave, whatever the broker may have.
    let request = SubscribeToX509svidRequest { reference: Some(mesh.reference(host, "test:plain")) };
    let refused = end(client.subscribe_to_x509svid(request).await).await;
    assert_eq!(error_info(&refused), "WORKLOAD_NOT_ENTITLED", "{refused}");
    host.record(&[("kind", "denial"), ("component", "test:plain")]);
    // And a broker that may have tokens only gets no key of one whose key may leave.
    let tokens = Broker::new(host, "tokens").await;
    let mut client = tokens.client().await;
    assert!(client.fetch_jwtsvid(jwt("test:greeter", &["vault"], "")).await.is_ok());
    let request = SubscribeToX509svidRequest { reference: Some(tokens.reference(host, "test:greeter")) };
    let refused = end(client.subscribe_to_x509svid(request).await).await;
    assert_eq!(error_info(&refused), "WORKLOAD_NOT_ENTITLED", "{refused}");
}

async fn be_02_only_listed_brokers_with_an_svid_are_served(host: &Host) {
    let stranger = Broker::new(host, "stranger").await;
    let mut client = stranger.client().await;
    let request = FetchJwtsvidRequest {
        reference: Some(stranger.reference(host, "test:greeter")),
        audience: vec!["vault".into()],
        spiffe_id: String::new(),
    };
    let refused = client.fetch_jwtsvid(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    // Without TLS, and with TLS but without a certificate, nothing is answered.
    let mut plain = UnixStream::connect(socket(host)).await.unwrap();
    let _ = plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(portcullis_tests::patience::LONG, plain.read_to_end(&mut answer))
        .await
        .expect("it hangs up");
    // A TLS alert at most: no HTTP/2 SETTINGS frame.
    assert!(answer.first().is_none_or(|byte| *byte == 0x15), "{answer:?}");
    // A client that pins another server finds nobody.
    let mut wrong = Broker::new(host, "mesh").await;
    wrong.server = format!("spiffe://{TRUST_DOMAIN}/ns/test/sa/greeter");
    assert!(wrong.channel().await.is_err());
}

async fn br_05_streams_end_when_the_workload_ends(host: &Host, mesh: &Broker) {
    let mut client = mesh.client().await;
    let reference = mesh.reference(host, "test:greeter");
    let request = SubscribeToX509svidRequest { reference: Some(reference.clone()) };
    let mut svids = client.subscribe_to_x509svid(request).await.unwrap().into_inner();
    let request = SubscribeToX509BundlesRequest { reference: Some(reference.clone()) };
    let mut bundles = client.subscribe_to_x509_bundles(request).await.unwrap().into_inner();
    assert!(svids.message().await.unwrap().is_some() && bundles.message().await.unwrap().is_some());
    assert!(http::get(host.http(), "/greeter", &[]).status > 0);
    host.run(["stop", "test:greeter"]).ok();
    for ended in [
        tokio::time::timeout(portcullis_tests::patience::LONG, svids.message())
            .await
            .expect("within seconds")
            .unwrap_err(),
        tokio::time::timeout(portcullis_tests::patience::LONG, bundles.message())
            .await
            .expect("within seconds")
            .unwrap_err(),
    ] {
        assert_eq!((ended.code(), error_info(&ended).as_str()), (Code::NotFound, "WORKLOAD_NOT_FOUND"), "{ended}");
    }
    let request =
        FetchJwtsvidRequest { reference: Some(reference), audience: vec!["vault".into()], spiffe_id: String::new() };
    assert_eq!(client.fetch_jwtsvid(request).await.unwrap_err().code(), Code::NotFound);
}

/// A broker with an identity of its own.
struct Broker {
    id: String,
    svid: X509Svid,
    bundles: BundleSet,
    server: String,
    socket: PathBuf,
}

impl Broker {
    async fn new(host: &Host, name: &str) -> Self {
        let client = WorkloadApiClient::connect_to(workload::endpoint(host)).await.unwrap();
        let svids = client.fetch_all_x509_svids().await.unwrap();
        let svid = svids.into_iter().find(|svid| svid.hint() == Some(name)).expect("an identity of the broker");
        let json = host.run(["identity", "bundle"]).ok().out;
        let document = BundleDocument::parse(&TRUST_DOMAIN.parse().unwrap(), json.as_bytes()).unwrap();
        Self {
            id: svid.spiffe_id().to_string(),
            svid: X509Svid::clone(&svid),
            bundles: BundleSet::new(Arc::new(document)),
            server: format!("spiffe://{TRUST_DOMAIN}/portcullis/host"),
            socket: socket(host),
        }
    }

    /// A connection to the broker endpoint, which must be the host.
    async fn channel(&self) -> Result<Channel, tonic::transport::Error> {
        let chain: Vec<Vec<u8>> =
            self.svid.cert_chain().iter().map(|certificate| certificate.as_bytes().to_vec()).collect();
        let svid = Arc::new(Svid {
            spiffe_id: self.id.parse().unwrap(),
            chain,
            key_id: "own".to_owned(),
            not_after: time::OffsetDateTime::now_utc() + time::Duration::HOUR,
        });
        let key = Arc::new(Key(self.svid.private_key().as_bytes().to_vec()));
        let connector = connector(&svid, key, self.bundles.trust(), &self.server.parse().unwrap()).unwrap();
        let connector = connector.with_protocols(&[b"h2"]);
        let socket = self.socket.clone();
        let connect = tower::service_fn(move |_| {
            let (connector, socket) = (connector.clone(), socket.clone());
            async move {
                let stream = UnixStream::connect(socket).await?;
                let (stream, _) = connector.connect("localhost", stream).await.map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        });
        Endpoint::from_static("http://localhost").connect_with_connector(connect).await
    }

    async fn client(&self) -> Client<SecurityHeader> {
        ApiClient::with_interceptor(self.channel().await.unwrap(), SecurityHeader::new())
    }

    /// All that is known of a running component.
    fn facts(&self, host: &Host, component: &str) -> ComponentReference {
        let list = host.run(["list"]).ok().json();
        let found = list.as_array().unwrap().iter().find(|found| found["name"] == component);
        let found = found.unwrap_or_else(|| panic!("{component} does not run: {list:#}"));
        let text = |key: &str| found[key].as_str().map(str::to_owned).unwrap_or_default();
        assert!(!text("digest").is_empty(), "{found:#}");
        ComponentReference {
            host_spiffe_id: self.server.clone(),
            instance_id: text("instance"),
            component_digest: text("digest"),
            component: component.to_owned(),
            signer: String::new(),
        }
    }

    fn reference(&self, host: &Host, component: &str) -> WorkloadReference {
        packed(COMPONENT_REFERENCE, &self.facts(host, component))
    }
}

/// Signs handshakes with a key that the Workload API gave.
struct Key(Vec<u8>);

impl HandshakeSigner for Key {
    fn sign(&self, _: &str, message: &[u8]) -> Result<Vec<u8>, String> {
        let random = ring::rand::SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &self.0, &random).unwrap();
        Ok(pair.sign(&random, message).unwrap().as_ref().to_vec())
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

fn packed(type_url: &str, reference: &ComponentReference) -> WorkloadReference {
    let any = prost_types::Any { type_url: type_url.to_owned(), value: reference.encode_to_vec() };
    // Both bindings come from one `.proto`.
    let same = ours::WorkloadReference { reference: Some(any.clone()) }.encode_to_vec();
    let reference = WorkloadReference { reference: Some(any) };
    assert_eq!(reference.encode_to_vec(), same);
    reference
}

fn socket(host: &Host) -> PathBuf {
    host.site().file("broker.sock")
}

/// How a stream that cannot be had ends, wherever it says so.
async fn end<M: std::fmt::Debug>(answer: Result<tonic::Response<tonic::Streaming<M>>, Status>) -> Status {
    match answer {
        Ok(stream) => stream.into_inner().message().await.unwrap_err(),
        Err(status) => status,
    }
}

/// The reason of the `google.rpc.ErrorInfo` in a status, as other code reads it.
fn error_info(status: &Status) -> String {
    #[derive(Clone, PartialEq, Message)]
    struct Model {
        #[prost(message, repeated, tag = "3")]
        details: Vec<prost_types::Any>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct ErrorInfo {
        #[prost(string, tag = "1")]
        reason: String,
        #[prost(string, tag = "2")]
        domain: String,
    }
    let model = Model::decode(status.details()).unwrap();
    let Some(any) = model.details.first() else { return String::new() };
    assert_eq!(any.type_url, "type.googleapis.com/google.rpc.ErrorInfo");
    let info = ErrorInfo::decode(any.value.as_slice()).unwrap();
    assert_eq!(info.domain, "spiffe.io");
    info.reason
}

#[test]
fn be_02_the_socket_is_its_owners_and_gone_when_the_host_is() {
    use std::os::unix::fs::PermissionsExt;
    let host = Host::ready(site());
    let path = socket(&host);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let status: Value = host.ask_status(0);
    assert_eq!(status["ready"], true);
    let site = host.stop();
    assert!(!Path::new(&path).exists());
    drop(site);
}
