//! `portcullis config check|print`.

use std::path::PathBuf;

use super::error::CliError;
use super::locate;
use super::output::Output;

/// `portcullis config ...`.
#[derive(Debug, clap::Subcommand)]
pub enum ConfigCommand {
    /// Check the configuration file; every problem is listed.
    Check(FileArgs),
    /// Print the configuration with every default filled in.
    Print(FileArgs),
}

/// Which file.
#[derive(Debug, clap::Args)]
pub struct FileArgs {
    /// The configuration file.
    #[arg(long)]
    config: Option<PathBuf>,
}

/// Runs the command.
pub fn run(command: ConfigCommand, out: &mut Output) -> Result<(), CliError> {
    match command {
        ConfigCommand::Check(args) => {
            let config = locate::config(args.config.as_deref())?;
            let warnings = config.check_files()?;
            for warning in &warnings {
                out.note(format!("warning: {warning}"));
            }
            let dangers = config.dangers.on();
            for danger in &dangers {
                out.note(format!("warning: {danger} is on and weakens this host"));
            }
            let json = serde_json::json!({ "file": config.path, "dangers": dangers, "warnings": warnings });
            out.result(format!("{} can be used", config.path.display()), &json)
        }
        ConfigCommand::Print(args) => {
            let config = locate::config(args.config.as_deref())?;
            let json = serde_json::to_value(&config).map_err(CliError::internal)?;
            let text = toml::to_string_pretty(&json_to_toml(&json)).map_err(CliError::internal)?;
            out.line(text.trim_end())?;
            out.value(&json)
        }
    }
}

/// JSON as TOML; null has no place in TOML and is left out.
fn json_to_toml(json: &serde_json::Value) -> toml::Value {
    match json {
        serde_json::Value::Null => toml::Value::String(String::new()),
        serde_json::Value::Bool(value) => toml::Value::Boolean(*value),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(number) => toml::Value::Integer(number),
            None => toml::Value::Float(number.as_f64().unwrap_or_default()),
        },
        serde_json::Value::String(text) => toml::Value::String(text.clone()),
        serde_json::Value::Array(list) => {
            toml::Value::Array(list.iter().filter(|item| !item.is_null()).map(json_to_toml).collect())
        }
        serde_json::Value::Object(map) => toml::Value::Table(
            map.iter()
                .filter(|(_, item)| !item.is_null())
                .map(|(key, item)| (key.clone(), json_to_toml(item)))
                .collect(),
        ),
    }
}
