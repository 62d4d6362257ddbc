//! The signature algorithms that a JWT-SVID may have (JWT-SVID section 2.1). Any other name, `none`, HMAC and EdDSA among them,
//! is not one; ES512 is one that `ring` cannot verify, so it is refused, too.

use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, EcdsaVerificationAlgorithm, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters,
};

/// An algorithm of JWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JwsAlgorithm {
    Es256,
    Es384,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
}

/// What `ring` verifies it with, by kind of key.
pub(crate) enum Verification {
    P256(&'static EcdsaVerificationAlgorithm),
    P384(&'static EcdsaVerificationAlgorithm),
    Rsa(&'static RsaParameters),
}

impl JwsAlgorithm {
    /// The algorithm of this name, compared byte by byte.
    pub(crate) fn named(name: &str) -> Option<Self> {
        ALL.iter().copied().find(|algorithm| algorithm.name() == name)
    }

    /// As it is written in a header.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
        }
    }

    pub(crate) fn verification(self) -> Verification {
        match self {
            Self::Es256 => Verification::P256(&ECDSA_P256_SHA256_FIXED),
            Self::Es384 => Verification::P384(&ECDSA_P384_SHA384_FIXED),
            Self::Rs256 => Verification::Rsa(&RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Verification::Rsa(&RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Verification::Rsa(&RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Verification::Rsa(&RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Verification::Rsa(&RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Verification::Rsa(&RSA_PSS_2048_8192_SHA512),
        }
    }
}

const ALL: [JwsAlgorithm; 8] = [
    JwsAlgorithm::Es256,
    JwsAlgorithm::Es384,
    JwsAlgorithm::Rs256,
    JwsAlgorithm::Rs384,
    JwsAlgorithm::Rs512,
    JwsAlgorithm::Ps256,
    JwsAlgorithm::Ps384,
    JwsAlgorithm::Ps512,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_of_the_specification_are_known() {
        for algorithm in ALL {
            assert_eq!(JwsAlgorithm::named(algorithm.name()), Some(algorithm));
        }
        for name in ["none", "HS256", "EdDSA", "es256", "ES256K", "ES512", "", "RS256 "] {
            assert_eq!(JwsAlgorithm::named(name), None, "{name}");
        }
    }
}
