//! One outgoing GET through `wasi:http/outgoing-handler`, and what comes back of it.

use wasip2::http::outgoing_handler;
use wasip2::http::types::{ErrorCode, Fields, IncomingBody, OutgoingRequest, Scheme};
use wasip2::io::streams::StreamError;

use crate::error_name;

/// An answer to an outgoing request.
#[derive(Debug)]
pub struct Fetched {
    pub status: u16,
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum FetchError {
    /// The URL, or a header, could not be put into a request; nothing was sent.
    Malformed(&'static str),
    /// The host gave this error code.
    Code(ErrorCode),
    /// The answer broke off while its body was read.
    Body,
}

impl FetchError {
    /// The name of the WASI error code as WIT writes it, or of the step that failed.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Malformed(what) => what,
            Self::Code(code) => error_name(code),
            Self::Body => "response body broke off",
        }
    }

    /// Whether the host refused the destination, as against a failure on the way to it.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Code(ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited))
    }
}

/// GETs `url` with the given headers and reads at most `limit` bytes of the body.
pub fn fetch(url: &str, headers: &[(&str, &str)], limit: usize) -> Result<Fetched, FetchError> {
    let future = outgoing_handler::handle(request(url, headers)?, None).map_err(FetchError::Code)?;
    future.subscribe().block();
    let response = match future.get() {
        Some(Ok(outcome)) => outcome.map_err(FetchError::Code)?,
        Some(Err(())) | None => return Err(FetchError::Body),
    };
    let status = response.status();
    let body = response.consume().map_err(|()| FetchError::Body)?;
    Ok(Fetched { status, body: read_body(&body, limit).map_err(|_| FetchError::Body)? })
}

/// Reads a body up to `limit` bytes; what follows is left unread.
pub fn read_body(body: &IncomingBody, limit: usize) -> Result<Vec<u8>, StreamError> {
    let Ok(stream) = body.stream() else { return Err(StreamError::Closed) };
    let mut bytes = Vec::new();
    while let Some(room) = limit.checked_sub(bytes.len()).filter(|room| *room > 0) {
        match stream.blocking_read(room as u64) {
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(StreamError::Closed) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

fn request(url: &str, headers: &[(&str, &str)]) -> Result<OutgoingRequest, FetchError> {
    let (scheme, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (Scheme::Https, rest),
        (_, Some(rest)) => (Scheme::Http, rest),
        (None, None) => return Err(FetchError::Malformed("URL is neither http:// nor https://")),
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let cut = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(cut);
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };

    let fields = Fields::new();
    for (name, value) in headers {
        fields.append(name, value.as_bytes()).map_err(|_| FetchError::Malformed("header was not accepted"))?;
    }
    let request = OutgoingRequest::new(fields);
    request.set_scheme(Some(&scheme)).map_err(|()| FetchError::Malformed("scheme was not accepted"))?;
    request.set_authority(Some(authority)).map_err(|()| FetchError::Malformed("authority was not accepted"))?;
    request.set_path_with_query(Some(&path)).map_err(|()| FetchError::Malformed("path was not accepted"))?;
    Ok(request)
}
