//! A client's signature over the server's nonce: it holds that nkey, now, on this connection.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use portcullis_nkey::{Kind, PublicKey};

use crate::nats_jwt::ConnectOptions;

/// Why a signature proves nothing. The client erred, or the server has no nonces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NonceError {
    /// An nkey without a signature, or a signature without an nkey.
    #[error("an nkey and its signature come together or not at all")]
    Half,
    /// No user key.
    #[error("the nkey is no user key")]
    Key,
    /// What is signed is nothing, so that the signature is good for ever.
    #[error("the server gave no nonce to sign")]
    Empty,
    /// Over something else, by another key, or no signature.
    #[error("the signature over the nonce is wrong")]
    Signature,
}

impl NonceError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Empty => {
                "a server gives nonces only where it has a user with an nkey: configure one (the callout's own, or one to break the glass)"
            }
            _ => "the client must sign the nonce of this connection with the user nkey that it names",
        }
    }
}

/// The key that signed, if the client says that one did.
pub(super) fn check(options: &ConnectOptions, nonce: &str) -> Result<Option<PublicKey>, NonceError> {
    match (options.nkey.is_empty(), options.sig.is_empty()) {
        (true, true) => return Ok(None),
        (false, false) => {}
        _ => return Err(NonceError::Half),
    }
    if nonce.is_empty() {
        return Err(NonceError::Empty);
    }
    let key = PublicKey::parse(&options.nkey, Kind::User).map_err(|_| NonceError::Key)?;
    // Clients write it in either alphabet, and servers take both.
    let signature = URL_SAFE_NO_PAD.decode(options.sig.as_bytes()).or_else(|_| STANDARD.decode(options.sig.as_bytes()));
    let signature = signature.map_err(|_| NonceError::Signature)?;
    if key.verifies(nonce.as_bytes(), &signature) { Ok(Some(key)) } else { Err(NonceError::Signature) }
}

#[cfg(test)]
mod tests {
    use portcullis_nkey::KeyPair;
    use zeroize::Zeroizing;

    use super::*;

    fn options(nkey: &str, sig: &str) -> ConnectOptions {
        let text = |text: &str| Zeroizing::new(text.to_owned());
        ConnectOptions { nkey: text(nkey), sig: text(sig), auth_token: text("") }
    }

    #[test]
    fn the_nonce_of_this_connection_signed_in_either_alphabet_is_proof() {
        let pair = KeyPair::generate(Kind::User).unwrap();
        let signature = pair.sign(b"nonce").unwrap();
        for sig in [URL_SAFE_NO_PAD.encode(signature), STANDARD.encode(signature)] {
            let checked = check(&options(&pair.public().to_string(), &sig), "nonce");
            assert_eq!(checked, Ok(Some(pair.public())));
        }
        assert_eq!(check(&options("", ""), "nonce"), Ok(None));
        assert_eq!(check(&options("", ""), ""), Ok(None));
    }

    #[test]
    fn a_signature_over_no_nonce_or_another_proves_nothing() {
        let pair = KeyPair::generate(Kind::User).unwrap();
        let nkey = pair.public().to_string();
        let sig = |message: &[u8]| URL_SAFE_NO_PAD.encode(pair.sign(message).unwrap());
        assert_eq!(check(&options(&nkey, &sig(b"")), ""), Err(NonceError::Empty));
        assert_eq!(check(&options(&nkey, &sig(b"")), "nonce"), Err(NonceError::Signature));
        assert_eq!(check(&options(&nkey, &sig(b"other")), "nonce"), Err(NonceError::Signature));
        assert_eq!(check(&options(&nkey, "!"), "nonce"), Err(NonceError::Signature));
        assert_eq!(check(&options(&nkey, ""), "nonce"), Err(NonceError::Half));
        assert_eq!(check(&options("", &sig(b"nonce")), "nonce"), Err(NonceError::Half));
    }

    #[test]
    fn a_key_of_another_kind_or_of_small_order_proves_nothing() {
        let account = KeyPair::generate(Kind::Account).unwrap();
        let sig = URL_SAFE_NO_PAD.encode(account.sign(b"nonce").unwrap());
        assert_eq!(check(&options(&account.public().to_string(), &sig), "nonce"), Err(NonceError::Key));
        assert_eq!(check(&options("U", &sig), "nonce"), Err(NonceError::Key));
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut anybodys = [0; 64];
        anybodys[0] = 1;
        let small = PublicKey::new(Kind::User, neutral).to_string();
        assert_eq!(check(&options(&small, &URL_SAFE_NO_PAD.encode(anybodys)), "nonce"), Err(NonceError::Signature));
    }
}
