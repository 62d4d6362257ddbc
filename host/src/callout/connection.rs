//! A connection of the callout to the servers, in one account. It lives through reconnects; it counts as standing only after the
//! server has said, in answer to a question, that it is in the account where it should be: a connection that is accepted late
//! looks accepted before it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Auth, AuthError, Client, ConnectOptions, Event, ServerAddr};
use portcullis_identity::nats_jwt::Creds;
use portcullis_nkey::{KeyPair, Kind};
use tokio::sync::Notify;

use super::keys;
use super::service::CalloutError;
use super::standing::Problems;
use crate::config::callout::{CalloutConfig, Login};
use crate::limits::CALLOUT_NONCE;

/// What it logs in with. Read once, at the start.
#[derive(Debug)]
pub enum Secret {
    /// The key of a user.
    Nkey(KeyPair),
    /// A user's token and its key.
    Creds(Creds),
    /// The certificate of the TLS connection.
    Certificate,
}

/// A connection.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The client.
    pub client: Client,
    /// Told after each time that it has come up.
    up: Arc<Notify>,
    changes: Arc<Changes>,
    name: &'static str,
}

/// How often it came up or broke off. Counted before a problem is set, so that an answer of before takes back no problem of after.
#[derive(Debug, Default)]
struct Changes(AtomicU64);

impl Changes {
    fn more(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn so_far(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// The server's answer was the right one; it was asked when so many changes had been. Whether it holds still.
    fn verified(&self, of: u64, name: &'static str, problems: &Problems) -> bool {
        problems.clear(name);
        let holds = self.so_far() == of;
        if !holds {
            problems.set(name, "it broke off while it was verified");
        }
        holds
    }
}

impl Secret {
    /// Reads it.
    pub fn read(login: &Login) -> Result<Self, CalloutError> {
        match (&login.nkey, &login.creds) {
            (Some(path), _) => {
                let text = keys::read(path)?;
                let key = KeyPair::from_seed_of(&text, Kind::User)
                    .map_err(|error| CalloutError::file(path, error.to_string(), error.hint()))?;
                Ok(Self::Nkey(key))
            }
            (None, Some(path)) => {
                let text = keys::read(path)?;
                let creds = Creds::parse(text.as_bytes())
                    .map_err(|error| CalloutError::file(path, error.to_string(), error.hint()))?;
                Ok(Self::Creds(creds))
            }
            (None, None) => Ok(Self::Certificate),
        }
    }

    fn sign(&self, nonce: &[u8]) -> Result<Auth, AuthError> {
        let failed = |_| AuthError::new("the nonce cannot be signed");
        let mut auth = Auth::new();
        if !matches!(self, Self::Certificate) && !is_nonce(nonce) {
            return Err(AuthError::new("what the server wants signed is not a nonce"));
        }
        match self {
            Self::Certificate => {}
            Self::Nkey(key) => {
                auth.nkey = Some(key.public().to_string());
                auth.signature = Some(key.sign(nonce).map_err(failed)?.to_vec());
            }
            Self::Creds(creds) => {
                auth.jwt = Some(creds.jwt().to_owned());
                auth.signature = Some(creds.key().sign(nonce).map_err(failed)?.to_vec());
            }
        }
        Ok(auth)
    }
}

impl Connection {
    /// Begins to connect, and goes on for as long as the client lives. `name` says in problems which connection it is.
    pub async fn open(
        config: &CalloutConfig,
        login: &Login,
        secret: Secret,
        name: &'static str,
        problems: Arc<Problems>,
    ) -> Result<Self, CalloutError> {
        let (up, changes) = (Arc::new(Notify::new()), Arc::new(Changes::default()));
        let counted = Arc::clone(&changes);
        let (told, secret) = (Arc::clone(&up), Arc::new(secret));
        problems.set(name, "not connected yet");
        let mut options = ConnectOptions::with_auth_callback(move |nonce| {
            let secret = Arc::clone(&secret);
            async move { secret.sign(&nonce) }
        })
        .name(format!("portcullis {name}"))
        .custom_inbox_prefix(INBOX)
        // Only servers that the operator named: a greeting in the clear could name others, and without TLS.
        .ignore_discovered_servers()
        .retry_on_initial_connect()
        .connection_timeout(Duration::from_secs(5))
        .ping_interval(Duration::from_secs(5))
        .client_capacity(8_192)
        .subscription_capacity(8_192)
        .request_timeout(Some(Duration::from_secs(2)))
        .reconnect_delay_callback(pause)
        .event_callback(move |event| {
            if matches!(event, Event::Connected | Event::Disconnected) {
                counted.more();
            }
            event_seen(name, &event, &problems);
            if matches!(event, Event::Connected) {
                told.notify_one();
            }
            async {}
        });
        if let Some(tls) = &config.tls {
            options = options.add_root_certificates(tls.ca.clone()).require_tls(true);
            let own = login.certificate.as_ref().zip(login.key.as_ref());
            if let Some((certificate, key)) = own.or(tls.certificate.as_ref().zip(tls.key.as_ref())) {
                options = options.add_client_certificate(certificate.clone(), key.clone());
            }
            if tls.first {
                options = options.tls_first();
            }
        }
        let servers: Result<Vec<ServerAddr>, _> = config.servers.iter().map(|server| server.parse()).collect();
        let servers = servers.map_err(|error| CalloutError::config(format!("servers: {error}"), ""))?;
        let client = options.connect(servers).await.map_err(|error| {
            CalloutError::config(format!("{name}: cannot connect: {error}"), "see `servers` and [tls]")
        })?;
        Ok(Self { client, up, changes, name })
    }

    /// Asks the server, each time that the connection comes up, in which account it is. Runs for as long as the process.
    pub async fn keep_verified(self, account: String, problems: Arc<Problems>, verified: impl Fn() + Send) {
        loop {
            self.up.notified().await;
            loop {
                let of = self.changes.so_far();
                match self.account().await {
                    Ok(found) if found == account => {
                        if self.changes.verified(of, self.name, &problems) {
                            verified();
                            break;
                        }
                    }
                    Ok(found) => {
                        let why = format!("the server placed it in the account {found}, not in {account}");
                        tracing::error!(connection = self.name, "{why}");
                        problems.set(self.name, why);
                    }
                    Err(why) => {
                        tracing::warn!(connection = self.name, "{why}");
                        problems.set(self.name, why);
                    }
                }
                tokio::select! {
                    () = self.up.notified() => {}
                    () = tokio::time::sleep(Duration::from_secs(2)) => {}
                }
            }
        }
    }

    async fn account(&self) -> Result<String, String> {
        let answer = self.client.request("$SYS.REQ.USER.INFO", Default::default()).await;
        let answer = answer.map_err(|error| format!("the server does not say who it is: {error}"))?;
        let answer: serde_json::Value = serde_json::from_slice(&answer.payload).map_err(|error| error.to_string())?;
        let account = answer.pointer("/data/account").and_then(serde_json::Value::as_str);
        Ok(crate::cli::error::shown(account.unwrap_or_default()).chars().take(128).collect())
    }
}

fn event_seen(name: &'static str, event: &Event, problems: &Problems) {
    match event {
        Event::Connected => {
            problems.set(name, "not verified yet");
            tracing::info!(connection = name, "connected");
        }
        Event::Disconnected => {
            problems.set(name, "disconnected");
            tracing::warn!(connection = name, "disconnected");
        }
        Event::SlowConsumer(_) => tracing::warn!(connection = name, "requests come faster than they are taken"),
        Event::ServerError(error) => {
            let why = crate::cli::error::shown(&error.to_string());
            if why.to_ascii_lowercase().contains("permissions violation for subscription") {
                problems.set("permission", why.clone());
            }
            tracing::warn!(connection = name, "the server says: {why}");
        }
        other => tracing::debug!(connection = name, "{other}"),
    }
}

/// What a server draws is short, and base64 in one of its alphabets. Nothing else is signed: not a token, not nothing.
fn is_nonce(nonce: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'=' | b'+' | b'/');
    (1..=CALLOUT_NONCE).contains(&nonce.len()) && nonce.iter().all(plain)
}

/// Doubling from 50 ms to 4 s, with a random half: servers that come back are not met by all callouts at once.
fn pause(attempts: usize) -> Duration {
    let exponent = u32::try_from(attempts.min(7)).unwrap_or(7);
    let most = Duration::from_millis(50).saturating_mul(2_u32.saturating_pow(exponent)).min(Duration::from_secs(4));
    let mut byte = [0_u8; 1];
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut byte);
    let [random] = byte;
    most / 2 + most.mul_f64(f64::from(random) / 512.0)
}

