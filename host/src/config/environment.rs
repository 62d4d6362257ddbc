//! The environment variables that Portcullis reads, each named once. Nothing else of the environment is looked at.

/// Filter of the log, in the syntax of `tracing_subscriber::EnvFilter`.
pub const LOG: &str = "PORTCULLIS_LOG";
/// Base directory of the user's configuration (XDG Base Directory Specification).
pub const XDG_CONFIG_HOME: &str = "XDG_CONFIG_HOME";
/// Base directory of the user's state (XDG Base Directory Specification).
pub const XDG_STATE_HOME: &str = "XDG_STATE_HOME";
/// The user's home, where the XDG variables are absent.
pub const HOME: &str = "HOME";
/// Variables that child processes of the host see.
pub const PASSED_ON: &[&str] = &[LOG];

/// Variables by which libraries of PKCS#11 tokens find their configuration; only the identity process sees them.
pub const PKCS11: &[&str] = &["SOFTHSM2_CONF", "TPM2_PKCS11_STORE", "YUBIHSM_PKCS11_CONF"];

/// Reads one variable; absent, empty and not UTF-8 are all `None`.
pub fn read(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
