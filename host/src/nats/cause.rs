//! Why there is no connection to NATS, in words that an operator understands.
//!
//! What the client library, the TLS library and the server say is meant for their authors, and some of it misleads: a server that
//! wants TLS first "says nothing", a token that is too long is an "IO error", a server without TLS sends "a corrupt message".
//! Each of these texts is pinned by a test against the real server.

use std::fmt;

use crate::limits::LOG_TEXT;

/// Why there is no verified connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// It was not tried yet, or a rotation is under way.
    Connecting,
    /// Whoever held it closed it.
    Closed,
    /// The server's name is not known. The network or the configuration.
    Unresolved,
    /// Nobody answers there, or not in time.
    Unreachable(String),
    /// The connection broke off.
    Lost,
    /// The server speaks no TLS (at this point). Nothing but the first message of a handshake was sent.
    NoTls,
    /// The server waits for TLS before it says anything.
    TlsFirst,
    /// The server's certificate is of another authority.
    WrongAuthority,
    /// The server's certificate is for another name.
    WrongName(String),
    /// The server's certificate is out of its time.
    ServerExpired,
    /// The server has another SPIFFE ID, or none.
    WrongServer(String),
    /// The server refused the client's certificate.
    CertificateRefused(String),
    /// The handshake failed otherwise.
    Tls(String),
    /// What the host was to show could not be had: a file, the identity process.
    Credential(String),
    /// The server said no.
    Refused,
    /// The server did not decide in time: its auth callout is silent or slow.
    Undecided,
    /// What was shown is over.
    Expired(String),
    /// The server accepted, but did not say whom it takes us for.
    Unverified,
    /// It may not be asked whom it takes us for.
    MayNotAsk,
    /// It took us for somebody else.
    WrongUser {
        /// Who we should be.
        expected: String,
        /// Whom it takes us for.
        found: String,
    },
    /// It put us into another account.
    WrongAccount {
        /// Where we should be.
        expected: String,
        /// Where it put us.
        found: String,
    },
    /// What is shown is too long for the server.
    TooLong,
    /// The server is full.
    Full(String),
    /// Anything else.
    Other(String),
}

