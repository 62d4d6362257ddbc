//! Account JWTs in `resolver_preload`: their claims, not their signatures (the server checks those against its operator).

use serde_json::Value;

use crate::limits::SERVER_BYTES;

/// The claims of a JWT.
pub(super) fn claims(token: &str) -> Option<Value> {
    if token.len() > SERVER_BYTES {
        return None;
    }
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&decode(payload)?).ok()
}

/// base64url without padding (RFC 4648 section 5).
fn decode(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut buffer, mut bits) = (Vec::with_capacity(text.len() / 4 * 3 + 2), 0_u32, 0_u32);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        buffer = (buffer << 6 | u32::from(value)) & 0xffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((buffer >> bits) & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claims_of_a_token_are_read_and_noise_is_not() {
        // {"nats":{"a":"?>"}}
        let token = "e30.eyJuYXRzIjp7ImEiOiI_PiJ9fQ.x";
        assert_eq!(claims(token).unwrap()["nats"]["a"], "?>");
        for noise in ["", "a", "a.b", "a.!!.c", "a.e30", "a.eyJ9.c"] {
            let read = claims(noise);
            assert!(read.is_none() || read == Some(serde_json::json!({})), "{noise}");
        }
    }
}
