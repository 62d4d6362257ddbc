//! Drives the client library: answers its callbacks, follows its events, asks the server whom it takes us for.
//!
//! What it calls before each attempt is in [`attempts`]; here is what it tells afterwards, and what the server says.

mod attempts;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_nats::{AuthError, Client, ConnectOptions, Event, ServerAddr, ServerError};
use portcullis_identity::nats_tls::{CurrentCertificate, NatsRoots, client_config};
use tokio::sync::{broadcast, watch};

use self::attempts::Attempt;
use super::cause::Cause;
use super::credentials::Credentials;
use super::settings::Settings;
use super::standing::{Denied, Standing};
use super::{Counts, NatsError, State};
use crate::limits::{NATS_CONNECT, NATS_VERIFY, NATS_VERIFY_AGAIN};

/// What is to be driven.
pub(super) struct Driver {
    shared: Arc<Shared>,
    tls: Option<Box<dyn FnOnce(ConnectOptions) -> ConnectOptions + Send>>,
}

/// What the callbacks, the watching task and the handles share.
#[derive(Debug)]
pub(super) struct Shared {
    settings: Settings,
    credentials: Arc<dyn Credentials>,
    roots: Option<Arc<NatsRoots>>,
    certificate: Arc<CurrentCertificate>,
    state: watch::Sender<State>,
    denied: broadcast::Sender<Denied>,
    /// Grows with each connection that the library reports, so that an answer about an old one is not taken for the new one.
    connected: watch::Sender<u64>,
    /// Grows with each connection that breaks off, before the state says so: what was asked before does not count after.
    broken: AtomicU64,
    /// Grows when somebody wants a connection at once.
    wanted: watch::Sender<u64>,
    closed: watch::Sender<bool>,
    attempt: Mutex<Attempt>,
    counts: [AtomicU64; 4],
}

impl Driver {
    pub(super) fn new(settings: Settings, credentials: Arc<dyn Credentials>) -> Result<Self, NatsError> {
        let setup = |error: &dyn std::fmt::Display, hint: &str| NatsError::Setup(format!("{error}; hint: {hint}"));
        let certificate = Arc::new(CurrentCertificate::default());
        let (roots, tls) = match &settings.roots {
            None => (None, None),
            Some(roots) => {
                let roots = Arc::new(roots.read().map_err(|error| setup(&error, error.hint()))?);
                let config = client_config(Arc::clone(&roots), settings.server_id.clone(), Arc::clone(&certificate));
                let config = config.map_err(|error| setup(&error, error.hint()))?;
                let tls = move |options: ConnectOptions| options.require_tls(true).tls_client_config(config);
                (Some(roots), Some(Box::new(tls) as Box<dyn FnOnce(ConnectOptions) -> ConnectOptions + Send>))
            }
        };
        let shared = Arc::new(Shared {
            state: watch::Sender::new(State::Down { cause: Cause::Connecting }),
            denied: broadcast::Sender::new(DENIALS),
            connected: watch::Sender::new(0),
            broken: AtomicU64::new(0),
            wanted: watch::Sender::new(0),
            closed: watch::Sender::new(false),
            attempt: Mutex::default(),
            counts: Default::default(),
            settings,
            credentials,
            roots,
            certificate,
        });
        Ok(Self { shared, tls })
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    pub(super) async fn run(self) -> Result<Client, NatsError> {
        let shared = self.shared;
        let settings = shared.settings.clone();
        let servers: Result<Vec<ServerAddr>, _> = settings.servers.iter().map(|server| server.parse()).collect();
        let servers = servers.map_err(|error: std::io::Error| NatsError::Setup(error.to_string()))?;
        // Callbacks must be `Sync`, which what they wait for need not be: it runs in tasks of its own.
        let asked = Arc::clone(&shared);
        let options = ConnectOptions::with_auth_callback(move |nonce| {
            let running = tokio::spawn(Arc::clone(&asked).show(nonce));
            async move { running.await.unwrap_or_else(|_| Err(AuthError::new("stopped"))) }
        });
        let asked = Arc::clone(&shared);
        let options = options.reconnect_to_server_callback(move |servers, _| {
            let running = tokio::spawn(Arc::clone(&asked).next(servers));
            async move { running.await.ok() }
        });
        let asked = Arc::clone(&shared);
        let options = options.event_callback(move |event| {
            asked.happened(event);
            std::future::ready(())
        });
        let options = options
            .name(&settings.name)
            .custom_inbox_prefix(&settings.inbox_prefix)
            .connection_timeout(NATS_CONNECT)
            .request_timeout(Some(NATS_CONNECT))
            .ping_interval(PING)
            .ignore_discovered_servers()
            .retain_servers_order()
            .retry_on_initial_connect();
        let options = if settings.tls_first { options.tls_first() } else { options };
        let options = match self.tls {
            Some(tls) => tls(options),
            None => options,
        };
        let client = options.connect(servers).await.map_err(|error| NatsError::Setup(error.to_string()))?;
        tokio::spawn(Arc::clone(&shared).watch(client.clone()));
        Ok(client)
    }
}

impl Shared {
    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    pub(super) fn denied(&self) -> broadcast::Receiver<Denied> {
        self.denied.subscribe()
    }