impl Cause {
    /// A stable word, for metrics and `--json`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Closed => "closed",
            Self::Unresolved => "unresolved",
            Self::Unreachable(_) => "unreachable",
            Self::Lost => "lost",
            Self::NoTls => "no-tls",
            Self::TlsFirst => "tls-first",
            Self::WrongAuthority => "wrong-authority",
            Self::WrongName(_) => "wrong-name",
            Self::ServerExpired => "server-expired",
            Self::WrongServer(_) => "wrong-server",
            Self::CertificateRefused(_) => "certificate-refused",
            Self::Tls(_) => "tls",
            Self::Credential(_) => "credential",
            Self::Refused => "refused",
            Self::Undecided => "undecided",
            Self::Expired(_) => "expired",
            Self::Unverified => "unverified",
            Self::MayNotAsk => "may-not-ask",
            Self::WrongUser { .. } => "wrong-user",
            Self::WrongAccount { .. } => "wrong-account",
            Self::TooLong => "too-long",
            Self::Full(_) => "full",
            Self::Other(_) => "other",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Connecting => "wait a moment",
            Self::Closed => "the host is going down",
            Self::Unresolved => "see nats.servers and the resolver of this machine",
            Self::Unreachable(_) => "see that the server is up, and that nats.servers and the network are right",
            Self::Lost => "see the server's log; it is tried again",
            Self::NoTls => {
                "the server must have a tls block; with tls.first = true also handshake_first; and it must be the client port"
            }
            Self::TlsFirst => "the server has handshake_first: set tls.first = true under [nats]",
            Self::WrongAuthority => "see nats.tls.ca: it must hold the authority that issued the server's certificate",
            Self::WrongName(_) => {
                "name the server in nats.servers as in its certificate, or have one issued for this name"
            }
            Self::ServerExpired => {
                "renew the server's certificate and have the server reload; see that the clocks agree"
            }
            Self::WrongServer(_) => "see nats.tls.server_id: if it is right, somebody else answers at this address",
            Self::CertificateRefused(_) => {
                "see the server's log: its ca_file must hold the authority of this host's certificate, which must be alive"
            }
            Self::Tls(_) => "the server must speak TLS 1.3",
            Self::Credential(_) => "see nats.auth and the log of the identity process",
            Self::Refused => "see the server's log: the user must exist there, or its auth callout must let it in",
            Self::Undecided => {
                "see that the auth callout runs, and that authorization.timeout of the server is below 2 seconds"
            }
            Self::Expired(_) => "it is connected again with what is current",
            Self::Unverified => "see that the server is not overloaded and that its auth callout answers",
            Self::MayNotAsk => {
                "allow publishing to $SYS.REQ.USER.INFO and subscribing to the inbox of this host: `portcullis cluster init --print --host NAME` prints both"
            }
            Self::WrongUser { .. } => "see how the server maps certificates and tokens to users; or nats.user",
            Self::WrongAccount { expected, found } if is_account_key(found) && !is_account_key(expected) => {
                "the server is in operator mode: there nats.account is the account's public key (A...), not its name"
            }
            Self::WrongAccount { .. } => "see in which account the server has this user; or nats.account",
            Self::TooLong => "raise max_control_line of the server, or show a shorter token",
            Self::Full(_) => "see max_connections of the server and of the account",
            Self::Other(_) => "see the server's log",
        }
    }

    /// Whether the server refuses who we are: trying again at once would only hammer at it.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Refused
                | Self::Undecided
                | Self::Unverified
                | Self::MayNotAsk
                | Self::CertificateRefused(_)
                | Self::WrongUser { .. }
                | Self::WrongAccount { .. }
                | Self::TooLong
                | Self::Full(_)
        )
    }

    /// What an attempt to connect ended with, as the client library tells it.
    pub fn of_attempt(text: &str) -> Self {
        let has = |part: &str| text.contains(part);
        if has("authorization violation") {
            return Self::Refused;
        }
        if has("expected INFO, got nothing") {
            return Self::TlsFirst;
        }
        if has("InvalidContentType") || has("Unknown Protocol") {
            return Self::NoTls;
        }
        if let Some(alert) = after(text, "received fatal alert: ") {
            return Self::CertificateRefused(alert);
        }
        if has("UnknownIssuer") || has("CaUsedAsEndEntity") || has("BadSignature") {
            return Self::WrongAuthority;
        }
        if has("certificate expired") || has("not valid yet") || has("Expired") || has("NotValidYet") {
            return Self::ServerExpired;
        }
        if has("not valid for name") || has("NotValidForName") {
            let name = text.split_once("for name \"").and_then(|(_, rest)| rest.split('"').next());
            return Self::WrongName(cut(name.unwrap_or_default()));
        }
        if let Some(what) = after(text, "the peer ") {
            return Self::WrongServer(what);
        }
        if let Some(why) = after(text, "(the certificate") {
            return Self::WrongServer(format!("shows no X.509-SVID: the certificate {why}"));
        }
        if let Some(why) = after(text, "the handshake could not be signed: ") {
            return Self::Credential(why);
        }
        if has("could not load platform certs") {
            return Self::Tls("the file that SSL_CERT_FILE names cannot be read".to_owned());
        }
        if let Some(why) = after(text, "AuthError(") {
            return Self::Credential(why.trim_end_matches(')').to_owned());
        }
        if has("DNS error") || has("failed to lookup") {
            return Self::Unresolved;
        }
        if has("timed out") {
            return Self::Unreachable("no answer in time".to_owned());
        }
        if has("refused") || has("unreachable") || has("No route") {
            return Self::Unreachable("nobody listens there".to_owned());
        }
        if has("received corrupt message") || has("peer is incompatible") || has("peer misbehaved") || has("TLS error")
        {
            return Self::Tls(cut(text));
        }
        if has("broken pipe") || has("reset") || has("close_notify") || has("eof") {
            return Self::Lost;
        }
        let last = text.rsplit_once(": ").and_then(|(_, last)| Self::of_server(last));
        last.unwrap_or_else(|| Self::Other(cut(text)))
    }

    /// What a server said in `-ERR`; `None`: nothing that ends a connection.
    pub fn of_server(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        let has = |part: &str| lower.contains(part);
        Some(match () {
            () if has("permissions violation") => return None,
            () if has("authorization violation") => Self::Refused,
            () if has("authentication timeout") => Self::Undecided,
            () if has("authentication expired") => Self::Expired(cut(text)),
            () if has("authentication revoked") => Self::Refused,
            () if has("maximum control line") => Self::TooLong,
            () if has("maximum connections") || has("maximum account") => Self::Full(cut(text)),
            () if has("unknown protocol") || has("parser error") => Self::NoTls,
            () if has("secure connection") => Self::Tls(cut(text)),
            () if has("stale connection") => Self::Lost,
            () => Self::Other(cut(text)),
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, "this host")
    }
}

