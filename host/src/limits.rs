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
/// How often a source of identities outside of this host is asked how it is.
pub const SOURCE_LOOK: Duration = Duration::from_secs(2);
/// Connections of brokers at one time.
pub const BROKER_CONNECTIONS: usize = 64;
/// How long the identity process waits for a connection that it asked for.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long one attempt to connect for it may take.
pub const DIAL_ATTEMPT: Duration = Duration::from_secs(4);
/// Connections that it may ask for at once.
pub const DIALS_WAITING: usize = 64;
/// Trust domains that a host federates with.
pub const FEDERATION_PEERS: usize = 32;
/// Configuration of federation, as it is handed to the identity process.
pub const FEDERATION_BYTES: usize = 32 << 10;
/// Connections to one endpoint that serves bundles or OIDC documents; further ones wait.
pub const ENDPOINT_CONNECTIONS: usize = 128;
/// How long a client of such an endpoint may take for the head of its request, and stay idle between two.
pub const ENDPOINT_HEAD: Duration = Duration::from_secs(10);
/// How long a connection to such an endpoint may live.
pub const ENDPOINT_LIFE: Duration = Duration::from_secs(60);
/// How often an endpoint's certificate file is looked at.
pub const CERTIFICATE_POLL: Duration = Duration::from_secs(1);
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
/// Bytes that are signed for a guest at once.
pub const SIGN_DATA_BYTES: usize = 64 << 10;
/// Sets of audiences whose token is kept for one instance.
pub const TOKENS_EACH: usize = 64;
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
/// Longest time for which one command puts a component into audit mode.
pub const AUDIT_MODE_MOST: Duration = Duration::from_secs(24 * 3600);
/// Components that the configuration may name for audit mode, and that may be in it at once.
pub const AUDIT_MODE_COMPONENTS: usize = 64;
/// Distance between two looks at the policy and trust files. A change is taken up after two that agree.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(200);
/// SVIDs that one instance may have minted: in a second, and at once. Its runtime keeps tokens, so that requests are few.
pub const MINTS_EACH: (u32, u32) = (100, 400);
/// SVIDs that all instances together may have minted. A thousand a second is about a tenth of one processor.
pub const MINTS_ALL: (u32, u32) = (2_000, 10_000);
/// Signatures with the keys of one instance: one for each TLS handshake.
pub const SIGNATURES_EACH: (u32, u32) = (2_000, 4_000);
/// Signatures with the keys of all instances.
pub const SIGNATURES_ALL: (u32, u32) = (8_000, 16_000);
/// Tokens that one instance may have checked.
pub const CHECKS_EACH: (u32, u32) = (1_000, 2_000);
/// Tokens that all instances may have checked.
pub const CHECKS_ALL: (u32, u32) = (4_000, 8_000);
/// How often refusals over these limits are recorded for one instance.
pub const RATE_RECORD: Duration = Duration::from_secs(10);
/// Records in one batch for the audit log.
pub const AUDIT_BATCH: usize = 4_096;
/// X.509-SVIDs that are issued anew before the issuer is left to others for a moment.
pub const REMINT_BATCH: usize = 256;
/// SPIFFE IDs that may be revoked at once on a host.
pub const REVOKED: usize = 10_000;
/// Largest page of metrics that the identity process may give.
pub const METRICS_BYTES: usize = 4 << 20;
/// Connections to the metrics address at once; further ones are closed.
pub const METRICS_CONNECTIONS: usize = 16;
/// How long one connection to the metrics address may last.
pub const METRICS_TIMEOUT: Duration = Duration::from_secs(10);
/// Registered processes of the Workload API.
pub const WORKLOAD_ENTRIES: usize = 1_024;
/// Audiences of one registered process, and foreign trust domains.
pub const WORKLOAD_LIST: usize = 64;
/// Longest path of the Workload API's socket that a client can connect to (unix(7)).
pub const WORKLOAD_SOCKET_PATH: usize = 107;
/// Connections of one user to the Workload API; further ones are told to try later, and beyond twice as many are closed.
pub const WORKLOAD_CONNECTIONS_EACH: usize = 64;
/// Connections to the Workload API; further ones wait in the listen queue.
pub const WORKLOAD_CONNECTIONS: usize = 512;
/// How long a caller without an identity may stay connected.
pub const WORKLOAD_STRANGER: Duration = Duration::from_secs(10);
/// How often a connected process is looked at; besides, it is before each answer.
pub const WORKLOAD_LOOK: Duration = Duration::from_millis(500);
/// How long the supervisor may take to look at a process.
pub const WORKLOAD_LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest executable that is hashed.
pub const WORKLOAD_EXECUTABLE_BYTES: u64 = 1 << 30;
/// Digests of executables that are kept.
pub const WORKLOAD_DIGESTS: usize = 256;
/// How often refusals of one user are recorded.
pub const WORKLOAD_RECORD: Duration = Duration::from_secs(10);
/// Users whose refusals are counted apart.
pub const WORKLOAD_RECORD_USERS: usize = 256;
/// Largest update about whom to trust that the identity process sends the runtime: every bundle at its largest, every revocation
/// at its longest. One that were too large would leave the runtime with an older state, so nothing that may come is.
#[cfg(feature = "host")]
pub const BUNDLE_UPDATE_BYTES: usize = (portcullis_identity::limits::MAX_TRUST_DOMAINS + 1)
    * (portcullis_identity::limits::MAX_BUNDLE_BYTES + 4096)
    + 4 * REVOKED * 4096;
