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

/// X.509 keys of one instance that are kept until their SVIDs end, the newest first.
pub const KEPT_X509_KEYS: usize = 4;
/// X.509 keys kept for one instance where many SVIDs were replaced one after the other; the oldest makes room.
pub const MAX_X509_KEYS: usize = 64;
/// How long further keys of SVIDs that were replaced still sign: for handshakes that are under way.
pub const REPLACED_KEY_LIFE: Duration = Duration::from_secs(60);
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

/// How many SVIDs' lives an authority lives at least.
pub const AUTHORITY_PER_SVID: u32 = 6;

/// How often others should fetch our bundle.
pub const BUNDLE_REFRESH_HINT: Duration = Duration::from_secs(5 * 60);
/// Largest bundle document that is parsed.
pub const MAX_BUNDLE_BYTES: usize = 1024 * 1024;
/// Keys of one bundle document.
pub const MAX_BUNDLE_KEYS: usize = 64;
/// Trust domains of one trust bundle.
pub const MAX_TRUST_DOMAINS: usize = 200;

/// Longest name of a key (`kid`).
pub const MAX_KEY_ID_BYTES: usize = 256;
/// Smallest RSA modulus (2048 bits).
pub const MIN_RSA_MODULUS_BYTES: usize = 256;
/// Largest RSA modulus (8192 bits).
pub const MAX_RSA_MODULUS_BYTES: usize = 1024;

/// Longest URL of a bundle endpoint.
pub const MAX_BUNDLE_URL_BYTES: usize = 2048;
/// Hosts that one bundle endpoint may redirect to.
pub const MAX_REDIRECT_HOSTS: usize = 8;
/// Redirects of one fetch of a bundle.
pub const MAX_REDIRECTS: usize = 3;
/// Largest head of a bundle endpoint's answer.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Largest PEM file of an endpoint's certificate or key.
pub const MAX_WEB_CERTIFICATE_BYTES: usize = 256 * 1024;
/// How long one fetch of a bundle may take, with its redirects.
pub const BUNDLE_FETCH: Duration = Duration::from_secs(20);
/// How often a bundle without a refresh hint is fetched (SPIFFE_Trust_Domain_and_Bundle section 4.1.2).
pub const DEFAULT_POLL: Duration = Duration::from_secs(5 * 60);
/// A shorter refresh hint counts as this.
pub const MIN_POLL: Duration = Duration::from_secs(10);
/// A longer refresh hint counts as this.
pub const MAX_POLL: Duration = Duration::from_secs(24 * 60 * 60);
/// By how much a poll comes earlier or later at random.
pub const POLL_JITTER_PERCENT: u32 = 10;
/// How long others may keep our OIDC documents.
pub const OIDC_MAX_AGE: Duration = Duration::from_secs(5 * 60);

/// Largest key file.
pub const MAX_KEY_FILE_BYTES: usize = 16 * 1024;
/// Longest PIN of a PKCS#11 token, with the end of its line.
pub const MAX_PIN_BYTES: usize = 256;
/// How long one call of a PKCS#11 module may take; making an RSA key in a token is the longest.
pub const TOKEN_CALL: Duration = Duration::from_secs(20);
/// Largest journal of authorities.
pub const MAX_JOURNAL_BYTES: usize = 128 * 1024;
/// Authorities of one kind that may be published at one time; a forced rotation beyond waits for one to end.
pub const MAX_AUTHORITIES: usize = 16;
/// How many refresh hints an authority is published before its first use.
pub const PUBLISHED_HINTS: u32 = 5;
/// The largest part of an X.509-SVID's life that is taken off at random, so that those of one moment do not all end at one.
pub const X509_JITTER_PERCENT: u64 = 10;
/// Longest purpose of a signature.
pub const MAX_PURPOSE_BYTES: usize = 64;
/// Longest `iss` of a JWT-SVID.
pub const MAX_ISSUER_BYTES: usize = 256;
/// Characters of outside text that a message shows.
pub const MAX_EXCERPT_CHARS: usize = 80;

/// Largest private key in PKCS#8 that is parsed.
pub const MAX_PKCS8_BYTES: usize = 4 * 1024;
/// First pause after an upstream failed.
pub const UPSTREAM_BACKOFF_MIN: Duration = Duration::from_millis(200);
/// Longest pause between attempts to reach an upstream.
pub const UPSTREAM_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How long a component waits for the first answer of an upstream about it.
pub const UPSTREAM_FIRST_ANSWER: Duration = Duration::from_secs(10);
/// How long one call to an upstream may take.
pub const UPSTREAM_CALL: Duration = Duration::from_secs(10);
/// How long an SVID that the bundle does not verify waits for a newer bundle.
pub const UPSTREAM_BUNDLE_WAIT: Duration = Duration::from_secs(5);
/// How long bundles of an upstream that says nothing any more verify others.
pub const UPSTREAM_BUNDLE_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// How much longer than granted an upstream's SVID may live: its clock, its rounding, its backdating.
pub const UPSTREAM_LIFETIME_SLACK: Duration = Duration::from_secs(60);
/// Characters that are kept of what an upstream, or the way to it, said about a failure.
pub const MAX_UPSTREAM_PROBLEM_CHARS: usize = 400;
/// Largest message of an upstream that is read.
pub const MAX_UPSTREAM_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// Dynamic table of HPACK that clients may use: the default of HTTP/2, which the server does not change.
pub const HEADER_TABLE_BYTES: u32 = 4096;
/// Longest string of a header block that is followed.
pub const HEADER_STRING_BYTES: u32 = 32 * 1024;
/// Largest header block that is followed, with its continuations.
pub const HEADER_BLOCK_BYTES: usize = 64 * 1024;
/// Octets of a connection that are held back because they may still be rewritten.
pub const AUTHORITY_HOLD_BYTES: usize = 1024;

