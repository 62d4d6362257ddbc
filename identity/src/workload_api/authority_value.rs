//! What may stand in an `:authority` and what stands in its place.
//!
//! Clients put the path of the Unix socket there, percent-encoded or as it is, which is no authority (RFC 3986 section 3.2),
//! so an HTTP/2 server must refuse the request. On a Unix socket the authority names nobody; each octet that cannot be in
//! one is replaced by one that can, of the same length in the encoding at hand.

use super::huffman::code_of;

/// Looks at the octets of one `:authority` in their order.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AuthorityValue {
    bracket: Bracket,
    colon: bool,
    begun: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Bracket {
    #[default]
    No,
    Open,
    Closed,
}

impl AuthorityValue {
    /// Whether this octet may stay where it stands.
    pub(super) fn may_stay(&mut self, octet: u8) -> bool {
        let first = !std::mem::replace(&mut self.begun, true);
        match (octet, self.bracket) {
            (b'[', _) if first => {
                self.bracket = Bracket::Open;
                true
            }
            (b']', Bracket::Open) => {
                self.bracket = Bracket::Closed;
                true
            }
            (b':', Bracket::Open) => true,
            (b':', _) => !std::mem::replace(&mut self.colon, true),
            (b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~', _) => true,
            (b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=', _) => true,
            _ => false,
        }
    }
}

/// What an octet that may not stay is replaced by.
pub(super) const PLAIN: u8 = b'-';

/// The Huffman code of the same length that an octet's code is replaced by. There is none for a few octets; they stay, and
/// the request is refused.
pub(super) fn huffman(bits: u8) -> Option<u32> {
    let octet = match bits {
        6 => b'-',
        7 => b'B',
        8 => b'X',
        10 => b'!',
        11 => b'+',
        13 => b'~',
        _ => return None,
    };
    let (code, length) = code_of(octet);
    (length == bits).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(text: &str) -> String {
        let mut value = AuthorityValue::default();
        text.bytes().map(|octet| if value.may_stay(octet) { octet } else { PLAIN }).map(char::from).collect()
    }

    #[test]
    fn authorities_stay_and_paths_become_authorities() {
        for text in
            ["localhost", "localhost:80", "10.0.0.1:8081", "[::1]:80", "[fe80::1]", "a_b~c", "a!$&'()*+,;=b", ""]
        {
            assert_eq!(rewritten(text), text);
        }
        for (text, wanted) in [
            ("tmp%2Fdir%2Fapi.sock", "tmp-2Fdir-2Fapi.sock"),
            ("/run/spire/api.sock", "-run-spire-api.sock"),
            ("unix:/run/a:b.sock", "unix:-run-a-b.sock"),
            ("a[::1]", "a-:-1-"),
            ("a@b?c#d e\\f", "a-b-c-d-e-f"),
            ("[::1]]", "[::1]-"),
        ] {
            assert_eq!(rewritten(text), wanted);
            assert!(wanted.parse::<http::uri::Authority>().is_ok() || wanted.contains(']'), "{wanted}");
        }
    }

    #[test]
    fn what_replaces_a_huffman_code_is_as_long_and_may_stay() {
        for bits in 0..=30 {
            if let Some(code) = huffman(bits) {
                let octet = (0..=255_u8).find(|octet| code_of(*octet) == (code, bits)).unwrap();
                assert!(AuthorityValue::default().may_stay(octet), "{octet}");
            }
        }
        // The octets of paths, plain and percent-encoded.
        for octet in *b"%/ @[]:" {
            assert!(huffman(code_of(octet).1).is_some(), "{octet}");
        }
    }
}
