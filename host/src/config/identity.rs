//! `[identity]`: how long authorities and SVIDs live, what JWT-SVIDs are signed with, and where the keys lie.

use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_identity::{IssuerError, IssuerOptions, JwtAlgorithm, JwtIssuer, KeyPlace, Lifetimes, Pkcs11Options, TrustDomain};
use serde::{Deserialize, Serialize};

use super::identity_source::{Outside, Source, Spire};
use super::problems::Problems;

/// Section `[identity]`. Times are seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// Life of a signing authority, X.509 or JWT: at least six times that of its SVIDs. The next one is prepared when half of
    /// it is left, and signs when a sixth is left.
    pub authority_ttl: u64,
    /// Longest life of an X.509-SVID, at most an hour.
    pub x509_ttl: u64,
    /// Longest life of a JWT-SVID, at most five minutes.
    pub jwt_ttl: u64,
    /// What JWT-SVIDs are signed with.
    pub jwt_algorithm: Algorithm,
    /// A PKCS#11 token for the keys of authorities. Absent: owner-only files in the state directory.
    pub pkcs11: Option<Pkcs11>,
    /// Where the identities of components come from.
    pub source: Source,
    /// The sockets of the site's SPIRE agent, for sources other than `builtin`.
    pub spire: Spire,
}

/// What JWT-SVIDs are signed with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// ECDSA with P-256.
    #[default]
    #[serde(rename = "ES256")]
    Es256,
    /// RSA with 2048 bits, for checkers that know nothing else.
    #[serde(rename = "RS256")]
    Rs256,
}

/// A PKCS#11 token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pkcs11 {
    /// The vendor's library.
    pub module: PathBuf,
    /// The label of the token; exactly one token must have it.
    pub token: String,
    /// The file with the user's PIN, readable by nobody else.
    pub pin_file: PathBuf,
    /// What the library reads besides: its own configuration.
    #[serde(default)]
    pub read: Vec<PathBuf>,
    /// What the library writes: the store of a token in software.
    #[serde(default)]
    pub write: Vec<PathBuf>,
}

impl Default for Identity {
    fn default() -> Self {
        let lifetimes = Lifetimes::default();
        Self {
            authority_ttl: lifetimes.authority().as_secs(),
            x509_ttl: lifetimes.x509().as_secs(),
            jwt_ttl: lifetimes.jwt().as_secs(),
            jwt_algorithm: Algorithm::default(),
            pkcs11: None,
            source: Source::default(),
            spire: Spire::default(),
        }
    }
}

impl Identity {
    /// Resolves paths against the folder of the configuration file, and says what is wrong.
    pub(super) fn check(mut self, base: &Path, own: Option<&TrustDomain>, problems: &mut Problems) -> Self {
        self.spire = self.spire.rebased(base);
        self.spire.check(self.source, own, problems);
        if let Err(error) = self.lifetimes() {
            problems.add(
                "identity",
                error.to_string(),
                Some("seconds; at most 3600 for X.509-SVIDs, 300 for JWT-SVIDs"),
            );
        }
        if let Some(pkcs11) = &mut self.pkcs11 {
            let paths = [&mut pkcs11.module, &mut pkcs11.pin_file].into_iter();
            for path in paths.chain(&mut pkcs11.read).chain(&mut pkcs11.write) {
                *path = base.join(&*path);
            }
            if pkcs11.token.is_empty() || pkcs11.token.len() > TOKEN_LABEL_BYTES {
                problems.add("identity.pkcs11.token", "must have 1 to 32 bytes", Some("the label of the token"));
            }
        }
        self
    }

    /// The source outside of this host, if the configuration names one.
    pub fn outside(&self, own: &TrustDomain) -> Option<Outside> {
        self.spire.outside(self.source, own).ok().flatten()
    }

    /// What the issuer is told.
    pub fn options(&self, jwt_issuer: Option<JwtIssuer>, wit_svid: bool) -> Result<IssuerOptions, IssuerError> {
        let keys = self.pkcs11.as_ref().map_or(KeyPlace::Disk, |pkcs11| {
            KeyPlace::Pkcs11(Pkcs11Options {
                module: pkcs11.module.clone(),
                token_label: pkcs11.token.clone(),
                pin_file: pkcs11.pin_file.clone(),
            })
        });
        let jwt_algorithm = match self.jwt_algorithm {
            Algorithm::Es256 => JwtAlgorithm::Es256,
            Algorithm::Rs256 => JwtAlgorithm::Rs256,
        };
        Ok(IssuerOptions { lifetimes: self.lifetimes()?, jwt_algorithm, jwt_issuer, wit_svid, keys })
    }

    fn lifetimes(&self) -> Result<Lifetimes, IssuerError> {
        let seconds = |seconds: u64| Duration::from_secs(seconds.min(u64::from(u32::MAX)));
        Lifetimes::new(seconds(self.authority_ttl), seconds(self.x509_ttl), seconds(self.jwt_ttl))
    }
}

/// PKCS#11 pads labels to this.
const TOKEN_LABEL_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Identity, String> {
        let identity: Identity = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut problems = Problems::new(Path::new("portcullis.toml"));
        let identity = identity.check(Path::new("/etc/portcullis"), None, &mut problems);
        if problems.is_empty() { Ok(identity) } else { Err(problems.into_error().to_string()) }
    }

    #[test]
    fn the_defaults_are_a_day_an_hour_and_five_minutes_with_es256_and_files() {
        let identity = read("").unwrap();
        assert_eq!((identity.authority_ttl, identity.x509_ttl, identity.jwt_ttl), (86_400, 3_600, 300));
        let options = identity.options(None, false).unwrap();
        assert_eq!(options, IssuerOptions::new(Lifetimes::default()));
    }

    #[test]
    fn lives_that_do_not_fit_together_and_words_that_are_not_known_are_refused() {
        for bad in [
            "x509_ttl = 3601",
            "jwt_ttl = 301",
            "jwt_ttl = 0",
            "authority_ttl = 21599",
            "authority_ttl = 99999999999999",
            "jwt_algorithm = \"HS256\"",
            "jwt_algorithm = \"none\"",
            "unknown = 1",
            "[pkcs11]\nmodule = \"a\"\ntoken = \"\"\npin_file = \"p\"",
            "[pkcs11]\nmodule = \"a\"\npin_file = \"p\"",
            "[pkcs11]\nmodule = \"a\"\ntoken = \"t\"\npin_file = \"p\"\npin = \"1234\"",
        ] {
            assert!(read(bad).is_err(), "{bad} passed");
        }
    }

    #[test]
    fn paths_of_a_token_are_relative_to_the_file() {
        let text =
            "jwt_algorithm = \"RS256\"\n[pkcs11]\nmodule = \"/usr/lib/p11.so\"\ntoken = \"ca\"\npin_file = \"pin\"";
        let options = read(text).unwrap().options(None, true).unwrap();
        assert!(options.wit_svid && options.jwt_algorithm == JwtAlgorithm::Rs256);
        let KeyPlace::Pkcs11(pkcs11) = options.keys else { panic!("not in a token") };
        assert_eq!(pkcs11.module, Path::new("/usr/lib/p11.so"));
        assert_eq!(pkcs11.pin_file, Path::new("/etc/portcullis/pin"));
    }
}
