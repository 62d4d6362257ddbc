//! Attempts of the callout to connect: which server is next, after what pause, and in one clear line why the last one failed. The
//! client library tries for ever and says next to nothing; whoever starts a callout with a wrong address, a wrong authority or a
//! login that is not there must read so, once, and again from time to time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{ReconnectToServer, Server};

use super::standing::Problems;
use crate::limits::CALLOUT_SAY_AGAIN;
use crate::nats::Cause;

/// The attempts of one connection.
#[derive(Debug)]
pub struct Attempts {
    name: &'static str,
    problems: Arc<Problems>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: usize,
    failures: usize,
    tried: Option<String>,
    /// What the server said before it hung up.
    said: Option<Cause>,
    /// What the log has, and since when.
    told: Option<(&'static str, Instant)>,
}

impl Attempts {
    /// Of the connection with this name.
    pub fn new(name: &'static str, problems: Arc<Problems>) -> Arc<Self> {
        Arc::new(Self { name, problems, state: Mutex::default() })
    }

    /// Before each attempt: says how the last one ended, waits, and says which server is next.
    pub async fn next(self: Arc<Self>, servers: Vec<Server>) -> Option<ReconnectToServer> {
        // What a server said before it hung up comes by way of another task.
        tokio::time::sleep(BEHIND).await;
        self.learn(&servers, Instant::now());
        let (addr, pause) = {
            let mut state = self.state();
            let server = servers.get(state.next % servers.len().max(1));
            state.next = state.next.wrapping_add(1);
            state.tried = server.map(|server| server.addr.as_url_str().to_owned());
            state.said = None;
            (server.map(|server| server.addr.clone()), pause(state.failures / servers.len().max(1), random()))
        };
        tokio::time::sleep(pause).await;
        addr.map(|addr| ReconnectToServer { addr, delay: Some(Duration::ZERO) })
    }

    /// The server said why it ends the connection.
    pub fn said(&self, text: &str) {
        if let Some(cause) = Cause::of_server(text) {
            self.state().said.get_or_insert(cause);
        }
    }

    /// The client library says what kind of failure it was. All else that it knows is in its list of servers, but not this one.
    pub fn failed_kind(&self, text: &str) {
        if Cause::of_attempt(text) == Cause::Unresolved {
            self.state().said.get_or_insert(Cause::Unresolved);
        }
    }

    /// The connection stands: everything begins anew.
    pub fn stood(&self) {
        let mut state = self.state();
        (state.failures, state.told) = (0, None);
    }

    fn learn(&self, servers: &[Server], now: Instant) {
        let tried = self.state().tried.take();
        let Some(tried) = tried else { return };
        let failed = servers.iter().find(|server| server.addr.as_url_str() == tried && server.failed_attempts > 0);
        let cause = failed.and_then(|server| server.last_error.as_deref()).map(Cause::of_attempt);
        self.failed(&tried, cause, now);
    }

