//! The configuration of a NATS server, with what it includes.

use std::path::{Path, PathBuf};

use portcullis_policies::nats_server::{Loaded, Map, read};

use crate::cli::error::{CliError, exit};
use crate::cli::files;
use crate::limits::CONFIG_BYTES;

/// What was read.
#[derive(Debug)]
pub struct ServerFile {
    /// The text of the file itself.
    pub text: String,
    /// What it says, includes and all.
    pub map: Map,
    /// The files by name, itself first.
    pub names: Vec<String>,
    /// The same as paths.
    pub paths: Vec<PathBuf>,
}

impl ServerFile {
    /// Reads it as the server does.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let text = files::read_text(path, CONFIG_BYTES, "server configuration")?;
        let mut paths = vec![path.to_path_buf()];
        let first = Loaded { name: path.display().to_string(), text: text.clone() };
        let mut load = |from: usize, written: &str| {
            // A server reads an include relative to the file that includes it.
            let base = paths.get(from).and_then(|path| path.parent()).unwrap_or(Path::new(".")).to_path_buf();
            let path = base.join(written);
            let text =
                files::read_text(&path, CONFIG_BYTES, "included file").map_err(|error| error.message().to_owned())?;
            let name = path.display().to_string();
            paths.push(path);
            Ok(Loaded { name, text })
        };
        let (map, names) = read(first, &mut load).map_err(|error| {
            CliError::new(exit::CONFIG, "server.unreadable", error.to_string())
                .with_hint("mend it as `nats-server -t -c FILE` says; nothing else was looked at")
        })?;
        Ok(Self { text, map, names, paths })
    }
}