/// How long one call to a registry may take, its answer included; blobs have none but [`REGISTRY_IDLE`].
pub const REGISTRY_CALL: Duration = Duration::from_secs(30);
/// How long a connection to a registry may take.
pub const REGISTRY_CONNECT: Duration = Duration::from_secs(10);
/// How long a blob may come without a byte.
pub const REGISTRY_IDLE: Duration = Duration::from_secs(30);
/// Redirects that are followed for a manifest.
pub const REGISTRY_REDIRECTS: usize = 4;
/// Largest answer with a token of a registry that is read.
pub const REGISTRY_TOKEN_BYTES: usize = 64 << 10;
/// Components that are kept of those that were started from a registry.
pub const KEPT_COMPONENTS: usize = 32;
/// Bytes of them and their evidence together.
pub const KEPT_BYTES: u64 = 1 << 30;
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
/// NATS servers in the configuration.
pub const NATS_SERVERS: usize = 16;
/// Largest file with a secret of a NATS connection, or with the authorities of its servers.
pub const NATS_FILE_BYTES: usize = 64 << 10;
/// How often the files of a NATS connection are looked at.
pub const NATS_POLL: Duration = Duration::from_secs(1);
/// How long after its start the identity process may have no X.509-SVID of the host without complaining of it.
pub const NATS_FIRST_SVID: Duration = Duration::from_secs(5);
/// How long a subject that the server denied this host is shown after it was denied last.
pub const NATS_DENIED_SHOWN: Duration = Duration::from_secs(30);
/// Subjects that are shown so.
pub const NATS_DENIED_SUBJECTS: usize = 16;
/// How long one attempt to reach a NATS server may take, up to its first answer.
pub const NATS_CONNECT: Duration = Duration::from_secs(5);
/// How long the server may take to say whom it takes us for.
pub const NATS_VERIFY: Duration = Duration::from_secs(3);
/// How often that is asked again.
pub const NATS_VERIFY_AGAIN: Duration = Duration::from_secs(20);
/// First and longest pause between two attempts.
pub const NATS_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(8));
/// Pause after the server refused us, first and longest.
pub const NATS_REFUSED_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long a process that stops waits for NATS.
pub const NATS_LEAVE: Duration = Duration::from_secs(2);
/// Hosts of a cluster whose signer is pinned.
pub const CLUSTER_MEMBERS: usize = 1_024;
/// Bundle documents of a cluster's trust domains.
pub const CLUSTER_TRUST_FILES: usize = 64;
/// Shortest and longest time after which the last look at a cluster's revocations is too old.
pub const CLUSTER_STALE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));
/// Longest time without a look at a cluster's revocations in which what ran is started again, in hours.
pub const CLUSTER_OFFLINE_HOURS: u64 = 720;
/// Values that are asked of a bucket at once.
pub const CLUSTER_BATCH: u32 = 256;
/// How long a bucket may take for the next value.
pub const CLUSTER_BUCKET: Duration = Duration::from_secs(5);
/// How long a heartbeat or an event holds.
pub const CLUSTER_EVENT_LIFE: Duration = Duration::from_secs(30);
/// Pause before a component that did not start is tried again: first and longest.
pub const CLUSTER_RETRY: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(600));
/// Values that are not believed and are remembered, to be shown.
pub const CLUSTER_REFUSED: usize = 64;
/// Events that wait to be sent; further ones are dropped and counted, the audit log has all of them.
pub const CLUSTER_EVENTS: usize = 1_024;
/// How long a start waits for the first look at the revocations.
pub const CLUSTER_FIRST_LOOK: Duration = Duration::from_secs(10);
/// Messages of one subscription that wait to be handled; further ones are dropped and counted.
pub const MESSAGES_WAITING: usize = 1_024;
/// Bytes of them.
pub const MESSAGES_WAITING_BYTES: usize = 16 << 20;
/// Lines of one instance that are kept to be asked for.
pub const LOG_RING_LINES: usize = 256;
/// Instances whose lines are kept.
pub const LOG_RING_INSTANCES: usize = 256;
/// What the host has to say about starts, kept to be asked for.
pub const CONTROL_NOTICES: usize = 256;
/// Failed starts that `list` shows.
pub const CONTROL_REFUSED: usize = 32;
/// Largest request over NATS or HTTPS.
pub const CONTROL_REQUEST_BYTES: usize = 4 << 20;
/// Lines of one answer.
pub const CONTROL_LINES: u32 = 2_000;
/// Requests over NATS and HTTPS at work; further ones are refused at once.
pub const CONTROL_CALLS: usize = 64;
/// Connections to the HTTPS address.
pub const CONTROL_CONNECTIONS: usize = 128;
/// How long a client may take for its handshake, and for the head of a request.
pub const CONTROL_HEAD: Duration = Duration::from_secs(10);
/// How long a connection to the HTTPS address may live.
pub const CONTROL_LIFE: Duration = Duration::from_secs(600);
/// How long a request of the command line holds.
pub const CONTROL_REQUEST_LIFE: Duration = Duration::from_secs(30);
/// How long the command line waits for the answer to a start, and to anything else.
pub const CONTROL_WAIT: (Duration, Duration) = (Duration::from_secs(150), Duration::from_secs(10));
/// Pieces of evidence in one request.
pub const CONTROL_EVIDENCE: usize = 8;
/// Most requests that a callout may work on at once; how many it does is configuration.
pub const CALLOUT_CONCURRENCY_MOST: usize = 1024;
/// Most requests that may wait in a callout for their turn; how many do is configuration.
pub const CALLOUT_WAITING_MOST: usize = 16_384;
/// Longest time that a callout may take for an answer: servers wait less than 2 s.
pub const CALLOUT_DEADLINE_MOST: Duration = Duration::from_millis(1_500);
/// How long a callout that ends waits for the requests at work.
pub const CALLOUT_DRAIN: Duration = Duration::from_secs(3);
/// How long a record of a callout waits for those of requests that are being decided at the same time, to go to the disk together.
pub const CALLOUT_GATHER: Duration = Duration::from_millis(1);
/// Records that wait for the audit log of a callout.
pub const CALLOUT_JOURNAL: usize = 8_192;
/// SPIFFE IDs in the list of the revoked.
pub const CALLOUT_REVOCATIONS: usize = 10_000;
/// How often a callout looks at its files: a revocation takes two looks and a question to the servers, together under a second.
pub const CALLOUT_WATCH: Duration = Duration::from_millis(100);
/// How long nothing of a callout's files must have moved before what they do not say any more is believed.
pub const CALLOUT_STILL: Duration = Duration::from_secs(2);
/// How long a callout that begins waits for that.
pub const CALLOUT_SETTLE: Duration = Duration::from_secs(30);
/// Servers that a callout knows.
pub const CALLOUT_SERVERS: usize = 4_096;
/// How long a server is known after its last answer.
pub const CALLOUT_SERVER_LIFE: Duration = Duration::from_secs(60);
/// How often servers are asked who they are.
pub const CALLOUT_SERVER_LOOK: Duration = Duration::from_secs(10);
/// How long a request waits for the news that its server is one.
pub const CALLOUT_SERVER_WAIT: Duration = Duration::from_millis(300);
/// Connections that a callout remembers having let in.
pub const CALLOUT_ADMITTED: usize = 262_144;
/// How long before its end the callout speaks of what it logs in with.
pub const CALLOUT_END_WARNING: Duration = Duration::from_secs(30 * 86_400);
/// How often the same cause of no connection is written into the callout's log.
pub const CALLOUT_SAY_AGAIN: Duration = Duration::from_secs(60);
/// Bytes of a nonce that the callout signs to log in; servers draw 15.
pub const CALLOUT_NONCE: usize = 64;
/// Connections of one page of a server's list.
pub const CALLOUT_PAGE: u64 = 1_024;
/// How often every server is asked for connections that should not be.
pub const CALLOUT_SWEEP: Duration = Duration::from_secs(30);
/// Refusals a second of those whom no entry names that are recorded.
pub const CONTROL_STRANGERS: u32 = 10;
