//! `verify --as-host`: what follows the verdict on a host, by the host's own admission: `load`, every link, what the host
//! serves, the SPIFFE ID. Nothing is started and nothing is written.

use std::collections::BTreeMap;
use std::path::Path;

use portcullis_policies::FixContext;
use portcullis_signing::{Claims, Verified};
use serde_json::{Value, json};

use super::error::CliError;
use super::locate;
use crate::supervisor::admission::Admitted;
use crate::supervisor::policy::Policy;
use crate::supervisor::refused::Refused;

/// Decides as the host of this configuration would, now. The refusal lists every denial, not the first.
pub fn admit(config: &Path, verified: &Verified<Claims>) -> Result<String, CliError> {
    let config = locate::config(Some(config))?;
    let policy = Policy::read(&config.policy, 1).map_err(|problems| {
        CliError::new(super::error::exit::CONFIG, "config.invalid", problems.join("\n"))
            .with_hint("`portcullis policy check` explains each problem")
    })?;
    let fix = FixContext { program: "portcullis".to_owned(), config: Some(config.path.clone()) };
    match Admitted::decide(verified, &|facts| policy.set().slice(facts), &config.trust_domain) {
        Ok(admitted) => Ok(admitted.spiffe_id().to_string()),
        Err(refusal) => Err(error(&Refused::from_admission(&refusal, &fix))),
    }
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
