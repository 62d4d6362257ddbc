//! How large things may be. Past a limit: refused, never cut silently (text that is only shown is cut and marked).

/// Bytes of one policy source.
pub const SOURCE_BYTES: usize = 8 << 20;
/// Sources of one set.
pub const SOURCES: usize = 64;
/// Grants of one source.
pub const GRANTS: usize = 20_000;
/// Entries of one list in a grant.
pub const LIST_ENTRIES: usize = 256;
/// Raw Cedar policies of one source: every slice may carry them all.
pub const RAW_POLICIES: usize = 1_000;
/// Bytes of one source of raw Cedar.
pub const RAW_BYTES: usize = 1 << 20;
/// Brackets within brackets in raw Cedar.
pub const RAW_DEPTH: usize = 24;
/// Operators of one raw Cedar policy.
pub const RAW_OPERATORS: usize = 300;
/// Bytes of an id of a grant or a policy.
pub const ID_BYTES: usize = 64;
/// Bytes of a reason.
pub const REASON_BYTES: usize = 512;
/// Bytes of an owner.
pub const OWNER_BYTES: usize = 128;
/// Problems listed for one set; the rest are counted.
pub const PROBLEMS: usize = 100;

/// Bytes of an authority (host and port) before it is canonicalised.
pub const AUTHORITY_BYTES: usize = 512;
/// Bytes of a DNS name (RFC 1035 section 3.1, without the root's dot).
pub const DNS_NAME_BYTES: usize = 253;
/// Bytes of one label of a DNS name.
pub const DNS_LABEL_BYTES: usize = 63;
/// Bytes of a SPIFFE ID (SPIFFE ID section 2.3).
pub const SPIFFE_ID_BYTES: usize = 2048;
/// Bytes of a trust domain name (SPIFFE ID section 2.1).
pub const TRUST_DOMAIN_BYTES: usize = 255;
/// Bytes of a component's name.
pub const COMPONENT_NAME_BYTES: usize = 256;
/// Bytes of an interface's name with its version.
pub const INTERFACE_BYTES: usize = 256;
/// Bytes of an audience.
pub const AUDIENCE_BYTES: usize = 255;
/// Bytes of the purpose of a signature.
pub const PURPOSE_BYTES: usize = 64;
/// Bytes of an HTTP method.
pub const METHOD_BYTES: usize = 64;
/// Bytes of each other fact about a component.
pub const FACT_BYTES: usize = 512;
/// Imports of an image.
pub const IMAGE_IMPORTS: usize = 1_024;

/// Shortest prefix of an IPv4 range in a grant.
pub const V4_PREFIX: u8 = 8;
/// Shortest prefix of an IPv6 range in a grant.
pub const V6_PREFIX: u8 = 16;

/// Longest life of a JWT-SVID where a grant names none, in seconds.
pub const JWT_TTL_DEFAULT: u64 = 300;
/// Longest life of a JWT-SVID that a grant may name, in seconds.
pub const JWT_TTL_MOST: u64 = 3_600;
/// Longest life of an X.509-SVID, in seconds.
pub const X509_TTL_MOST: u64 = 3_600;

/// Bytes of a refusal's text.
pub const DENIAL_BYTES: usize = 2 << 10;
/// Callers that no grant names and whose decision one slice remembers. More are decided anew each time.
pub const REMEMBERED_CALLERS: usize = 64;

/// Allowed requests that a slice remembers at least room for.
pub const REMEMBERED_SENDS: usize = 64;
/// Allowed requests that one slice remembers at most. More are decided anew each time.
pub const REMEMBERED_SENDS_MOST: usize = 4_096;

/// Cases of one file of expected decisions.
pub const CASES: usize = 10_000;
/// Combinations of values that are tried for facts which are not known; where there are more, there is no answer.
pub const GUESSES: usize = 64;
/// Additions that are learnt at once.
pub const LEARNED: usize = 256;
/// Bytes of text in a question that a refusal keeps.
pub const QUESTION_BYTES: usize = 2 << 10;

/// Bytes of the name of a host.
pub const HOST_NAME_BYTES: usize = 63;
/// Bytes of a NATS subject.
pub const SUBJECT_BYTES: usize = 255;
/// Tokens of a NATS subject.
pub const SUBJECT_TOKENS: usize = 16;
/// Bytes of a file's path.
pub const PATH_BYTES: usize = 1_024;
/// Segments of a path or of a secret's name.
pub const PATH_SEGMENTS: usize = 32;
/// Bytes of a bucket's name.
pub const BUCKET_BYTES: usize = 128;
/// Bytes of a secret's name.
pub const SECRET_BYTES: usize = 256;

/// Roles of a callout.
pub const ROLES: usize = 1_000;
/// Subjects of one list of a role.
pub const ROLE_SUBJECTS: usize = 64;
/// Ranges of addresses of a role.
pub const ROLE_SOURCES: usize = 64;
/// Answers to one request that a role may allow.
pub const ROLE_RESPONSES: u32 = 1_000;
/// Shortest life of a connection, in seconds.
pub const ROLE_LIFETIME_LEAST: u64 = 30;
/// Longest that a role may answer a request, in seconds: a start over NATS may take so long, and somewhat longer.
pub const ROLE_RESPONSES_WITHIN: u64 = 300;
/// Longest life of a connection, in seconds.
pub const ROLE_LIFETIME_MOST: u64 = 86_400;
/// Parts in braces of a template.
pub const CAPTURES: usize = 4;
/// Bytes of what such a part may stand for.
pub const CAPTURE_BYTES: usize = 63;
/// Bytes of an account's name.
pub const ACCOUNT_BYTES: usize = 64;

/// Bytes of a NATS server's configuration with what it includes.
pub const SERVER_BYTES: usize = 4 << 20;
/// Days before its end from which on a JWT of a server's configuration is spoken of.
pub const SERVER_END_DAYS: i64 = 30;
/// Files of such a configuration.
pub const SERVER_FILES: usize = 64;
/// Values within values of such a configuration.
pub const SERVER_DEPTH: usize = 16;
/// Uses of variables in such a configuration.
pub const SERVER_VARIABLES: usize = 1_000;
/// Values of such a configuration.
pub const SERVER_VALUES: usize = 100_000;
/// Longest queue group of a role.
pub const QUEUE_BYTES: usize = 128;
