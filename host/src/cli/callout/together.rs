//! Whether a callout's configuration and a server's belong together, authorities and all, and whether what the callout logs in with
//! lasts.

use std::path::Path;

use portcullis_identity::XKey;
use portcullis_nkey::{KeyPair, Kind};
use portcullis_policies::nats_server::{Finding, Level, Map};
use time::OffsetDateTime;

use super::known;
use super::server_file::ServerFile;
use crate::callout::ends::{self, Left};
use crate::callout::keys;
use crate::callout::service::CalloutError;
use crate::cli::error::{CliError, exit};
use crate::cli::files;
use crate::config::callout::{CalloutConfig, Mode};
use crate::limits::CONFIG_BYTES;

/// Reads callout.toml and what it names, and compares it with the server's configuration.
pub fn check(path: &Path, server: &ServerFile, now: OffsetDateTime) -> Result<Vec<Finding>, CliError> {
    let text = files::read_text(path, CONFIG_BYTES, "configuration")?;
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let config = CalloutConfig::parse(&text, &absolute).map_err(|error| {
        CliError::new(exit::CONFIG, "config.invalid", error.to_string()).with_hint("mend what is listed")
    })?;
    let place = path.display().to_string();
    let mut found = Vec::new();
    for end in ends::of_files(&config)? {
        let (level, code) = match end.left(now) {
            Left::None => (Level::Danger, "login.ended"),
            Left::Days(_) => (Level::Note, "login.ends"),
            Left::Enough => continue,
        };
        found.push(Finding { level, code, place: place.clone(), reason: end.text(now), hint: ends::HINT });
    }
    for (reason, hint) in mismatches(&config, &server.map)? {
        found.push(Finding { level: Level::Danger, code: "callout.mismatch", place: place.clone(), reason, hint });
    }
    found.extend(known::check(&config, server, now)?);
    Ok(found)
}

/// What one of the two says, and the other does not.
fn mismatches(config: &CalloutConfig, server: &Map) -> Result<Vec<(String, &'static str)>, CalloutError> {
    let mut found = Vec::new();
    let is_operator = server.get(&["operator", "operators", "trusted"]).is_some();
    if is_operator != (config.mode == Mode::Operator) {
        let why = match is_operator {
            true => "the server is in operator mode, the callout in accounts mode",
            false => "the server has its accounts in its file, the callout is in operator mode",
        };
        found.push((why.to_owned(), "see `mode`; `portcullis callout init --mode` writes both"));
        return Ok(found);
    }
    let block =
        server.map(&["authorization", "authentication"]).and_then(|block| block.map(&["auth_callout", "auth_hook"]));
    let Some(block) = block.filter(|_| !is_operator) else { return Ok(found) };
    let issuer = keys::read(&config.keys.issuer)?;
    let issuer = KeyPair::from_seed_of(&issuer, Kind::Account)
        .map_err(|error| CalloutError::file(&config.keys.issuer, error.to_string(), error.hint()))?;
    let xkey = match &config.keys.xkey {
        None => None,
        Some(path) => {
            let key = XKey::from_seed(&keys::read(path)?);
            Some(key.map_err(|error| CalloutError::file(path, error.to_string(), error.hint()))?.public().to_string())
        }
    };
    let hint = "nobody gets in until both say the same; a server takes a change of auth_callout by a restart only";
    let issuer = issuer.public().to_string();
    for (what, here, there) in [
        ("issuer", Some(issuer.as_str()), block.text(&["issuer"])),
        ("xkey", xkey.as_deref(), block.text(&["xkey"])),
        ("account", Some(config.account.as_str()), block.text(&["account"])),
    ] {
        if here != there {
            let (here, there) = (here.unwrap_or("nothing"), there.unwrap_or("nothing"));
            found.push((format!("the `{what}` of auth_callout is {there}; the callout has {here}"), hint));
        }
    }
    Ok(found)
}