impl Cause {
    /// The same for somebody else who connects, an operator: "this operator" in place of "this host".
    pub fn said_of(&self, whom: &'static str) -> impl fmt::Display {
        fmt::from_fn(move |f| self.write(f, whom))
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, whom: &str) -> fmt::Result {
        match self {
            Self::Connecting => f.write_str("it is being connected"),
            Self::Closed => f.write_str("it was closed"),
            Self::Unresolved => f.write_str("the server's name has no address"),
            Self::Unreachable(why) => write!(f, "the server is not reached: {why}"),
            Self::Lost => f.write_str("the connection broke off"),
            Self::NoTls => f.write_str("the server does not offer TLS; nothing was shown to it"),
            Self::TlsFirst => f.write_str("the server says nothing: it waits for TLS first"),
            Self::WrongAuthority => f.write_str("the server's certificate is of an authority that is not trusted here"),
            Self::WrongName(name) if name.is_empty() => f.write_str("the server's certificate is for another name"),
            Self::WrongName(name) => write!(f, "the server's certificate is for another name than {name}"),
            Self::ServerExpired => f.write_str("the server's certificate has expired, or is not valid yet"),
            Self::WrongServer(what) => write!(f, "the server is not who it should be: it {what}"),
            Self::CertificateRefused(alert) => write!(f, "the server refused {whom}'s certificate ({alert})"),
            Self::Tls(why) => write!(f, "the TLS handshake failed: {why}"),
            Self::Credential(why) => write!(f, "there is nothing to show to the server: {why}"),
            Self::Refused => write!(f, "the server does not let {whom} in (authorization violation)"),
            Self::Undecided => write!(f, "the server did not decide in time whether to let {whom} in"),
            Self::Expired(what) => write!(f, "what was shown to the server is over ({what})"),
            Self::Unverified => {
                write!(f, "the server took the connection, but does not say whom it takes {whom} for")
            }
            Self::MayNotAsk => write!(f, "{whom} may not ask the server whom it takes it for"),
            Self::WrongUser { expected, found } => {
                write!(f, "the server takes {whom} for {found}, not for {expected}")
            }
            Self::WrongAccount { expected, found } => {
                write!(f, "the server put {whom} into the account {found}, not into {expected}")
            }
            Self::TooLong => write!(f, "what {whom} shows is longer than the server takes"),
            Self::Full(what) => write!(f, "the server is full ({what})"),
            Self::Other(what) => write!(f, "the server or the network said: {what}"),
        }
    }
}

fn is_account_key(text: &str) -> bool {
    portcullis_nkey::PublicKey::parse(text, portcullis_nkey::Kind::Account).is_ok()
}

/// What comes after a text, cut and escaped.
fn after(text: &str, part: &str) -> Option<String> {
    text.split_once(part).map(|(_, rest)| cut(rest.trim_matches(['"', ' ', ':', ';', ')'])))
}

fn cut(text: &str) -> String {
    text.chars().take(LOG_TEXT).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_attempts_are_named_for_what_they_mean() {
        for (text, code) in [
            ("authorization violation: nats: authorization violation", "refused"),
            ("IO error: expected INFO, got nothing", "tls-first"),
            ("IO error: received corrupt message of type InvalidContentType", "no-tls"),
            ("IO error: received fatal alert: BadCertificate", "certificate-refused"),
            ("IO error: invalid peer certificate: UnknownIssuer", "wrong-authority"),
            ("IO error: invalid peer certificate: certificate not valid for name \"localhost\"", "wrong-name"),
            ("IO error: invalid peer certificate: certificate expired: verification time 3", "server-expired"),
            (
                "IO error: invalid peer certificate: Other(OtherError(the peer is spiffe://a/b, not spiffe://a/c))",
                "wrong-server",
            ),
            ("IO error: invalid peer certificate: Other(OtherError(the certificate has 0 URI names))", "wrong-server"),
            ("failed signing nonce: AuthError(no such file)", "credential"),
            ("IO error: nats: maximum control line exceeded", "too-long"),
            ("IO error: nats: 'Authentication Timeout'", "undecided"),
            ("DNS error: failed to lookup address information", "unresolved"),
            ("IO error: Connection refused (os error 111)", "unreachable"),
            ("timed out", "unreachable"),
            ("IO error: broken pipe", "lost"),
            ("something new", "other"),
        ] {
            assert_eq!(Cause::of_attempt(text).code(), code, "{text}");
        }
    }

    #[test]
    fn what_outsiders_say_is_cut_and_escaped() {
        let long = format!("a\u{1b}[2J{}", "b".repeat(10_000));
        let shown = Cause::of_attempt(&long).to_string();
        assert!(shown.len() < 2 * LOG_TEXT && !shown.contains('\u{1b}'), "{shown}");
    }

    #[test]
    fn an_account_by_name_where_accounts_are_keys_is_told_so() {
        let key = portcullis_nkey::PublicKey::new(portcullis_nkey::Kind::Account, [7; 32]).to_string();
        let hint = |expected: &str, found: &str| {
            Cause::WrongAccount { expected: expected.to_owned(), found: found.to_owned() }.hint()
        };
        assert!(hint("APP", &key).contains("operator mode") && hint("APP", &key).contains("A..."));
        for (expected, found) in [("APP", "OTHER"), (key.as_str(), key.as_str()), (key.as_str(), "APP"), ("APP", "$G")]
        {
            assert!(!hint(expected, found).contains("operator mode"), "{expected} {found}");
        }
    }

    #[test]
    fn a_denied_subject_ends_no_connection() {
        assert_eq!(Cause::of_server("Permissions Violation for Publish to \"a\""), None);
        assert_eq!(Cause::of_server("User Authentication Expired").unwrap().code(), "expired");
        assert!(Cause::of_server("User Authentication Revoked").unwrap().is_refusal());
    }
}
