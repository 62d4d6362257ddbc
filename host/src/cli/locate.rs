//! Where the configuration and the state lie: `--config`, then the user's, then the machine's.

use std::path::{Path, PathBuf};

use super::error::{CliError, exit};
use super::files;
use crate::config::{Config, environment};
use crate::limits::CONFIG_BYTES;

/// Reads and checks the configuration: the file given, else the first that exists.
pub fn config(given: Option<&Path>) -> Result<Config, CliError> {
    let path = match given {
        Some(path) => path.to_path_buf(),
        None => first_existing()?,
    };
    let text = files::read_text(&path, CONFIG_BYTES, "configuration").map_err(|error| {
        CliError::new(exit::CONFIG, "config.unreadable", error.message()).with_hint(error.hint().unwrap_or_default())
    })?;
    let absolute = std::path::absolute(&path).unwrap_or(path);
    Ok(Config::parse(&text, &absolute, &default_state())?)
}

/// Where state lies by default.
pub fn default_state() -> PathBuf {
    let state = environment::read(environment::XDG_STATE_HOME).map(PathBuf::from);
    let home = || environment::read(environment::HOME).map(|home| PathBuf::from(home).join(".local/state"));
    state.or_else(home).unwrap_or_else(|| PathBuf::from("/var/lib")).join("portcullis")
}

fn first_existing() -> Result<PathBuf, CliError> {
    let places = places();
    match places.iter().find(|path| path.exists()) {
        Some(path) => Ok(path.clone()),
        None => {
            let looked: Vec<String> = places.iter().map(|path| path.display().to_string()).collect();
            let message = format!("there is no configuration; looked at {}", looked.join(" and "));
            Err(CliError::new(exit::CONFIG, "config.missing", message)
                .with_hint("name one with --config; `portcullis demo --serve` makes a complete one to copy from"))
        }
    }
}

fn places() -> Vec<PathBuf> {
    let user = environment::read(environment::XDG_CONFIG_HOME).map(PathBuf::from);
    let home = || environment::read(environment::HOME).map(|home| PathBuf::from(home).join(".config"));
    let user = user.or_else(home).map(|folder| folder.join("portcullis/portcullis.toml"));
    user.into_iter().chain([PathBuf::from("/etc/portcullis/portcullis.toml")]).collect()
}
