//! One HTTP/1.1 request over loopback, for the demo.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Sends `GET path` to a loopback port. The error is for a person.
pub async fn get(port: u16, path: &str, headers: &[(&str, &str)]) -> Result<(StatusCode, Bytes), String> {
    tokio::time::timeout(PATIENCE, ask(port, path, headers))
        .await
        .unwrap_or_else(|_| Err("no answer in time".to_owned()))
}

async fn ask(port: u16, path: &str, headers: &[(&str, &str)]) -> Result<(StatusCode, Bytes), String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let mut request = Request::builder().uri(path).header("host", format!("127.0.0.1:{port}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
    Ok((status, body.to_bytes()))
}

const PATIENCE: Duration = Duration::from_secs(30);