    pub(super) fn problem(&self) -> Option<String> {
        self.credentials.problem()
    }

    pub(super) fn counts(&self) -> Counts {
        let [attempts, verified, refused, denied] = self.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        Counts { attempts, verified, refused, denied }
    }

    pub(super) fn replace_roots(&self, pem: &[u8]) -> Result<(), NatsError> {
        let Some(roots) = &self.roots else { return Ok(()) };
        roots.replace(pem).map_err(|error| NatsError::Setup(format!("{error}; hint: {}", error.hint())))
    }

    /// Asks the server whom it takes us for.
    pub(super) async fn ask(&self, client: &Client, within: Duration) -> Result<Standing, Cause> {
        let mut denied = self.denied.subscribe();
        let request = async_nats::Request::new().payload(bytes::Bytes::new()).timeout(Some(within));
        let refused = async {
            while let Ok(what) = denied.recv().await {
                match what {
                    Denied::Publish { subject } if subject == USER_INFO => return,
                    Denied::Subscribe { subject, .. } if subject.starts_with(&self.settings.inbox_prefix) => return,
                    _ => {}
                }
            }
            std::future::pending().await
        };
        tokio::select! {
            biased;
            () = refused => Err(Cause::MayNotAsk),
            answer = client.send_request(USER_INFO, request) => match answer {
                Ok(answer) => Standing::check(&answer.payload, &self.settings.account, self.settings.user.as_deref()),
                Err(_) => Err(Cause::Unverified),
            },
        }
    }

    pub(super) fn reconnect(&self, client: &Client) {
        self.attempt().pace.begin_anew();
        self.wanted.send_modify(|count| *count = count.wrapping_add(1));
        self.end(client);
    }

    pub(super) fn close(&self) {
        self.closed.send_replace(true);
        self.state.send_replace(State::Down { cause: Cause::Closed });
    }

    /// Ends the connection that stands, so that another one is made.
    fn end(&self, client: &Client) {
        if client.connection_state() == async_nats::connection::State::Connected {
            self.attempt().ours = true;
            let client = client.clone();
            tokio::spawn(async move { client.force_reconnect().await });
        }
    }

