//! The target of a request: its path and its query, taken apart.

use wasip2::http::types::IncomingRequest;

/// Path and query of a request.
#[derive(Debug)]
pub struct Target {
    text: String,
}

impl Target {
    pub fn of(request: &IncomingRequest) -> Self {
        Self { text: request.path_with_query().unwrap_or_default() }
    }

    pub fn path(&self) -> &str {
        self.text.split('?').next().unwrap_or_default()
    }

    /// The value of a query parameter, percent-decoded. `None` if it is absent or its value is not percent-encoded UTF-8.
    pub fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.text.split_once('?')?;
        let (_, value) = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?;
        percent_decoded(value)
    }

    /// The value of a query parameter as a number, or `default` if it is absent or no number.
    pub fn number(&self, name: &str, default: u32) -> u32 {
        self.query(name).and_then(|value| value.parse().ok()).unwrap_or(default)
    }
}

/// Percent-decodes; `None` if an escape is broken or the bytes are not UTF-8.
pub fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' { digit(rest.next()?)? << 4 | digit(rest.next()?)? } else { byte });
    }
    String::from_utf8(bytes).ok()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok())
}