/// Prefix of inboxes: an own one, so that the callout's users need no right to read others' replies.
pub const INBOX: &str = "_INBOX_callout";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_about_a_connection_that_is_gone_makes_nothing_ready() {
        let (changes, problems) = (Changes::default(), Problems::default());
        let happens = |event: Event| {
            changes.more();
            event_seen("callout", &event, &problems);
        };
        happens(Event::Connected);
        assert!(!problems.are_none(), "it is connected, and nobody has said where");
        let of = changes.so_far();
        assert!(changes.verified(of, "callout", &problems) && problems.are_none());
        for gone in [&[Event::Disconnected][..], &[Event::Disconnected, Event::Connected], &[Event::Connected]] {
            let of = changes.so_far();
            gone.iter().cloned().for_each(&happens);
            assert!(!changes.verified(of, "callout", &problems), "{gone:?}");
            assert!(!problems.are_none(), "{gone:?}");
        }
    }

    #[test]
    fn nothing_but_a_nonce_is_signed() {
        let secret = Secret::Nkey(KeyPair::generate(Kind::User).unwrap());
        for good in ["x9wzVQyFHJDmZJs", "AA-_+/==", &"a".repeat(CALLOUT_NONCE)] {
            let auth = secret.sign(good.as_bytes()).unwrap();
            assert!(auth.nkey.is_some() && auth.signature.is_some(), "{good}");
        }
        let long = "a".repeat(CALLOUT_NONCE + 1);
        for bad in ["", "eyJ0eXAi.eyJqdGki", "a b", "a\n", "\u{e9}", "{}", "\0", &long] {
            assert!(secret.sign(bad.as_bytes()).is_err(), "{bad:?}");
        }
        let auth = Secret::Certificate.sign(b"").unwrap();
        assert!(auth.nkey.is_none() && auth.signature.is_none(), "a certificate signs nothing");
    }

    #[test]
    fn pauses_grow_to_four_seconds_and_are_never_none() {
        for attempts in [0, 1, 5, 7, 8, 1_000_000, usize::MAX] {
            let pause = pause(attempts);
            assert!(pause >= Duration::from_millis(25) && pause <= Duration::from_secs(4), "{attempts}: {pause:?}");
        }
        assert!(pause(20) >= Duration::from_secs(2));
    }
}
