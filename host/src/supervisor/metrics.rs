//! The metrics address: one page for Prometheus, put together from what this process knows, what the runtime says of itself and
//! the page of the identity process; and one word each for probes, `/readyz` and `/livez`. It answers nothing else, holds no
//! secret, and is off unless configured.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::Host;
use crate::limits::{METRICS_BYTES, METRICS_CONNECTIONS, METRICS_TIMEOUT};
use crate::metrics::{Kind, Page};

/// Serves the address for as long as the host lives.
pub async fn serve(host: Arc<Host>, listener: TcpListener) {
    let free = Arc::new(Semaphore::new(METRICS_CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection to the metrics address failed");
                tokio::time::sleep(METRICS_TIMEOUT / 100).await;
                continue;
            }
        };
        // Over the limit it is closed: whoever scrapes comes again.
        let Ok(place) = Arc::clone(&free).try_acquire_owned() else { continue };
        let host = Arc::clone(&host);
        tokio::spawn(async move {
            let _place = place;
            let _ = tokio::time::timeout(METRICS_TIMEOUT, connection(host, stream)).await;
        });
    }
}

async fn connection(host: Arc<Host>, stream: TcpStream) -> Result<(), hyper::Error> {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let host = Arc::clone(&host);
        async move { Ok::<_, Infallible>(answer(&host, &request).await) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(METRICS_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer(host: &Arc<Host>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (StatusCode::OK, page(host).await),
        (&Method::GET, "/readyz") => readiness(host).await,
        // Whoever answers is alive: a child that died is started again by it.
        (&Method::GET, "/livez") => (StatusCode::OK, "alive\n".to_owned()),
        (_, "/metrics" | "/readyz" | "/livez") => (StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "see /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Whether requests are to come here; `portcullis status` says why not.
async fn readiness(host: &Arc<Host>) -> (StatusCode, String) {
    match (host.problems().await.is_empty(), host.warnings().is_empty()) {
        (true, true) => (StatusCode::OK, "ready\n".to_owned()),
        (true, false) => (StatusCode::OK, "ready, with warnings\n".to_owned()),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()),
    }
}

async fn page(host: &Arc<Host>) -> String {
    let (runtime, identity, problems) = tokio::join!(host.runtime_status(), host.identity.metrics(), host.problems());
    let mut page = Page::default();
    let gauge = |page: &mut Page, name: &str, help: &str, value: u64| page.number(name, Kind::Gauge, help, value);
    gauge(&mut page, "portcullis_ready", "Whether the host is ready.", u64::from(problems.is_empty()));
    let warnings = u64::try_from(host.warnings().len()).unwrap_or(u64::MAX);
    gauge(&mut page, "portcullis_warnings", "Warnings of `portcullis status`: served still, look soon.", warnings);
    if let Some(age) = host.cluster.as_ref().and_then(|cluster| cluster.revocations_age()) {
        let help = "Seconds since the cluster's revocations were last looked at.";
        gauge(&mut page, "portcullis_cluster_revocations_age_seconds", help, age);
    }
    gauge(&mut page, "portcullis_policy_generation", "The policy in force.", host.policy().generation());
    let running = u64::try_from(host.running().len()).unwrap_or(u64::MAX);
    let refused = host.refused.lock().map(|refused| refused.len()).unwrap_or_default();
    let refused = u64::try_from(refused).unwrap_or(u64::MAX);
    page.family(
        "portcullis_components",
        Kind::Gauge,
        "Components by state.",
        [(&[("state", "running")][..], running), (&[("state", "refused")][..], refused)],
    );
    page.family(
        "portcullis_process_up",
        Kind::Gauge,
        "Whether a process of this host is up.",
        [
            (&[("process", "identity")][..], u64::from(host.identity_process.now().is_some())),
            (&[("process", "runtime")][..], u64::from(host.runtime_process.now().is_some())),
        ],
    );
    page.family(
        "portcullis_process_restarts_total",
        Kind::Counter,
        "Restarts of a process.",
        [
            (&[("process", "identity")][..], host.identity_process.restarts()),
            (&[("process", "runtime")][..], host.runtime_process.restarts()),
        ],
    );
    if let Some(runtime) = runtime {
        let counter = |page: &mut Page, name: &str, help: &str, value| page.number(name, Kind::Counter, help, value);
        counter(&mut page, "portcullis_requests_total", "Requests of the gateway.", runtime.requests);
        counter(
            &mut page,
            "portcullis_requests_busy_total",
            "Requests refused for lack of room.",
            runtime.refused_busy,
        );
        counter(&mut page, "portcullis_guest_failures_total", "Requests that guests spoilt.", runtime.guest_failures);
        counter(&mut page, "portcullis_events_lost_total", "Decisions that were not recorded.", runtime.events_lost);
        gauge(&mut page, "portcullis_requests_in_flight", "Requests being served.", runtime.in_flight);
    }
    if let Some(nats) = host.nats() {
        let verified = matches!(&*nats.state().borrow(), crate::nats::State::Verified { .. });
        let counts = nats.counts();
        let counter = |page: &mut Page, name: &str, help: &str, value| page.number(name, Kind::Counter, help, value);
        let help = "Whether the server has said that it takes this host for who it is.";
        gauge(&mut page, "portcullis_nats_verified", help, u64::from(verified));
        counter(&mut page, "portcullis_nats_attempts_total", "Attempts to connect to NATS.", counts.attempts);
        counter(&mut page, "portcullis_nats_connections_total", "Connections that were verified.", counts.verified);
        counter(&mut page, "portcullis_nats_refused_total", "Times that the server refused this host.", counts.refused);
        counter(&mut page, "portcullis_nats_denied_total", "Subjects that the server denied.", counts.denied);
    }
    let mut text = page.into_text();
    match identity {
        Ok(identity) => text.push_str(&own_lines(&identity)),
        Err(error) => tracing::debug!(%error, "no metrics of the identity process"),
    }
    text
}

/// Of the page of the identity process only what is its own: no other process's numbers are taken from it. Nothing of a page that
/// is too large.
fn own_lines(text: &str) -> String {
    if text.len() > METRICS_BYTES {
        return String::new();
    }
    let own = |line: &&str| {
        let name = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE ")).unwrap_or(line);
        name.starts_with("portcullis_identity_")
    };
    text.lines().filter(own).flat_map(|line| [line, "\n"]).collect()
}

/// The listener on an address of the configuration.
pub fn bind(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Largest head of a request.
const HEAD_BYTES: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_other_families_and_text_that_is_no_metric_are_left_out() {
        let text = "# HELP portcullis_identity_a A.\n# TYPE portcullis_identity_a gauge\nportcullis_identity_a{x=\"y\"} 1\n\
                    portcullis_ready 1\n# HELP portcullis_ready R.\nrubbish\n";
        let kept: Vec<_> = own_lines(text).lines().map(str::to_owned).collect();
        assert_eq!(kept.len(), 3);
        assert!(kept.iter().all(|line| line.contains("portcullis_identity_a")));
    }

    #[test]
    fn a_page_that_is_too_large_is_left_out() {
        let line = "portcullis_identity_a 1\n";
        let most = line.repeat(METRICS_BYTES / line.len());
        assert_eq!(own_lines(&most).len(), most.len());
        assert!(own_lines(&(most + &line.repeat(2))).is_empty());
    }
}
