//! The proof that verification happened: a value that only the verifier can make.

use crate::bytes::ComponentBytes;
use crate::claims::Claims;
use crate::digest::Digest;
use crate::interface::Interfaces;
use crate::trust::{Signer, TrustPolicy};

/// Something that was verified for one component. Private fields, no public constructor, no way to swap a part.
#[derive(Debug, Clone)]
pub struct Verified<T> {
    value: T,
    component: Digest,
    statement: Digest,
    signer: Signer,
    policy_version: u64,
    policy_digest: Digest,
    interfaces: Interfaces,
}

impl Verified<Claims> {
    pub(crate) fn new(
        claims: Claims,
        component: &ComponentBytes,
        statement: Digest,
        signer: Signer,
        trust: &TrustPolicy,
        interfaces: Interfaces,
    ) -> Self {
        Self {
            value: claims,
            component: *component.digest(),
            statement,
            signer,
            policy_version: trust.version(),
            policy_digest: *trust.digest(),
            interfaces,
        }
    }

    /// The verified claims.
    pub fn claims(&self) -> &Claims {
        &self.value
    }

    /// The path of the SPIFFE ID, without a slash at either end; inside the ceiling of the signer.
    pub fn spiffe_path(&self) -> &str {
        self.value.identity_path().as_str()
    }
}

impl<T> Verified<T> {
    /// The digest of the component that this was verified for.
    pub fn digest(&self) -> &Digest {
        &self.component
    }

    /// The digest of the signed statement: which claims these are.
    pub fn claims_digest(&self) -> &Digest {
        &self.statement
    }

    /// Who signed.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// The version of the trust policy that said so.
    pub fn policy_version(&self) -> u64 {
        self.policy_version
    }

    /// The digest of that trust policy: the verdict does not outlive it.
    pub fn policy_digest(&self) -> &Digest {
        &self.policy_digest
    }

    /// What the component really imports and exports.
    pub fn interfaces(&self) -> &Interfaces {
        &self.interfaces
    }
}
