//! The one provider of cryptography for TLS clients that are not ours to configure: `ring`, for a client of registries.

/// Makes `ring` the default of this process. Doing it again changes nothing.
pub fn install_tls_provider() {
    // An error says that there is one already; nothing else in this program installs one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
