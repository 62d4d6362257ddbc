//! DER as PEM (RFC 7468). What is secret in it is wiped.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// A block of PEM with this label.
pub fn block(label: &str, der: &[u8]) -> Zeroizing<String> {
    let encoded = Zeroizing::new(STANDARD.encode(der));
    let lines = encoded.len().div_ceil(LINE);
    // As large as it gets: a text that grew would leave copies of itself behind.
    let mut text = Zeroizing::new(String::with_capacity(encoded.len() + lines + 2 * (label.len() + FRAME)));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at_checked(LINE).unwrap_or((rest, ""));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// The certificates in concatenated DER, one block each; `None` where something else is in it.
pub fn certificates(mut der: &[u8]) -> Option<String> {
    let mut text = String::new();
    while !der.is_empty() {
        let (rest, _) = x509_parser::parse_x509_certificate(der).ok()?;
        let one = der.get(..der.len().checked_sub(rest.len())?)?;
        text.push_str(&block("CERTIFICATE", one));
        der = rest;
    }
    Some(text)
}

/// Characters in a line.
const LINE: usize = 64;
/// Characters of a first or last line besides the label.
const FRAME: usize = 17;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_read_back_whatever_its_length() {
        for length in [1, 47, 48, 49, 96, 1000] {
            let der = vec![7; length];
            let text = block("PRIVATE KEY", &der);
            assert!(text.capacity() >= text.len() && text.lines().all(|line| line.len() <= LINE));
            let read: Vec<_> = x509_parser::pem::Pem::iter_from_buffer(text.as_bytes()).map(Result::unwrap).collect();
            assert_eq!(
                read.iter().map(|pem| (pem.label.as_str(), &pem.contents)).collect::<Vec<_>>(),
                [("PRIVATE KEY", &der)]
            );
        }
    }

    #[test]
    fn what_is_no_certificate_gives_no_text() {
        assert_eq!(certificates(&[]).as_deref(), Some(""));
        assert_eq!(certificates(&[0x30, 3, 1, 1, 1]), None);
    }
}
