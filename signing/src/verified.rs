//! The proof that verification happened: a value that only the verifier can make.

use std::sync::{Arc, Mutex};

use time::OffsetDateTime;

use crate::bytes::ComponentBytes;
use crate::claims::Claims;
use crate::digest::Digest;
use crate::interface::Interfaces;
use crate::trust::{DenyList, Origin, Signer, SignerEntry, SignerIdentity, TrustPolicy};

/// Something that was verified for one component. Private fields, no public constructor, no way to swap a part.
#[derive(Debug, Clone)]
pub struct Verified<T> {
    value: T,
    component: Digest,
    statement: Digest,
    /// The one that decides by order of the trust policy, first.
    signer: Signed,
    others: Vec<Signed>,
    policy_version: u64,
    policy_digest: Digest,
    deny_list_version: Option<u64>,
    interfaces: Interfaces,
}

/// A signer that counted, and what a later trust policy is asked about it.
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    pub(crate) signer: Signer,
    /// The delegations beside the evidence that it was known by, as they were made; the one by a signer of the policy first.
    pub(crate) links: Vec<SignerEntry>,
    /// The digest of what it signed.
    pub(crate) statement: Digest,
    /// When: proven by the evidence, else what the claims state. Absent: nobody says.
    pub(crate) at: Option<OffsetDateTime>,
    pub(crate) proof: Proof,
    /// Where the trust policy supplied the claims: by this.
    pub(crate) origin: Option<Origin>,
}

/// What made it this signer's.
#[derive(Debug, Clone)]
pub(crate) enum Proof {
    /// Its key.
    Key,
    /// An X.509-SVID under the authority with this digest.
    Svid(Digest),
    /// A certificate under a pinned trusted root.
    Certificate(Certified),
}

/// Evidence with a certificate, kept to be verified again where the trust policy demands something else of it.
#[derive(Debug, Clone)]
pub(crate) struct Certified {
    pub(crate) bundle: Arc<[u8]>,
    /// What was demanded when it held last, and the digest of the trusted root: so that the same is not asked twice.
    pub(crate) held: Arc<Mutex<(SignerIdentity, Digest)>>,
}

impl Verified<Claims> {
    pub(crate) fn new(
        claims: Claims,
        component: &ComponentBytes,
        (signer, others): (Signed, Vec<Signed>),
        (trust, deny_list): (&TrustPolicy, Option<&DenyList>),
        interfaces: Interfaces,
    ) -> Self {
        Self {
            value: claims,
            component: *component.digest(),
            statement: signer.statement,
            signer,
            others,
            policy_version: trust.version(),
            policy_digest: *trust.digest(),
            deny_list_version: deny_list.map(DenyList::version),
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

    /// Who signed; of several, the one that the trust policy names first.
    pub fn signer(&self) -> &Signer {
        &self.signer.signer
    }

    /// All that signed these claims and were counted, in the order of the trust policy.
    pub fn signers(&self) -> impl Iterator<Item = &Signer> {
        self.signed().map(|signed| &signed.signer)
    }

    pub(crate) fn signed(&self) -> impl Iterator<Item = &Signed> {
        std::iter::once(&self.signer).chain(&self.others)
    }

    /// The version of the deny list that was asked; absent: the trust policy demands none.
    pub fn deny_list_version(&self) -> Option<u64> {
        self.deny_list_version
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
