//! The address for Prometheus and for whoever looks whether the callout is ready: `/metrics`, `/readyz`, `/livez`, nothing else.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::service::Shared;
use crate::limits::{METRICS_CONNECTIONS, METRICS_TIMEOUT};

/// Serves until the process ends.
pub async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let free = Arc::new(Semaphore::new(METRICS_CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(METRICS_TIMEOUT / 100).await;
            continue;
        };
        // Over the limit it is closed: whoever scrapes comes again.
        let Ok(place) = Arc::clone(&free).try_acquire_owned() else { continue };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let _place = place;
            let _ = tokio::time::timeout(METRICS_TIMEOUT, connection(shared, stream)).await;
        });
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream) -> Result<(), hyper::Error> {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let response = answer(&shared, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(METRICS_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(8 << 10)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (StatusCode::OK, shared.page()),
        (&Method::GET, "/livez") => (StatusCode::OK, "alive\n".to_owned()),
        (&Method::GET, "/readyz") => match shared.problems.lines() {
            problems if problems.is_empty() => (StatusCode::OK, "ready\n".to_owned()),
            // The causes are for the log: whoever reaches this address learns only their names.
            problems => {
                let names = problems.iter().map(|line| line.split(':').next().unwrap_or_default());
                (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", names.collect::<Vec<_>>().join(", ")))
            }
        },
        (&Method::GET, _) => (StatusCode::NOT_FOUND, "see /metrics, /readyz, /livez\n".to_owned()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
