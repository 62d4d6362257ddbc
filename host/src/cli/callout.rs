//! `portcullis callout`: the responder itself, what it and the servers need to begin with, and a look at a server's configuration.

use std::path::PathBuf;

use super::error::{CliError, exit};
use super::output::Output;
use super::{examples, files};
use crate::callout::service::CalloutError;
use crate::config::callout::CalloutConfig;
use crate::limits::CONFIG_BYTES;

mod certificates;
mod check;
mod init;
mod known;
mod material;
mod renew;
mod server_file;
mod together;

/// Arguments of `portcullis callout`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, after_help = examples::CALLOUT)]
pub struct CalloutArgs {
    /// The configuration file, callout.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<CalloutCommand>,
}

#[derive(Debug, clap::Subcommand)]
enum CalloutCommand {
    /// Write a working configuration, of a NATS server and of the callout, with its keys, and explain it.
    Init(Box<init::InitArgs>),
    /// Make anew what ends of what `init` wrote, under the same keys, and put new certificates in their place.
    Renew(renew::RenewArgs),
    /// Find what is dangerous in the configuration of a NATS server.
    Check(check::CheckArgs),
}

/// Runs the command.
pub fn run(args: CalloutArgs, out: &mut Output) -> Result<(), CliError> {
    match args.command {
        Some(CalloutCommand::Init(args)) => init::run(&args, out),
        Some(CalloutCommand::Renew(args)) => renew::run(&args, out),
        Some(CalloutCommand::Check(args)) => check::run(&args, out),
        None => serve(args.config, out),
    }
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
