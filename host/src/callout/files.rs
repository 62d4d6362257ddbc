//! What the callout reads again while it runs: roles, policies, bundles and the list of the revoked. A change is taken as a
//! whole or not at all: what cannot be used keeps what was there, and readiness says so. But for one thing: who is revoked more
//! than before is revoked whatever the other files are like, and who was revoked stays so until all of them can be used.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use portcullis_identity::{BundleDocument, BundleSet};
use portcullis_policies::callout::Roles;
use portcullis_policies::{Source, SourceKind, WorkloadId};

use super::revocations::Revocations;
use super::service::CalloutError;
use crate::cli::files::read_text;
use crate::config::callout::CalloutConfig;
use crate::limits::CONFIG_BYTES;

/// What decisions are made with. Never changed, only replaced.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The compiled roles.
    pub roles: Arc<Roles>,
    /// The bundles, each under its trust domain.
    pub bundles: Arc<BundleSet>,
    /// Who is not let in.
    pub revoked: BTreeSet<String>,
}

impl Standing {
    /// Reads everything anew.
    pub fn load(config: &CalloutConfig, generation: u64) -> Result<Self, CalloutError> {
        let read = |path: &PathBuf, kind| {
            let text = read_text(path, CONFIG_BYTES, "roles file");
            text.map(|text| Source { name: path.display().to_string(), text, kind })
                .map_err(|error| CalloutError::config(error.message(), error.hint().unwrap_or_default()))
        };
        let roles: Vec<Source> =
            config.roles.iter().map(|path| read(path, SourceKind::Grants)).collect::<Result<_, _>>()?;
        let cedar: Vec<Source> =
            config.cedar.iter().map(|path| read(path, SourceKind::Cedar)).collect::<Result<_, _>>()?;
        let accounts =
            config.allowed_accounts().ok_or_else(|| CalloutError::config("the accounts have no names", ""))?;
        let roles = Roles::compile(&roles, &cedar, accounts, generation).map_err(|errors| {
            CalloutError::config(format!("roles cannot be used:\n{errors}"), "mend what is listed")
        })?;
        let mut documents = Vec::new();
        for domain in &config.trust_domains {
            let json = read_text(&domain.bundle, CONFIG_BYTES, "bundle")
                .map_err(|error| CalloutError::config(error.message(), error.hint().unwrap_or_default()))?;
            let document = BundleDocument::parse(&domain.name, json.as_bytes())
                .map_err(|error| CalloutError::file(&domain.bundle, &error, error.hint()))?;
            documents.push(Arc::new(document));
        }
        let mut documents = documents.into_iter();
        let first = documents.next().ok_or_else(|| CalloutError::config("there is no trust domain", ""))?;
        let bundles = BundleSet::with_foreign(first, documents)
            .map_err(|error| CalloutError::config(error.to_string(), error.hint()))?;
        let revoked = match &config.revocations {
            None => BTreeSet::new(),
            Some(path) => Revocations::read(path)?.whole(path)?,
        };
        Ok(Self { roles: Arc::new(roles), bundles: Arc::new(bundles), revoked })
    }

    /// The same with whoever is on the list of the revoked now, too; `None` where that is nobody more. For when the whole is not to
    /// be used, or not yet: nobody is taken from the list by it.
    pub fn with_more_revoked(&self, config: &CalloutConfig) -> Result<Option<Self>, CalloutError> {
        let Some(path) = &config.revocations else { return Ok(None) };
        let now = Revocations::read(path)?.named();
        if now.is_subset(&self.revoked) {
            return Ok(None);
        }
        Ok(Some(Self { revoked: &self.revoked | &now, ..self.clone() }))
    }

    /// Whether a connection of this SPIFFE ID may go on.
    pub fn still_stands(&self, id: &WorkloadId) -> bool {
        let trusted = id.trust_domain().parse().is_ok_and(|domain| self.bundles.get(&domain).is_some());
        trusted && !self.revoked.contains(id.as_str()) && self.roles.names(id)
    }
}
