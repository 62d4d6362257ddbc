//! One GET of a bundle over a connection whose server was verified (SPIFFE_Federation section 5.2): HTTP/1.1, no credentials,
//! a bounded answer. Decides what the answer means; opens nothing.

use http::header::{ACCEPT, CONTENT_ENCODING, HOST, LOCATION, USER_AGENT};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::bundle_url::{BundleUrl, BundleUrlError};
use crate::excerpt::Excerpt;
use crate::limits::{MAX_BUNDLE_BYTES, MAX_HEAD_BYTES};

/// What a server answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A document.
    Document(Vec<u8>),
    /// It is elsewhere for now.
    Redirect(BundleUrl),
}

/// Why there is no document. The server erred, or the network.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The connection broke, or it is no HTTP.
    #[error("the exchange failed: {0}")]
    Http(Excerpt),
    /// Neither a document nor a redirect.
    #[error("the server answered {0}")]
    Status(StatusCode),
    /// SPIFFE_Federation section 5.1.2: redirects are temporary.
    #[error("the server redirects for good ({0})")]
    Permanent(StatusCode),
    /// A redirect to nowhere.
    #[error("the server redirects to what is no bundle URL: {0}")]
    Location(#[from] BundleUrlError),
    /// Compressed, though nobody asked for that.
    #[error("the answer has the content encoding {0}")]
    Encoding(Excerpt),
    /// Over [`MAX_BUNDLE_BYTES`].
    #[error("the answer is larger than {MAX_BUNDLE_BYTES} bytes")]
    TooLarge,
}

impl ExchangeError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Http(_) => "see that a bundle endpoint answers at this URL",
            Self::Status(_) => "ask the peer's operator for the URL of the bundle endpoint",
            Self::Permanent(_) | Self::Location(_) => "configure the URL that the endpoint is at now",
            Self::Encoding(_) | Self::TooLarge => "the peer's endpoint must serve the plain bundle document",
        }
    }
}

/// Asks for the bundle at `url` over a connection to its server.
pub(super) async fn get<S>(url: &BundleUrl, stream: S) -> Result<Answer, ExchangeError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |error: &hyper::Error| ExchangeError::Http(Excerpt::new(&error.to_string()));
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    let request = Request::get(url.target())
        .header(HOST, url.authority())
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, "portcullis")
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| ExchangeError::Http(Excerpt::new(&error.to_string())))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        if let Some(redirect) = redirect(url, response.status(), response.headers())? {
            return Ok(Answer::Redirect(redirect));
        }
        match Limited::new(response.into_body(), MAX_BUNDLE_BYTES).collect().await {
            Ok(body) => Ok(Answer::Document(body.to_bytes().to_vec())),
            Err(error) if error.is::<LengthLimitError>() => Err(ExchangeError::TooLarge),
            Err(error) => Err(ExchangeError::Http(Excerpt::new(&error.to_string()))),
        }
    };
    // The connection is driven by this call and ends with it.
    tokio::pin!(connection);
    tokio::pin!(exchange);
    let mut closed = false;
    loop {
        tokio::select! {
            biased;
            answer = &mut exchange => return answer,
            _ = &mut connection, if !closed => closed = true,
        }
    }
}

/// Where the answer leads; `None`: it is the document itself.
fn redirect(url: &BundleUrl, status: StatusCode, headers: &HeaderMap) -> Result<Option<BundleUrl>, ExchangeError> {
    match status {
        StatusCode::OK => match headers.get(CONTENT_ENCODING) {
            Some(encoding) if encoding != "identity" => {
                Err(ExchangeError::Encoding(Excerpt::new(&String::from_utf8_lossy(encoding.as_bytes()))))
            }
            _ => Ok(None),
        },
        StatusCode::FOUND | StatusCode::SEE_OTHER | StatusCode::TEMPORARY_REDIRECT => {
            let location = headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
            Ok(Some(url.redirected(location)?))
        }
        StatusCode::MOVED_PERMANENTLY | StatusCode::PERMANENT_REDIRECT => Err(ExchangeError::Permanent(status)),
        other => Err(ExchangeError::Status(other)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn answered(answer: Vec<u8>) -> Result<Answer, ExchangeError> {
        let (near, mut far) = tokio::io::duplex(64 << 10);
        let server = tokio::spawn(async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if far.read(&mut byte).await.unwrap_or(0) == 0 {
                    break;
                }
                request.extend_from_slice(&byte);
            }
            let _ = far.write_all(&answer).await;
            String::from_utf8(request).unwrap()
        });
        let result = get(&"https://a:8443/x?y".parse().unwrap(), near).await;
        let request = server.await.unwrap();
        assert!(request.starts_with("GET /x?y HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("host: a:8443\r\n") && !request.to_ascii_lowercase().contains("authorization"));
        result
    }

    fn response(head: &str, body: &[u8]) -> Vec<u8> {
        [format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
    }

    #[tokio::test]
    async fn a_document_is_taken_whatever_its_type_is_called() {
        for head in ["200 OK", "200 OK\r\ncontent-type: application/json", "200 OK\r\ncontent-encoding: identity"] {
            assert_eq!(answered(response(head, b"{}")).await.unwrap(), Answer::Document(b"{}".to_vec()));
        }
    }

    #[tokio::test]
    async fn fe_05_temporary_redirects_are_told_and_permanent_ones_refused() {
        for code in ["302 F", "303 S", "307 T"] {
            let answer = answered(response(&format!("{code}\r\nlocation: https://b/z"), b"")).await.unwrap();
            assert_eq!(answer, Answer::Redirect("https://b/z".parse().unwrap()));
        }
        for code in ["301 M", "308 P"] {
            let answer = answered(response(&format!("{code}\r\nlocation: https://b/z"), b"")).await;
            assert!(matches!(answer, Err(ExchangeError::Permanent(_))), "{code}");
        }
        for head in ["302 F", "302 F\r\nlocation: http://b/", "307 T\r\nlocation: https://u@b/"] {
            assert!(matches!(answered(response(head, b"")).await, Err(ExchangeError::Location(_))), "{head}");
        }
    }

    #[tokio::test]
    async fn other_answers_and_no_answer_are_refused() {
        for code in ["204 N", "206 P", "401 U", "404 N", "500 E", "304 N"] {
            assert!(matches!(answered(response(code, b"")).await, Err(ExchangeError::Status(_))), "{code}");
        }
        let zipped = answered(response("200 OK\r\ncontent-encoding: gzip", b"x")).await;
        assert!(matches!(zipped, Err(ExchangeError::Encoding(_))));
        for bytes in [&b""[..], b"\0\0\0", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}"] {
            assert!(matches!(answered(bytes.to_vec()).await, Err(ExchangeError::Http(_))));
        }
    }

    #[tokio::test]
    async fn an_answer_of_the_largest_size_passes_and_one_more_byte_is_refused() {
        let document = answered(response("200 OK", &vec![b' '; MAX_BUNDLE_BYTES])).await.unwrap();
        assert!(matches!(document, Answer::Document(bytes) if bytes.len() == MAX_BUNDLE_BYTES));
        let large = answered(response("200 OK", &vec![b' '; MAX_BUNDLE_BYTES + 1])).await;
        assert!(matches!(large, Err(ExchangeError::TooLarge)));
        let head = format!("200 OK\r\nx: {}", "x".repeat(MAX_HEAD_BYTES));
        assert!(matches!(answered(response(&head, b"{}")).await, Err(ExchangeError::Http(_))));
    }
}
