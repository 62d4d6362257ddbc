//! The Workload API as the standard writes it down (SPIFFE Workload API, appendix A; WIT-SVID profile), spoken without the
//! server's own generated code: field numbers and paths stand here once more, from the text of the standard.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::uri::PathAndQuery;
use prost::Message;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// What a request without content looks like.
#[derive(Clone, PartialEq, Message)]
pub struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub struct X509SvidResponse {
    #[prost(message, repeated, tag = "1")]
    pub svids: Vec<X509Svid>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub crl: Vec<Vec<u8>>,
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub federated_bundles: std::collections::BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub struct X509Svid {
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    pub x509_svid: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub x509_svid_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub bundle: Vec<u8>,
    #[prost(string, tag = "5")]
    pub hint: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct X509BundlesResponse {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub crl: Vec<Vec<u8>>,
    #[prost(btree_map = "string, bytes", tag = "2")]
    pub bundles: std::collections::BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub struct JwtSvidRequest {
    #[prost(string, repeated, tag = "1")]
    pub audience: Vec<String>,
    #[prost(string, tag = "2")]
    pub spiffe_id: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct JwtSvidResponse {
    #[prost(message, repeated, tag = "1")]
    pub svids: Vec<JwtSvid>,
}

#[derive(Clone, PartialEq, Message)]
pub struct JwtSvid {
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    #[prost(string, tag = "2")]
    pub svid: String,
    #[prost(string, tag = "3")]
    pub hint: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct JwtBundlesResponse {
    #[prost(btree_map = "string, bytes", tag = "1")]
    pub bundles: std::collections::BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ValidateJwtSvidRequest {
    #[prost(string, tag = "1")]
    pub audience: String,
    #[prost(string, tag = "2")]
    pub svid: String,
}

/// The claims (a `google.protobuf.Struct`) are kept as bytes.
#[derive(Clone, PartialEq, Message)]
pub struct ValidateJwtSvidResponse {
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    #[prost(message, optional, tag = "2")]
    pub claims: Option<prost_types::Struct>,
}

#[derive(Clone, PartialEq, Message)]
pub struct WitSvidRequest {
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct WitSvidResponse {
    #[prost(message, repeated, tag = "1")]
    pub svids: Vec<WitSvid>,
}

#[derive(Clone, PartialEq, Message)]
pub struct WitSvid {
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    #[prost(string, tag = "2")]
    pub wit_svid: String,
    #[prost(string, tag = "3")]
    pub wit_svid_key: String,
    #[prost(string, tag = "4")]
    pub hint: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct WitBundlesResponse {
    #[prost(btree_map = "string, string", tag = "1")]
    pub bundles: std::collections::BTreeMap<String, String>,
}

/// What stands in the security header of a request (SPIFFE Workload Endpoint, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    Right,
    Missing,
    Wrong(&'static str),
    Twice,
}

/// A client of one Workload API socket.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
}

impl Client {
    /// Connects to a socket of the local machine.
    pub async fn connect(socket: &Path) -> Result<Self, tonic::transport::Error> {
        let socket: PathBuf = socket.to_owned();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost").connect_timeout(Duration::from_secs(60));
        Ok(Self { channel: endpoint.connect_with_connector(connector).await? })
    }

    /// One answer of a method.
    pub async fn unary<Q, A>(&self, method: &str, header: Header, request: Q) -> Result<A, Status>
    where
        Q: Message + Default + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut grpc = self.ready().await?;
        let called = grpc.unary(with(header, request), path(method)?, ProstCodec::<Q, A>::default());
        within(called).await.map(tonic::Response::into_inner)
    }

    /// The answers of a method that streams.
    pub async fn stream<Q, A>(&self, method: &str, header: Header, request: Q) -> Result<Streaming<A>, Status>
    where
        Q: Message + Default + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut grpc = self.ready().await?;
        let called = grpc.server_streaming(with(header, request), path(method)?, ProstCodec::<Q, A>::default());
        within(called).await.map(tonic::Response::into_inner)
    }

    /// The first answer of a method that streams.
    pub async fn first<Q, A>(&self, method: &str, header: Header, request: Q) -> Result<A, Status>
    where
        Q: Message + Default + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut stream = self.stream::<Q, A>(method, header, request).await?;
        within(stream.message()).await?.ok_or_else(|| Status::unknown("the stream ended without a message"))
    }

    /// The channel, for other services of the same socket.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    async fn ready(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(grpc)
    }
}

fn with<Q>(header: Header, request: Q) -> Request<Q> {
    let mut request = Request::new(request);
    let metadata = request.metadata_mut();
    match header {
        Header::Missing => {}
        Header::Right => drop(metadata.insert(NAME, MetadataValue::from_static("true"))),
        Header::Wrong(value) => drop(metadata.insert(NAME, MetadataValue::from_static(value))),
        Header::Twice => {
            metadata.append(NAME, MetadataValue::from_static("true"));
            metadata.append(NAME, MetadataValue::from_static("true"));
        }
    }
    request
}

fn path(method: &str) -> Result<PathAndQuery, Status> {
    PathAndQuery::try_from(format!("/SpiffeWorkloadAPI/{method}")).map_err(|error| Status::internal(error.to_string()))
}

async fn within<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(Duration::from_secs(60), call)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer within 10 s")))
}

const NAME: &str = "workload.spiffe.io";
