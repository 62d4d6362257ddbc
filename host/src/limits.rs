//! Sizes, counts and time-outs that are not configuration. Configurable ones are in [`crate::config`].

use std::time::Duration;

/// Largest configuration file, grants file or trust policy that is read.
pub const CONFIG_BYTES: u64 = 4 << 20;
/// Largest component file that is read, whatever the trust policy says.
pub const COMPONENT_BYTES: u64 = 256 << 20;
/// Largest bundle or claims file.
pub const EVIDENCE_BYTES: u64 = 1 << 20;
/// Largest file beside a component: a bill of materials may be larger than any bundle, which the verifier bounds itself.
pub const ATTACHMENT_BYTES: u64 = 16 << 20;
/// Largest SBOM.
pub const SBOM_BYTES: u64 = 16 << 20;
/// Largest native code that a compile process may hand back.
pub const NATIVE_BYTES: u64 = 1 << 30;
/// Largest packet on a handover socket, header and payload.
pub const HANDOVER_BYTES: usize = 64 << 10;
/// File descriptors in one handover packet.
pub const HANDOVER_FDS: usize = 4;
/// Outgoing connections of all guests together.
pub const OUTGOING: usize = 1024;
/// Outgoing connections of one request.
pub const OUTGOING_PER_REQUEST: usize = 32;
/// TLS handshakes of clients at once; further ones are refused.
pub const HANDSHAKES: usize = 64;
/// Decisions of the request path that wait for the supervisor.
pub const EVENT_RING: usize = 4096;
/// Longest text of a guest or a peer that is taken into a log line.
pub const LOG_TEXT: usize = 256;
/// Lines that one request may write to stdout and stderr together before the rest is dropped and counted.
pub const LOG_LINES_PER_REQUEST: u32 = 64;
/// How long a child process may take to answer after its start.
pub const CHILD_START: Duration = Duration::from_secs(20);
/// How long the compile process may run for one component, by the wall clock.
pub const COMPILE_DEADLINE: Duration = Duration::from_secs(120);
/// Processor time of one compile process, in seconds.
pub const COMPILE_CPU_SECONDS: u64 = 240;
/// Address space of one compile process.
pub const COMPILE_ADDRESS_SPACE: u64 = 8 << 30;
/// How often the files of the trust policy and the deny list, and the expiry of claims, are looked at.
pub const TRUST_POLL: Duration = Duration::from_millis(250);
/// How long any call to a child may take; longer than [`DRAIN`].
pub const CHILD_CALL: Duration = Duration::from_secs(30);
/// How long one call to another process of ours may take.
pub const RPC_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a signature in a TLS handshake may take.
pub const SIGN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a TLS handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a name may take to resolve.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// First pause before a dead child is started again; doubles up to [`RESTART_MAX`].
pub const RESTART_MIN: Duration = Duration::from_millis(20);
/// Longest pause before a dead child is started again.
pub const RESTART_MAX: Duration = Duration::from_secs(5);
/// A child that lived this long starts with the shortest pause again.
pub const RESTART_RESET: Duration = Duration::from_secs(30);
/// How long requests in flight may take after SIGTERM.
pub const DRAIN: Duration = Duration::from_secs(20);
/// Distance between two epoch ticks.
pub const EPOCH_TICK: Duration = Duration::from_millis(2);
/// Chunk of a memory scan.
pub const SCAN_CHUNK: usize = 64 << 10;
/// How long one call to a registry may take, its answer included; blobs have none but [`REGISTRY_IDLE`].
pub const REGISTRY_CALL: Duration = Duration::from_secs(30);
/// How long a connection to a registry may take.
pub const REGISTRY_CONNECT: Duration = Duration::from_secs(10);
/// How long a blob may come without a byte.
pub const REGISTRY_IDLE: Duration = Duration::from_secs(30);
/// Redirects that are followed for a manifest.
pub const REGISTRY_REDIRECTS: usize = 4;
/// How long a credential helper may take.
pub const CREDENTIAL_HELPER: Duration = Duration::from_secs(30);
/// Pages of a list of referrers that are read.
pub const REFERRER_PAGES: usize = 8;
/// Times that the list of referrers is written, where others write it too.
pub const REFERRER_TRIES: usize = 4;
/// Connections in a row that may break off without a new byte of a blob.
pub const BLOB_TRIES: u32 = 5;
/// Pause before a blob is taken up again; grows with each try.
pub const BLOB_PAUSE: Duration = Duration::from_millis(200);
/// Pieces in which a blob is handed to the upload.
pub const PUSH_CHUNK: usize = 64 << 10;
/// How long a signing command may take.
pub const SIGNER_DEADLINE: Duration = Duration::from_secs(60);
/// Largest answer of a signing command.
pub const SIGNER_ANSWER: u64 = 16 << 10;
