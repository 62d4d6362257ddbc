//! The environment variables that Portcullis reads, each named once. Nothing else of the environment is looked at.

/// Filter of the log, in the syntax of `tracing_subscriber::EnvFilter`.
pub const LOG: &str = "PORTCULLIS_LOG";
/// Base directory of the user's configuration (XDG Base Directory Specification).
pub const XDG_CONFIG_HOME: &str = "XDG_CONFIG_HOME";
/// Base directory of the user's state (XDG Base Directory Specification).
pub const XDG_STATE_HOME: &str = "XDG_STATE_HOME";
/// The user's home, where the XDG variables are absent.
pub const HOME: &str = "HOME";
/// Folder of the Docker config, where credentials of registries are.
pub const DOCKER_CONFIG: &str = "DOCKER_CONFIG";
/// A file of the same form, as podman, buildah and skopeo name it.
pub const REGISTRY_AUTH_FILE: &str = "REGISTRY_AUTH_FILE";
/// Seconds since 1970 to use as the time now, so that a build can be made again (reproducible-builds.org).
pub const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";
/// Variables that child processes of the host see.
pub const PASSED_ON: &[&str] = &[LOG];

/// Variables by which libraries of PKCS#11 tokens find their configuration; only the identity process sees them.
pub const PKCS11: &[&str] = &["SOFTHSM2_CONF", "TPM2_PKCS11_STORE", "YUBIHSM_PKCS11_CONF"];

/// Reads one variable; absent, empty and not UTF-8 are all `None`.
pub fn read(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
