//! `cluster deploy --wait`: what hosts make of what was just stored, for as long as the operator wants to know. Decides nothing but
//! whether all that is wanted runs, and says what hosts answered instead.

use std::time::Duration;

use portcullis_cluster::{HostId, Manifest};
use serde_json::json;
use tokio::time::Instant;

use super::operator::Operator;
use super::refusals::{self, Refusal};
use super::watching::Listening;
use crate::cli::error::{CliError, exit};
use crate::cli::output::Output;

/// Hears hosts from before something is stored, so that none of their first answers is missed.
#[derive(Debug)]
pub struct Waiting {
    listening: Listening,
    most: Duration,
}

impl Waiting {
    /// Begins to hear.
    pub async fn begin(operator: &Operator, seconds: u64) -> Result<Self, CliError> {
        Ok(Self { listening: Listening::begin(operator).await?, most: Duration::from_secs(seconds.min(MOST)) })
    }

    /// Waits until what is wanted runs, or until every host that was heard says that it does not run it.
    /// The hosts that run it then.
    pub async fn settled(
        mut self,
        operator: &Operator,
        manifest: &Manifest,
        out: &mut Output,
    ) -> Result<Vec<HostId>, CliError> {
        let began = Instant::now();
        let (name, version) = (&manifest.wanted().component, manifest.version());
        let wanted = usize::try_from(manifest.wanted().replicas).unwrap_or(usize::MAX);
        loop {
            let left = self.most.saturating_sub(began.elapsed());
            self.listening.hear(operator, left.min(STEP)).await;
            let heard = self.listening.heard();
            let runs = heard.values().filter(|heartbeat| match wanted {
                0 => heartbeat.runs(name).is_some(),
                _ => heartbeat.runs(name) == Some(version),
            });
            let hosts: Vec<_> = runs.map(|heartbeat| heartbeat.host.clone()).collect();
            if (wanted > 0 && hosts.len() >= wanted) || (wanted == 0 && !heard.is_empty() && hosts.is_empty()) {
                return Ok(hosts);
            }
            let refused = refusals::of(heard, name, version);
            // Each has had its time to be heard.
            let all_heard = began.elapsed() >= self.listening.interval().saturating_mul(2);
            let all_refuse = !heard.is_empty() && heard.keys().all(|host| refused.iter().any(|one| one.host() == host));
            if (all_refuse && all_heard) || left.is_zero() {
                for line in refusals::lines(&refused).into_iter().chain(self.listening.unbelieved().lines()) {
                    out.note(line);
                }
                let message = match (wanted, heard.is_empty()) {
                    (_, true) => "it is stored, and no host answered".to_owned(),
                    (0, _) => format!("it is stored, and runs on {} hosts still", hosts.len()),
                    _ => format!("it is stored, and runs on {} of {wanted} hosts", hosts.len()),
                };
                let hint = refusals::hint(&refused).or_else(|| self.listening.unbelieved().hint().map(str::to_owned));
                let details =
                    json!({ "hosts": hosts, "refused": refused.iter().map(Refusal::to_json).collect::<Vec<_>>() });
                return Err(CliError::new(exit::INTERNAL, "cluster.not-settled", message)
                    .with_hint(
                        hint.unwrap_or_else(|| "`portcullis cluster status` shows what becomes of it".to_owned()),
                    )
                    .with_details(details));
            }
        }
    }
}

/// How long hosts are heard between two looks.
const STEP: Duration = Duration::from_millis(100);
/// Longest wait, in seconds.
const MOST: u64 = 3_600;
