//! Every size, count and time limit of this crate. Each has a test that crosses it.

use std::time::Duration;

/// Longest SPIFFE ID that is read or made (SPIFFE-ID section 2.3).
pub const MAX_SPIFFE_ID_BYTES: usize = 2048;
/// Longest trust domain name (SPIFFE-ID section 2.3).
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;
/// Longest instance id.
pub const MAX_INSTANCE_ID_BYTES: usize = 128;
/// Longest digest or component name that is kept with an instance.
pub const MAX_WORKLOAD_TEXT_BYTES: usize = 512;
/// Instances that may be admitted at one time.
pub const MAX_INSTANCES: usize = 65_536;

/// Longest audience. With [`MAX_AUDIENCES`] it keeps every token that is minted below [`MAX_TOKEN_BYTES`].
pub const MAX_AUDIENCE_BYTES: usize = 256;
/// Audiences of one token.
pub const MAX_AUDIENCES: usize = 8;
/// Longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// Tokens kept for one instance; the one that ends first makes room.
pub const MAX_CACHED_TOKENS: usize = 64;
/// How far a clock may be wrong when a JWT-SVID is checked. Issuer and validator share a clock, so not at all.
pub const JWT_CLOCK_SKEW: Duration = Duration::ZERO;

/// X.509 keys kept for one instance; the one that ends first makes room.
pub const MAX_X509_KEYS: usize = 4;
/// How far `notBefore` lies in the past, for peers whose clock is behind.
pub const X509_BACKDATE: Duration = Duration::from_secs(30);
/// Certificates of a chain that a peer may present.
pub const MAX_CHAIN_CERTIFICATES: usize = 8;
/// Largest certificate that is parsed.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

/// Default life of an authority (CA certificate and JWT key).
pub const DEFAULT_AUTHORITY_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Default and longest life of an X.509-SVID.
pub const DEFAULT_X509_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// Default and longest life of a JWT-SVID.
pub const DEFAULT_JWT_LIFETIME: Duration = Duration::from_secs(5 * 60);
/// Longest life an authority may be configured to have.
pub const MAX_AUTHORITY_LIFETIME: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// How often others should fetch our bundle.
pub const BUNDLE_REFRESH_HINT: Duration = Duration::from_secs(5 * 60);
/// Largest bundle document that is parsed.
pub const MAX_BUNDLE_BYTES: usize = 1024 * 1024;
/// Keys of one bundle document.
pub const MAX_BUNDLE_KEYS: usize = 64;
/// Trust domains of one trust bundle.
pub const MAX_TRUST_DOMAINS: usize = 200;

/// Largest file of the key directory.
pub const MAX_KEY_FILE_BYTES: usize = 16 * 1024;
/// Characters of outside text that a message shows.
pub const MAX_EXCERPT_CHARS: usize = 80;
