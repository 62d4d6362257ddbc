//! `portcullis policy check|explain`.

use std::path::PathBuf;

use super::error::{CliError, exit};
use super::output::Output;
use super::remote::{self, TargetArgs};
use super::{block_on, locate};
use crate::rpc::control::ExplainRequest;
use crate::supervisor::policy::Policy;

/// `portcullis policy ...`.
#[derive(Debug, clap::Subcommand)]
pub enum PolicyCommand {
    /// Check grants and policies: syntax, schema, lint. Every problem is listed.
    Check {
        /// The configuration file.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// The operator's view of a recorded refusal: who, what, why, nearest grant, fix.
    Explain {
        /// The reference that the guest, the log or `x-portcullis-refusal` named.
        reference: String,
        #[command(flatten)]
        target: TargetArgs,
    },
}

/// Runs the command.
pub fn run(command: PolicyCommand, out: &mut Output) -> Result<(), CliError> {
    match command {
        PolicyCommand::Check { config } => {
            let config = locate::config(config.as_deref())?;
            let policy = Policy::read(&config.policy, 1).map_err(|problems| {
                CliError::new(exit::CONFIG, "policy.invalid", problems.join("\n"))
                    .with_hint("a running host keeps the policy it has until these are mended")
                    .with_details(problems.into())
            })?;
            for problem in policy.problems() {
                out.note(format!("warning: {problem}"));
            }
            let sources: Vec<&str> = policy.sources().iter().map(|source| source.name.as_str()).collect();
            out.result(format!("{} can be used", sources.join(", ")), &serde_json::json!({ "sources": sources }))
        }
        PolicyCommand::Explain { reference, target } => {
            let socket = target.socket()?;
            let reply = block_on(async {
                let reply =
                    remote::connect(&socket).await?.explain(ExplainRequest { reference: reference.clone() }).await;
                Ok(reply.map_err(|error| remote::failed(&error))?.into_inner())
            })?;
            if !reply.found {
                return Err(CliError::usage(format!("there is no record {reference}"))
                    .with_hint("a reference has 26 letters and digits; the record follows the refusal by a moment"));
            }
            let json = serde_json::from_str(&reply.json).unwrap_or(serde_json::Value::Null);
            let text = if reply.text.is_empty() { reply.json } else { reply.text };
            out.result(text.trim_end(), &json)
        }
    }
}
