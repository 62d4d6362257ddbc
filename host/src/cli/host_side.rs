//! What `--config` adds to a verdict: the trust and the marks of the host whose configuration it names.
//!
//! A build of the signing commands alone has no configuration of hosts: there `--config` is an error, never ignored.

use std::path::{Path, PathBuf};

use portcullis_signing::PublicKey;

use super::error::CliError;
#[cfg(feature = "host")]
pub use crate::supervisor::high_water::HighWater;

/// The side of a host.
#[derive(Debug)]
pub struct HostSide {
    /// Where its trust begins.
    pub trust: Trust,
    /// The name of its cluster.
    pub cluster: String,
    state_dir: PathBuf,
}

/// Where the trust of a host begins.
#[derive(Debug)]
pub struct Trust {
    /// The signed trust policy.
    pub policy: PathBuf,
    /// Root keys.
    pub roots: Vec<PublicKey>,
    /// How many of them must have signed.
    pub threshold: usize,
    /// The signed deny list.
    pub deny_list: Option<PathBuf>,
}

#[cfg(feature = "host")]
impl HostSide {
    /// Reads it from a configuration.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let config = super::locate::config(Some(path))?;
        let crate::config::Trust { policy, roots, threshold, deny_list } = config.trust;
        let trust = Trust { policy, roots, threshold, deny_list };
        Ok(Self { trust, cluster: config.cluster, state_dir: config.state_dir })
    }

    /// What the host has seen.
    pub fn marks(&self) -> Result<HighWater, String> {
        HighWater::open(&self.state_dir.join("high-water.json")).map_err(|error| error.to_string())
    }
}

#[cfg(not(feature = "host"))]
mod none {
    use super::{CliError, HostSide, Path};

    /// The marks of a host, of which there are none here.
    #[derive(Debug)]
    pub enum HighWater {}

    impl HostSide {
        /// There is nothing to read it with.
        pub fn read(path: &Path) -> Result<Self, CliError> {
            Err(CliError::usage(format!("this build has no hosts: {} is not read", path.display()))
                .with_hint("name --trust, --root and --audience, or use a build with the feature `host`"))
        }

        /// There are none.
        pub fn marks(&self) -> Result<HighWater, String> {
            Err(format!("nothing can be known of {} here", self.state_dir.display()))
        }
    }

    impl HighWater {
        /// The highest version of the trust policy.
        pub fn trust_policy(&self) -> Option<u64> {
            match *self {}
        }

        /// The highest version of the deny list.
        pub fn deny_list(&self) -> Option<u64> {
            match *self {}
        }

        /// The root keys of the last trust policy.
        pub fn roots(&self, _pinned: &portcullis_signing::trust::Roots) -> Option<&portcullis_signing::trust::Roots> {
            match *self {}
        }

        /// The highest revision of a component.
        pub fn revision(&self, _name: &str, _audience: &str) -> Option<u64> {
            match *self {}
        }
    }
}

#[cfg(not(feature = "host"))]
pub use none::HighWater;
