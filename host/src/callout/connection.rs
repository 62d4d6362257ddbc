//! A connection of the callout to the servers, in one account. It lives through reconnects; it counts as standing only after the
//! server has said, in answer to a question, that it is in the account where it should be: a connection that is accepted late
//! looks accepted before it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::{Auth, AuthError, Client, ConnectOptions, Event, ServerAddr};
use portcullis_identity::nats_jwt::Creds;
use portcullis_nkey::{KeyPair, Kind, PublicKey};
use tokio::sync::Notify;

use super::attempts::Attempts;
use super::keys;
use super::login_token::LoginToken;
use super::service::CalloutError;
use super::standing::Problems;
use crate::config::callout::{CalloutConfig, Login};
use crate::limits::{CALLOUT_NONCE, CALLOUT_SAY_AGAIN};

/// What it logs in with. Secrets are read once, at the start.
#[derive(Debug)]
pub enum Secret {
    /// The key of a user.
    Nkey(KeyPair),
    /// A user's token and its key.
    Creds(Creds),
    /// A user's key, and its token in a file that is read again.
    Token(LoginToken),
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
    attempts: Arc<Attempts>,
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
                match &login.jwt {
                    None => Ok(Self::Nkey(key)),
                    Some(jwt) => LoginToken::read(jwt, key).map(Self::Token),
                }
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
            Self::Token(token) => {
                auth.signature = Some(token.key().sign(nonce).map_err(failed)?.to_vec());
                auth.jwt = Some(token.current(crate::clock::now()));
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
        let attempts = Attempts::new(name, Arc::clone(&problems));
        let (trying, hearing) = (Arc::clone(&attempts), Arc::clone(&attempts));
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
        .reconnect_to_server_callback(move |servers, _| {
            // What is waited for there need not be `Sync`: it runs in a task of its own.
            let next = tokio::spawn(Arc::clone(&trying).next(servers));
            async move { next.await.ok().flatten() }
        })
        .event_callback(move |event| {
            match &event {
                Event::ServerError(error) => hearing.said(&error.to_string()),
                Event::ClientError(error) => hearing.failed_kind(&error.to_string()),
                _ => {}
            }
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
        Ok(Self { client, up, changes, attempts, name })
    }

    /// Asks the server, each time that the connection comes up, in which account it is. Runs for as long as the process.
    pub async fn keep_verified(self, account: String, problems: Arc<Problems>, verified: impl Fn() + Send) {
        let mut told = None;
        loop {
            self.up.notified().await;
            loop {
                let of = self.changes.so_far();
                match self.account().await {
                    Ok(found) if found == account => {
                        if self.changes.verified(of, self.name, &problems) {
                            self.attempts.stood();
                            verified();
                            break;
                        }
                    }
                    Ok(found) => {
                        let (why, hint) = misplaced(self.name, &found, &account);
                        self.tell(&mut told, &why, hint);
                        problems.set(self.name, format!("{why}; hint: {hint}"));
                    }
                    Err(why) => {
                        let hint = "allow it to publish $SYS.REQ.USER.INFO and to subscribe to _INBOX_callout.>";
                        self.tell(&mut told, &why, hint);
                        problems.set(self.name, format!("{why}; hint: {hint}"));
                    }
                }
                tokio::select! {
                    () = self.up.notified() => {}
                    () = tokio::time::sleep(Duration::from_secs(2)) => {}
                }
            }
        }
    }

    /// One line for each thing that is wrong, and again from time to time.
    fn tell(&self, told: &mut Option<(String, Instant)>, why: &str, hint: &str) {
        if told.as_ref().is_none_or(|(text, at)| text != why || at.elapsed() >= CALLOUT_SAY_AGAIN) {
            tracing::error!(connection = self.name, "{why}; hint: {hint}");
            *told = Some((why.to_owned(), Instant::now()));
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

/// What is wrong, and what to do, where the server put a connection into another account.
fn misplaced(name: &str, found: &str, wanted: &str) -> (String, &'static str) {
    let why = format!("the server placed it in the account {found}, not in {wanted}");
    let hint = match (name, PublicKey::parse(found, Kind::Account), PublicKey::parse(wanted, Kind::Account)) {
        ("callout", Ok(_), Err(_)) => {
            "the server is in operator mode, where accounts are public keys (A...): see `mode` and `account`"
        }
        ("callout", Err(_), Ok(_)) => "the server has its accounts in its file, by name: see `mode` and `account`",
        ("callout", ..) => "see in which account the server has the user of [login], or `account`",
        (_, Ok(_), Err(_)) => {
            "the server is in operator mode, where accounts are public keys (A...): see `mode` and `system_key`"
        }
        _ => "see in which account the server has the user of [system], or `system_account` and `system_key`",
    };
    (why, hint)
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
}