    fn failed(&self, server: &str, cause: Option<Cause>, now: Instant) {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        let cause = state.said.take().or(cause).unwrap_or(Cause::Lost);
        let is_news = state.told.is_none_or(|(code, at)| code != cause.code() || now - at >= CALLOUT_SAY_AGAIN);
        if is_news {
            state.told = Some((cause.code(), now));
        }
        drop(state);
        let (text, hint) = (text(&cause), hint(&cause));
        if is_news {
            tracing::error!(connection = self.name, server, code = cause.code(), "no connection: {text}; hint: {hint}");
        }
        self.problems.set(self.name, format!("{text}; hint: {hint}"));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment: whoever panicked with it left nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What happened, to a callout.
fn text(cause: &Cause) -> String {
    match cause {
        Cause::Refused => "the server does not let this callout in (authorization violation)".to_owned(),
        Cause::Undecided => "the server did not decide in time whether to let this callout in".to_owned(),
        Cause::CertificateRefused(alert) => format!("the server refused this callout's certificate ({alert})"),
        Cause::TooLong => "what this callout shows is longer than the server takes".to_owned(),
        other => other.to_string(),
    }
}

/// What to do about it, in callout.toml and at the server.
fn hint(cause: &Cause) -> &'static str {
    match cause {
        Cause::Unresolved => "see `servers` and the resolver of this machine",
        Cause::Unreachable(_) => "see that the server is up, and that `servers` and the network are right",
        Cause::TlsFirst => "the server has handshake_first: set first = true under [tls]",
        Cause::WrongAuthority => {
            "see `ca` under [tls]: it must hold the authority that issued the server's certificate"
        }
        Cause::WrongName(_) => "name the server in `servers` as in its certificate, or have one issued for this name",
        Cause::CertificateRefused(_) => {
            "see the server's log: its ca_file must hold the authority of `certificate` under [tls], which must be alive"
        }
        Cause::Refused => {
            "the user of this login must be in the server's file (or of an account that its operator signed) and in \
             auth_users; a credentials file has an end: `portcullis callout check --callout callout.toml`"
        }
        Cause::Undecided => "this login is sent to a callout: name its user in auth_users",
        Cause::Credential(_) | Cause::Tls(_) => "see the files that [tls] and the login name",
        other => other.hint(),
    }
}

/// Doubling from 50 ms to 4 s, with a random half: servers that come back are not met by all callouts at once.
fn pause(rounds: usize, random: u8) -> Duration {
    let exponent = u32::try_from(rounds.min(7)).unwrap_or(7);
    let most = Duration::from_millis(50).saturating_mul(2_u32.saturating_pow(exponent)).min(Duration::from_secs(4));
    most / 2 + most.mul_f64(f64::from(random) / 512.0)
}

fn random() -> u8 {
    let mut byte = [0_u8; 1];
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut byte);
    let [byte] = byte;
    byte
}

/// How far an event of the client library may be behind.
const BEHIND: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once_and_again_after_a_while_or_when_it_is_another() {
        let attempts = Attempts::new("callout", Arc::default());
        let now = Instant::now();
        let told = |cause: Cause, at: Instant| {
            attempts.failed("tls://a:1", Some(cause), at);
            let told = attempts.state().told;
            told.is_some_and(|(_, since)| since == at)
        };
        assert!(told(Cause::Refused, now));
        assert!(!told(Cause::Refused, now + CALLOUT_SAY_AGAIN / 2));
        assert!(told(Cause::Unresolved, now + CALLOUT_SAY_AGAIN / 2));
        assert!(told(Cause::Unresolved, now + CALLOUT_SAY_AGAIN * 2));
        assert!(attempts.problems.lines().concat().contains("resolver of this machine"));
        attempts.stood();
        assert!(told(Cause::Unresolved, now + CALLOUT_SAY_AGAIN * 2));
    }

    #[test]
    fn what_the_server_said_is_the_cause_rather_than_that_it_hung_up() {
        let attempts = Attempts::new("callout", Arc::default());
        attempts.said("Permissions Violation for Publish to \"a\"");
        attempts.said("Authorization Violation");
        attempts.failed("tls://a:1", None, Instant::now());
        assert!(attempts.problems.lines().concat().contains("auth_users"), "{:?}", attempts.problems.lines());
    }

    #[test]
    fn no_text_speaks_of_a_host_or_of_its_configuration() {
        for said in [
            "authorization violation",
            "expected INFO, got nothing",
            "InvalidContentType",
            "received fatal alert: BadCertificate",
            "UnknownIssuer",
            "certificate expired",
            "not valid for name \"a\"",
            "AuthError(x)",
            "DNS error",
            "timed out",
            "refused",
            "TLS error",
            "broken pipe",
            "nats: maximum control line exceeded",
            "nats: 'Authentication Timeout'",
            "nats: maximum connections exceeded",
            "something new",
        ] {
            let cause = Cause::of_attempt(said);
            let shown = format!("{}; {}", text(&cause), hint(&cause));
            assert!(!shown.contains("this host") && !shown.contains("nats."), "{said}: {shown}");
        }
    }

    #[test]
    fn pauses_grow_to_four_seconds_and_are_never_none() {
        for rounds in [0, 1, 5, 7, 8, 1_000_000, usize::MAX] {
            for random in [0, 255] {
                let pause = pause(rounds, random);
                assert!(pause >= Duration::from_millis(25) && pause <= Duration::from_secs(4), "{rounds}: {pause:?}");
            }
        }
        assert!(pause(20, 0) >= Duration::from_secs(2));
    }
}
