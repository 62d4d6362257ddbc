//! The one kind of message that a component's X.509 key signs: the content of a TLS 1.3 CertificateVerify (RFC 8446
//! section 4.4.3). Whoever holds the signing call can so authenticate TLS handshakes and nothing else: no certificates, no
//! tokens, no documents.

/// The message has another shape than a CertificateVerify content. The caller erred, or means ill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("only the content of a TLS 1.3 CertificateVerify is signed")]
pub(crate) struct ShapeError;

/// Passes exactly: 64 spaces, a context string, a zero byte and a transcript hash of 32 or 48 bytes.
pub(crate) fn check_certificate_verify(message: &[u8]) -> Result<(), ShapeError> {
    let rest = message.strip_prefix(&[0x20; 64]).ok_or(ShapeError)?;
    let hash = CONTEXTS.iter().find_map(|context| rest.strip_prefix(*context)).ok_or(ShapeError)?;
    match hash.len() {
        32 | 48 => Ok(()),
        _ => Err(ShapeError),
    }
}

/// The same, of a client alone.
pub(crate) fn check_client_certificate_verify(message: &[u8]) -> Result<(), ShapeError> {
    check_certificate_verify(message)?;
    let [client, _] = CONTEXTS;
    message.strip_prefix(&[0x20; 64]).filter(|rest| rest.starts_with(client)).map(|_| ()).ok_or(ShapeError)
}

const CONTEXTS: [&[u8]; 2] = [b"TLS 1.3, client CertificateVerify\0", b"TLS 1.3, server CertificateVerify\0"];

#[cfg(test)]
mod tests {
    use super::*;

    fn content(spaces: usize, context: &str, end: &[u8], hash: usize) -> Vec<u8> {
        [&vec![0x20; spaces][..], context.as_bytes(), end, &vec![7; hash][..]].concat()
    }

    #[test]
    fn both_sides_and_both_hash_lengths_pass() {
        for side in ["client", "server"] {
            for hash in [32, 48] {
                let message = content(64, &format!("TLS 1.3, {side} CertificateVerify"), &[0], hash);
                assert_eq!(check_certificate_verify(&message), Ok(()));
            }
        }
    }

    #[test]
    fn every_other_shape_is_refused() {
        let good = "TLS 1.3, client CertificateVerify";
        for message in [
            Vec::new(),
            b"a document".to_vec(),
            vec![0x20; 64],
            vec![7; 32],
            content(63, good, &[0], 32),
            content(65, good, &[0], 32),
            content(64, good, &[], 32),
            content(64, good, &[1], 32),
            content(64, good, &[0, 0], 32),
            content(64, good, &[0], 0),
            content(64, good, &[0], 31),
            content(64, good, &[0], 64),
            content(64, good, &[0], 4096),
            content(64, "TLS 1.3, exporter", &[0], 32),
            content(64, "tls 1.3, client CertificateVerify", &[0], 32),
            content(64, "TLS 1.2, client CertificateVerify", &[0], 32),
        ] {
            assert_eq!(check_certificate_verify(&message), Err(ShapeError), "{message:?}");
        }
    }
}
