//! The file as it is written.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::{Keys, Login, Mode, Signer, Tls};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "as the file has them")]
pub(super) struct Raw {
    pub(super) version: i64,
    pub(super) mode: Mode,
    pub(super) id: String,
    pub(super) servers: Vec<String>,
    pub(super) account: String,
    pub(super) roles: Vec<PathBuf>,
    #[serde(default)]
    pub(super) cedar: Vec<PathBuf>,
    pub(super) accounts: Vec<String>,
    #[serde(default = "sys")]
    pub(super) system_account: String,
    #[serde(default)]
    pub(super) system_key: Option<String>,
    #[serde(default)]
    pub(super) revocations: Option<PathBuf>,
    #[serde(default = "state")]
    pub(super) state_dir: PathBuf,
    pub(super) login: Login,
    #[serde(default)]
    pub(super) system: Option<Login>,
    pub(super) keys: Keys,
    #[serde(default)]
    pub(super) signer: Vec<Signer>,
    #[serde(default)]
    pub(super) tls: Option<Tls>,
    pub(super) trust_domain: Vec<RawDomain>,
    #[serde(default)]
    pub(super) limits: RawLimits,
    #[serde(default)]
    pub(super) listen: RawListen,
    #[serde(default)]
    pub(super) danger_plain_connection: bool,
    #[serde(default)]
    pub(super) danger_no_xkey: bool,
    #[serde(default)]
    pub(super) danger_no_system: bool,
    #[serde(default)]
    pub(super) danger_system_account: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDomain {
    pub(super) name: String,
    pub(super) bundle: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLimits {
    pub(super) concurrency: usize,
    pub(super) waiting: usize,
    pub(super) deadline_ms: u64,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawListen {
    #[serde(default)]
    pub(super) metrics: Option<SocketAddr>,
}

impl Default for RawLimits {
    fn default() -> Self {
        Self { concurrency: 64, waiting: 1024, deadline_ms: 1000 }
    }
}

fn sys() -> String {
    "SYS".to_owned()
}

fn state() -> PathBuf {
    PathBuf::from("state")
}