/// Largest message of the Workload API: what gRPC clients take by default.
pub const WORKLOAD_MESSAGE_BYTES: usize = 4 * 1024 * 1024 - 64 * 1024;
/// Largest request of the Workload API: a token and its audience.
pub const WORKLOAD_REQUEST_BYTES: usize = 16 * 1024;
/// Headers of one request.
pub const WORKLOAD_HEADER_BYTES: u32 = 16 * 1024;
/// Calls and streams at once on one connection.
pub const WORKLOAD_STREAMS: u32 = 64;
/// How long a client may take to begin to speak.
pub const WORKLOAD_PREFACE: Duration = Duration::from_secs(10);
/// How long a connection may be silent before the client is pinged.
pub const WORKLOAD_KEEPALIVE: Duration = Duration::from_secs(30);
/// How long it may take to answer a ping.
pub const WORKLOAD_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long connections may take to end when the server does.
pub const WORKLOAD_DRAIN: Duration = Duration::from_millis(500);
/// A stream looks at its state at least this often, changed or not: what wakes it may have been missed.
pub const WORKLOAD_LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);
/// A stream does not look at its state more often than this without a change.
pub const WORKLOAD_SHORTEST_WAIT: Duration = Duration::from_secs(1);

/// Brokers that may be listed.
pub const MAX_BROKERS: usize = 64;
/// Components that one broker may name.
pub const MAX_BROKER_COMPONENTS: usize = 256;
/// Largest workload reference that is decoded.
pub const MAX_BROKER_REFERENCE_BYTES: usize = 8 * 1024;
/// Largest request of a broker.
pub const BROKER_REQUEST_BYTES: usize = 64 * 1024;
/// Largest answer to a broker: what gRPC clients take by default.
pub const BROKER_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// Calls and streams of a broker at one time.
pub const BROKER_STREAMS: u32 = 256;
/// How long a broker's handshake may take.
pub const BROKER_HANDSHAKE: Duration = Duration::from_secs(10);
/// How often an idle connection of a broker is asked whether it lives.
pub const BROKER_KEEPALIVE: Duration = Duration::from_secs(30);
/// How long a stream waits before it looks again where nothing changed.
pub const BROKER_LONGEST_WAIT: Duration = Duration::from_secs(300);
/// How soon a stream looks again at most.
pub const BROKER_SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// Largest signed statement that is looked at.
pub const MAX_STATEMENT_BYTES: usize = 16 * 1024;
/// Largest statement with its payload in one object.
pub const MAX_ENVELOPE_BYTES: usize = 1024 * 1024;
/// Longest audience of a statement: a SPIFFE ID.
pub const MAX_AUDIENCE_TEXT_BYTES: usize = MAX_SPIFFE_ID_BYTES;
/// Longest place of a statement.
pub const MAX_PLACE_BYTES: usize = 256;
/// How far the clocks of a statement's signer and reader may be apart.
pub const STATEMENT_CLOCK_SKEW: Duration = Duration::from_secs(5);
/// Longest life of a request, a reply or an event.
pub const LONGEST_REQUEST: Duration = Duration::from_secs(60);
/// Longest life of what is kept in a bucket.
pub const LONGEST_KEPT_STATEMENT: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);
/// Statements that are remembered at one time, so that none is used twice.
pub const MAX_REPLAY: usize = 65_536;
/// Of one signer.
pub const MAX_REPLAY_PER_SIGNER: usize = 8_192;
/// Signers of those.
pub const MAX_REPLAY_SIGNERS: usize = 1_024;
/// Largest NATS JWT that is looked at: a request of an auth callout carries certificate chains.
pub const MAX_NATS_JWT_BYTES: usize = 128 * 1024;
/// How deep the JSON of a NATS JWT may be nested.
pub const MAX_NATS_JSON_DEPTH: usize = 16;
/// Values in the JSON of a NATS JWT.
pub const MAX_NATS_JSON_VALUES: usize = 4096;
/// Longest subject in a NATS JWT that we make.
pub const MAX_NATS_SUBJECT_BYTES: usize = 255;
/// Subjects that may be published to, and subjects that may be subscribed to, in one NATS JWT that we make.
pub const MAX_NATS_RIGHTS: usize = 256;
/// Longest name of an account, role or queue group in a NATS JWT that we make.
pub const MAX_NATS_NAME_BYTES: usize = 128;
/// Tags in one NATS JWT that we make.
pub const MAX_NATS_TAGS: usize = 16;
/// Longest key and longest value of a tag.
pub const MAX_NATS_TAG_BYTES: usize = 64;
/// Signing keys of one account or operator.
pub const MAX_NATS_SIGNING_KEYS: usize = 64;
/// Largest credentials file.
pub const MAX_CREDS_BYTES: usize = 32 * 1024;

/// How far a NATS server's clock may differ from ours when its requests are checked.
pub const CALLOUT_CLOCK_SKEW: Duration = Duration::from_secs(5);
/// How long a request of an auth callout may be good for. A server sets the time-out of its authorization.
pub const MAX_CALLOUT_REQUEST_LIFE: Duration = Duration::from_secs(60);
/// Requests of an auth callout that are remembered until they end; one more is refused.
pub const MAX_CALLOUT_REPLAYS: usize = 65_536;
/// Verified chains of one request that are looked at.
pub const MAX_CALLOUT_CHAINS: usize = 4;
/// Servers whose shared secret is kept.
pub const MAX_XKEY_PEERS: usize = 256;