    fn attempt(&self) -> MutexGuard<'_, Attempt> {
        self.attempt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, which: usize) {
        if let Some(count) = self.counts.get(which) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn down(&self, cause: Cause) {
        self.state.send_if_modified(|state| {
            let new = State::Down { cause };
            let changed = *state != new && !matches!(state, State::Down { cause: Cause::Closed });
            if changed {
                *state = new;
            }
            changed
        });
    }

    /// What the library tells, in order. Must not wait.
    fn happened(&self, event: Event) {
        match event {
            Event::Connected => {
                // It is another connection, whether or not the end of the one before was told. Counted under the state: whoever is
                // woken by the count finds the state as it is to be, and an answer about the one before comes too late.
                self.state.send_if_modified(|state| {
                    self.connected.send_modify(|count| *count = count.wrapping_add(1));
                    let stale = matches!(state, State::Verified { .. });
                    if stale {
                        *state = State::Down { cause: Cause::Connecting };
                    }
                    stale
                });
            }
            Event::Disconnected => {
                self.broken.fetch_add(1, Ordering::SeqCst);
                let said = self.attempt().said.clone();
                self.down(said.unwrap_or(Cause::Lost));
            }
            Event::ServerError(ServerError::AuthorizationViolation) => {
                // The library called it connected before the server had decided.
                let decided = self.attempt().verified_at.is_some();
                self.ended_by(if decided { Cause::Refused } else { Cause::Undecided });
            }
            Event::ServerError(ServerError::Other(text)) => match (Denied::parse(&text), Cause::of_server(&text)) {
                (Some(denied), _) => {
                    self.count(DENIED);
                    tracing::warn!(denied = format!("{denied:?}"), "the NATS server denied something");
                    let _ = self.denied.send(denied);
                }
                (None, Some(cause)) => self.ended_by(cause),
                (None, None) => {}
            },
            Event::SlowConsumer(subscription) => {
                tracing::warn!(subscription, "messages of NATS were dropped: a subscription does not keep up");
            }
            // Told before, or told again by what follows.
            _ => {}
        }
    }

    /// A server says why it ends this connection.
    fn ended_by(&self, cause: Cause) {
        let mut attempt = self.attempt();
        attempt.said.get_or_insert_with(|| cause.clone());
        drop(attempt);
        self.down(cause);
    }

    /// Verifies each connection, again and again, and connects anew when there is something new to show.
    async fn watch(self: Arc<Self>, client: Client) {
        let (mut connected, mut changes) = (self.connected.subscribe(), self.credentials.changes());
        loop {
            tokio::select! {
                biased;
                () = closed(&self.closed) => return,
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    tracing::info!("there is something new to show to NATS: connecting again");
                    self.reconnect(&client);
                }
                changed = connected.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.verify(&client, &mut connected).await;
                }
                () = tokio::time::sleep(NATS_VERIFY_AGAIN) => {
                    if matches!(&*self.state.borrow(), State::Verified { .. }) {
                        self.verify(&client, &mut connected).await;
                    }
                }
            }
        }
    }

    async fn verify(&self, client: &Client, connected: &mut watch::Receiver<u64>) {
        let broken = self.broken.load(Ordering::SeqCst);
        let of = *connected.borrow_and_update();
        let answer = self.ask(client, NATS_VERIFY).await;
        if *self.connected.borrow() != of {
            // It is about a connection that is gone; the next one is verified in turn.
            return;
        }
        match answer {
            Ok(standing) => {
                let first = !matches!(&*self.state.borrow(), State::Verified { standing: of, .. } if *of == standing);
                if first && client.connection_state() == async_nats::connection::State::Connected {
                    // Events count before they change the state, and only one at a time changes it.
                    let holds = || *self.connected.borrow() == of && self.broken.load(Ordering::SeqCst) == broken;
                    let set = self.state.send_if_modified(|state| {
                        let open = !matches!(state, State::Down { cause: Cause::Closed }) && holds();
                        if open {
                            *state = State::Verified { standing: standing.clone(), since: SystemTime::now() };
                        }
                        open
                    });
                    if set {
                        self.attempt().verified_at = Some(Instant::now());
                        self.count(VERIFIED);
                        let Standing { server, version, account, user } = &standing;
                        tracing::info!(server, version, account, user, "connected to NATS");
                    }
                }
            }
            // It broke off meanwhile: that is another matter.
            Err(Cause::Unverified) if client.connection_state() != async_nats::connection::State::Connected => {}
            Err(cause) => {
                self.attempt().said.get_or_insert(cause.clone());
                self.down(cause);
                self.end(client);
            }
        }
    }
}

/// Until it is closed.
async fn closed(closed: &watch::Sender<bool>) {
    let _ = closed.subscribe().wait_for(|closed| *closed).await;
}

/// Whom the server takes us for.
const USER_INFO: &str = "$SYS.REQ.USER.INFO";
/// How often the client library asks whether the server is there.
const PING: Duration = Duration::from_secs(10);
/// Denials that may wait for whoever follows them.
const DENIALS: usize = 256;
const ATTEMPTS: usize = 0;
const VERIFIED: usize = 1;
const REFUSED: usize = 2;
const DENIED: usize = 3;
