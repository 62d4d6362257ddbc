//! Admission: from verified claims to a component that may run here. The one place where `Admitted` is made.
//!
//! The order is fixed: verify (signature, claims, imports), then policy `load`, then policy `link` for every import, then the
//! SPIFFE ID from the verified claims inside this host's trust domain. Whatever is missing is named, all of it, not the first.

use std::sync::Arc;

use portcullis_identity::{SpiffeId, TrustDomain};
use portcullis_policies::{ComponentFacts, Denial, ImageFacts, Slice};
use portcullis_signing::{Claims, Verified};
use ulid::Ulid;

use crate::runtime::linking;

/// A component that was verified and that policy lets run here. Not to be had otherwise than by [`Admitted::decide`].
#[derive(Debug, Clone)]
pub struct Admitted {
    verified: Verified<Claims>,
    facts: ComponentFacts,
    spiffe_id: SpiffeId,
    version: String,
    revision: u64,
    links: Vec<String>,
    trust_version: u64,
    policy_generation: u64,
    let_through: Vec<Denial>,
}

/// Why a component may not run here.
#[derive(Debug)]
pub enum NotAdmitted {
    /// Policy refused to load it, or some of its imports.
    Policy(Vec<Denial>),
    /// Nothing could be decided, since there is no usable policy.
    NoPolicy(Box<Denial>),
    /// Policy would let it, but this host has no implementation of these imports.
    NotServed(Vec<String>),
    /// It exports nothing that this host calls.
    NoHandler,
    /// The path in its claims makes no SPIFFE ID.
    Identity(String),
}

impl Admitted {
    /// Decides on verified claims.
    pub fn decide(
        verified: &Verified<Claims>,
        slice: &dyn Fn(&ComponentFacts) -> Arc<Slice>,
        trust_domain: &TrustDomain,
    ) -> Result<Self, NotAdmitted> {
        let claims = verified.claims();
        let spiffe_id = SpiffeId::new(trust_domain, &format!("/{}", verified.spiffe_path()))
            .map_err(|error| NotAdmitted::Identity(error.to_string()))?;
        let facts = Self::facts_of(verified, trust_domain);
        let slice = slice(&facts);
        let imports: Vec<String> = verified.interfaces().imports().iter().map(ToString::to_string).collect();
        let image = ImageFacts { imports: imports.clone(), expired: false };
        let loaded = slice.load(&image);
        let mut denials: Vec<Denial> = match loaded {
            // All else would be refused for the same reason, which is not that a grant is missing.
            Err(denial) if slice.unusable().is_some() => return Err(NotAdmitted::NoPolicy(Box::new(denial))),
            Err(denial) => vec![denial],
            Ok(_) => Vec::new(),
        };
        let mut let_through = Vec::new();
        for import in &imports {
            match slice.link(import) {
                Ok(grant) => let_through.extend(grant.instead_of().cloned()),
                Err(denial) => denials.push(denial),
            }
        }
        if !denials.is_empty() {
            return Err(NotAdmitted::Policy(denials));
        }
        let not_served: Vec<String> = imports.iter().filter(|import| !linking::is_served(import)).cloned().collect();
        if !not_served.is_empty() {
            return Err(NotAdmitted::NotServed(not_served));
        }
        let is_handler = |export: &str| ENTRIES.iter().any(|entry| export.starts_with(entry));
        if !verified.interfaces().exports().iter().any(|export| is_handler(&export.to_string())) {
            return Err(NotAdmitted::NoHandler);
        }
        Ok(Self {
            verified: verified.clone(),
            facts,
            spiffe_id,
            version: claims.version().to_string(),
            revision: claims.revision(),
            links: imports,
            trust_version: verified.policy_version(),
            policy_generation: slice.generation(),
            let_through,
        })
    }

    /// What policy would know of a component, as a new instance. Decides nothing.
    pub fn facts_of(verified: &Verified<Claims>, trust_domain: &TrustDomain) -> ComponentFacts {
        ComponentFacts {
            name: verified.claims().name().to_string(),
            digest: verified.digest().to_string(),
            spiffe_id: format!("spiffe://{trust_domain}/{}", verified.spiffe_path()),
            signer: verified.signer().id().to_string(),
            signer_group: verified.signer().group().to_owned(),
            instance: Ulid::generate().to_string().to_ascii_lowercase(),
        }
    }

    /// What policy knows of it.
    pub fn facts(&self) -> &ComponentFacts {
        &self.facts
    }

    /// The proof that it was made from, to be judged again.
    pub fn verified(&self) -> &Verified<Claims> {
        &self.verified
    }

    /// Its SPIFFE ID.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// Its claimed version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Its claimed revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The imports that may be linked.
    pub fn links(&self) -> &[String] {
        &self.links
    }

    /// The refusals of links that audit mode stood in for.
    pub fn let_through(&self) -> &[Denial] {
        &self.let_through
    }

    /// The fields of its audit records.
    pub fn audit_fields(&self) -> Vec<(&'static str, serde_json::Value)> {
        vec![
            ("instance", self.facts.instance.clone().into()),
            ("component", self.facts.name.clone().into()),
            ("version", self.version.clone().into()),
            ("revision", self.revision.into()),
            ("digest", self.facts.digest.clone().into()),
            ("signer", self.facts.signer.clone().into()),
            ("signer_group", self.facts.signer_group.clone().into()),
            ("spiffe_id", self.facts.spiffe_id.clone().into()),
            ("links", self.links.clone().into()),
            ("signers", self.verified.signers().map(|signer| signer.id().to_string()).collect::<Vec<_>>().into()),
            ("claims_digest", self.verified.claims_digest().to_string().into()),
            ("trust_version", self.trust_version.into()),
            ("deny_list_version", self.verified.deny_list_version().into()),
            ("policy_generation", self.policy_generation.into()),
        ]
    }
}

/// What a component must export to be called: one of these.
pub const HANDLER: &str = "wasi:http/incoming-handler";
/// The same for messages.
pub const MESSAGE_HANDLER: &str = "wasmcloud:messaging/handler";
/// Both, in the versions that are called here.
const ENTRIES: [&str; 2] = ["wasi:http/incoming-handler@", "wasmcloud:messaging/handler@0.2."];
