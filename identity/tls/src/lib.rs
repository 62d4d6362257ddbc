//! The one provider of cryptography for TLS clients that are not ours to configure, such as a client of registries: `ring`.
//!
//! A crate of its own, so that the signing commands can be built without the rest of `identity/`.

/// Makes `ring` the default of this process. Doing it again changes nothing.
pub fn install_provider() {
    // An error says that there is one already; nothing else in this program installs one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
