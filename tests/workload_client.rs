//! gRPC calls of the Workload API without the conveniences of a client library. Shared by two tests.

use std::path::Path;

use tonic::Request;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};

/// A connection to a socket.
pub async fn channel(socket: &Path) -> Channel {
    let path = socket.to_owned();
    let connect = tower::service_fn(move |_| {
        let path = path.clone();
        async move { Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(tokio::net::UnixStream::connect(path).await?)) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connect).await.unwrap()
}

/// A request with these values of the security header.
pub fn with<T>(header: &[&'static str], message: T) -> Request<T> {
    let mut request = Request::new(message);
    for value in header {
        request.metadata_mut().append("workload.spiffe.io", MetadataValue::from_static(value));
    }
    request
}

/// A request as it should be.
pub fn call<T>(message: T) -> Request<T> {
    with(&["true"], message)
}
