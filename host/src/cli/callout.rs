//! `portcullis callout`: the responder itself, what it and the servers need to begin with, and a look at a server's configuration.

use std::path::PathBuf;

use super::error::{CliError, exit};
use super::files;
use super::output::Output;
use crate::callout::service::CalloutError;
use crate::config::callout::CalloutConfig;
use crate::limits::CONFIG_BYTES;

/// Arguments of `portcullis callout`.
#[derive(Debug, clap::Args)]
pub struct CalloutArgs {
    /// The configuration file, callout.toml.
    #[arg(long)]
    config: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: CalloutArgs, out: &mut Output) -> Result<(), CliError> {
    serve(args.config, out)
}

fn serve(config: Option<PathBuf>, out: &mut Output) -> Result<(), CliError> {
    let hint = "`portcullis callout init DIR` writes one that works";
    let path = config.ok_or_else(|| CliError::usage("name the configuration with --config").with_hint(hint))?;
    let text = files::read_text(&path, CONFIG_BYTES, "configuration").map_err(|error| {
        CliError::new(exit::CONFIG, "config.unreadable", error.message()).with_hint(error.hint().unwrap_or_default())
    })?;
    let absolute = std::path::absolute(&path).unwrap_or(path);
    let config = CalloutConfig::parse(&text, &absolute).map_err(|error| {
        CliError::new(exit::CONFIG, "config.invalid", error.to_string()).with_hint("mend what is listed")
    })?;
    crate::logging::start("callout");
    let mut said = Ok(());
    let ended = crate::callout::run(config, |metrics| {
        let shown = metrics.map(|address| address.to_string()).unwrap_or_default();
        said = out.result(format!("metrics  {shown}"), &serde_json::json!({ "metrics": shown }));
    });
    ended?;
    said
}

impl From<CalloutError> for CliError {
    fn from(error: CalloutError) -> Self {
        match error {
            CalloutError::Config { message, hint } => {
                CliError::new(exit::CONFIG, "callout.config", message).with_hint(hint)
            }
            CalloutError::Machine(message) => CliError::internal(message),
        }
    }
}
