//! `verify --as-host`: what follows the verdict on a host, by the host's own admission: `load`, every link, what the host
//! serves, the SPIFFE ID and whether it is revoked there. Nothing is started and nothing is written.

use std::collections::BTreeMap;
use std::path::Path;

use portcullis_identity::SpiffeId;
use portcullis_policies::FixContext;
use portcullis_signing::{Claims, Verified};
use serde_json::{Value, json};

use super::error::CliError;
use super::locate;
use crate::state::REVOKED_FILE;
use crate::supervisor::admission::Admitted;
use crate::supervisor::policy::Policy;
use crate::supervisor::refused::Refused;
use crate::supervisor::revocations::Revocations;

/// Decides as the host of this configuration would, now. The refusal lists every denial, not the first.
pub fn admit(config: &Path, verified: &Verified<Claims>) -> Result<String, CliError> {
    let config = locate::config(Some(config))?;
    let policy = Policy::read(&config.policy, 1).map_err(|problems| {
        CliError::new(super::error::exit::CONFIG, "config.invalid", problems.join("\n"))
            .with_hint("`portcullis policy check` explains each problem")
    })?;
    let fix = FixContext { program: "portcullis".to_owned(), config: Some(config.path.clone()) };
    match Admitted::decide(verified, &|facts| policy.set().slice(facts), &config.trust_domain) {
        Ok(admitted) if is_revoked(&config.state_dir, admitted.spiffe_id())? => {
            Err(error(&Refused::revoked(admitted.spiffe_id())))
        }
        Ok(admitted) => Ok(admitted.spiffe_id().to_string()),
        Err(refusal) => Err(error(&Refused::from_admission(&refusal, &fix))),
    }
}

/// Whether an operator revoked this SPIFFE ID on that host, as its state directory has it.
fn is_revoked(state_dir: &Path, id: &SpiffeId) -> Result<bool, CliError> {
    let list = Revocations::open(&state_dir.join(REVOKED_FILE)).map_err(|error| {
        CliError::new(super::error::exit::REVOKED, "identity.revocations-unreadable", error.to_string())
            .with_hint("run as the user whom the host runs as")
    })?;
    Ok(list.has_id(id))
}

/// Which imports the grants of this configuration let the component link.
pub fn links(config: &Path, verified: &Verified<Claims>) -> Result<BTreeMap<String, bool>, CliError> {
    let config = locate::config(Some(config))?;
    let policy = Policy::read(&config.policy, 1).unwrap_or_else(|problems| Policy::deny_all(1, problems));
    let slice = policy.set().slice(&Admitted::facts_of(verified, &config.trust_domain));
    let imports = verified.interfaces().imports().iter().map(ToString::to_string);
    Ok(imports.map(|import| (import.clone(), slice.link(&import).is_ok())).collect())
}

fn error(refused: &Refused) -> CliError {
    let details: Value = json!({ "denied": refused.details });
    CliError::new(refused.exit, &refused.code, &refused.message).with_hint(&refused.hint).with_details(details)
}
