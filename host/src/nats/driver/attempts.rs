//! Before each attempt: what the last one came to, how long to wait, which server is next, what is shown to it.
//!
//! The library calls here before every attempt, also before the first. What it tells of failures is in its list of servers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{Auth, AuthError, ReconnectToServer, ServerAddr};
use ring::rand::SecureRandom as _;

use super::{ATTEMPTS, REFUSED, Shared, closed};
use crate::nats::cause::Cause;
use crate::nats::pace::Pace;

/// What is known of the last attempt and the ones before.
#[derive(Debug, Default)]
pub(super) struct Attempt {
    pub(super) pace: Pace,
    next: usize,
    tried: Option<String>,
    began: Option<Instant>,
    /// What the server or we ourselves said of the connection that is ending, or of the attempt.
    pub(super) said: Option<Cause>,
    pub(super) verified_at: Option<Instant>,
    /// It ended because we wanted it to.
    pub(super) ours: bool,
}

impl Shared {
    /// Before each attempt: learns from the last one, waits, and says which server is next.
    pub(super) async fn next(self: Arc<Self>, servers: Vec<async_nats::Server>) -> ReconnectToServer {
        // What a server said before it hung up comes by way of another task.
        tokio::time::sleep(BEHIND).await;
        let mut wanted = self.wanted.subscribe();
        self.learn(&servers);
        loop {
            let pause = self.attempt().pace.pause(servers.len(), random());
            tokio::select! {
                biased;
                () = closed(&self.closed) => std::future::pending().await,
                _ = wanted.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
            if !self.settings.certificate {
                break;
            }
            match self.credentials.certificate().await {
                Ok(certificate) => {
                    self.certificate.set(Some(certificate));
                    break;
                }
                Err(why) => {
                    // Without it the server would refuse: it is not even asked.
                    self.certificate.set(None);
                    self.down(Cause::Credential(why));
                    self.attempt().pace.failed(false);
                }
            }
        }
        self.count(ATTEMPTS);
        match self.choose(&servers) {
            Some(addr) => ReconnectToServer { addr, delay: Some(Duration::ZERO) },
            // There is always one: the configuration says so.
            None => std::future::pending().await,
        }
    }

    /// The next server in turn.
    fn choose(&self, servers: &[async_nats::Server]) -> Option<ServerAddr> {
        let mut attempt = self.attempt();
        let addr = servers.get(attempt.next % servers.len().max(1)).map(|server| server.addr.clone());
        attempt.next = attempt.next.wrapping_add(1);
        attempt.tried = addr.as_ref().map(|addr| addr.as_url_str().to_owned());
        attempt.began = Some(Instant::now());
        attempt.ours = false;
        // What an old connection has to say comes too late now.
        attempt.said = None;
        addr
    }

    /// Finds out how the last attempt, or the connection that came of it, ended.
    fn learn(&self, servers: &[async_nats::Server]) {
        let mut attempt = self.attempt();
        let Some(tried) = attempt.tried.take() else {
            attempt.next = usize::from(random());
            return;
        };
        let ours = std::mem::take(&mut attempt.ours);
        let said = attempt.said.take();
        let stood = attempt.verified_at.take().map(|at| at.elapsed());
        let error = servers.iter().find(|server| server.addr.as_url_str() == tried && server.failed_attempts > 0);
        let error = error.and_then(|server| server.last_error.as_deref()).map(Cause::of_attempt);
        let cause = match (said, error) {
            // Ours is more exact than "failed signing nonce".
            (Some(cause), _) => cause,
            // A server that has somebody to ask says no when nobody answered in time.
            (None, Some(Cause::Refused)) if attempt.began.is_some_and(|at| at.elapsed() >= SLOW) => Cause::Undecided,
            (None, Some(cause)) => cause,
            (None, None) => Cause::Lost,
        };
        if stood.is_some_and(|stood| stood >= STOOD) {
            attempt.pace.begin_anew();
        } else if !ours || cause.is_refusal() {
            attempt.pace.failed(cause.is_refusal());
        }
        let refusals = attempt.pace.refusals();
        drop(attempt);
        if cause.is_refusal() {
            self.count(REFUSED);
        }
        let shown = if ours && cause == Cause::Lost { Cause::Connecting } else { cause };
        match shown {
            Cause::Connecting => {}
            _ => tracing::warn!(
                server = tried,
                code = shown.code(),
                refusals,
                "no connection to NATS: {shown}; hint: {}",
                shown.hint()
            ),
        }
        self.down(shown);
    }

    /// What CONNECT says, over the nonce of the server.
    pub(super) async fn show(self: Arc<Self>, nonce: Vec<u8>) -> Result<Auth, AuthError> {
        match self.credentials.for_connect(&nonce).await {
            Ok(mut secrets) => {
                let mut auth = Auth::new();
                auth.jwt = secrets.jwt.take().map(|mut text| std::mem::take(&mut *text));
                auth.nkey = secrets.nkey.take();
                auth.signature = secrets.signature.take();
                auth.username = secrets.user.take();
                auth.password = secrets.password.take().map(|mut text| std::mem::take(&mut *text));
                auth.token = secrets.token.take().map(|mut text| std::mem::take(&mut *text));
                Ok(auth)
            }
            Err(why) => {
                let cause = Cause::Credential(why);
                self.attempt().said = Some(cause.clone());
                self.down(cause);
                Err(AuthError::new("nothing to show"))
            }
        }
    }
}

fn random() -> u8 {
    let mut byte = [0];
    let _ = ring::rand::SystemRandom::new().fill(&mut byte);
    let [byte] = byte;
    byte
}

/// How long a connection must have counted before an end of it counts as a new beginning.
const STOOD: Duration = Duration::from_secs(10);
/// How far an event of the client library may be behind.
const BEHIND: Duration = Duration::from_millis(10);
/// A refusal that took this long is none of the server's own.
const SLOW: Duration = Duration::from_secs(1);
