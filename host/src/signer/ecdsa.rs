//! The two forms of an ECDSA P-256 signature: two numbers of 32 bytes (PKCS#11, JWS), and DER (X.509, Sigstore, key services).

/// Bytes of each number.
const NUMBER: usize = 32;

/// The DER of a signature that is given as its two numbers.
pub(super) fn der(pair: &[u8]) -> Option<Vec<u8>> {
    if pair.len() != 2 * NUMBER {
        return None;
    }
    let (r, s) = pair.split_at(NUMBER);
    let body = [integer(r), integer(s)].concat();
    let length = u8::try_from(body.len()).ok()?;
    Some([&[0x30, length], body.as_slice()].concat())
}

/// X.690 8.3: no more leading zeros than the sign needs.
fn integer(number: &[u8]) -> Vec<u8> {
    let start = number.iter().position(|byte| *byte != 0).unwrap_or(number.len().saturating_sub(1));
    let digits = number.get(start..).unwrap_or_default();
    let sign: &[u8] = if digits.first().is_some_and(|byte| *byte >= 0x80) { &[0] } else { &[] };
    let length = u8::try_from(sign.len() + digits.len()).unwrap_or_default();
    [&[0x02, length], sign, digits].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_sign_byte_where_they_need_it_and_no_leading_zeros() {
        let mut pair = [0u8; 64];
        pair[31] = 1;
        pair[32] = 0x80;
        let expected = [&[0x30, 3 + 2 + 33, 2, 1, 1, 2, 33, 0, 0x80][..], &[0; 31]].concat();
        assert_eq!(der(&pair), Some(expected));
        assert_eq!(der(&[0; 64]), Some(vec![0x30, 6, 2, 1, 0, 2, 1, 0]));
        assert_eq!(der(&[0; 63]), None);
    }
}
