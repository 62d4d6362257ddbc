//! The service: from its configuration to the end of its process. Each request is a task of its own; so many are worked on, so
//! many wait for their turn within the deadline, and beyond that the answer is an empty one, which servers take for a no at once. Nothing is locked while one is decided.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_nats::{Client, Message};
use bytes::Bytes;
use futures::StreamExt;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::answering::{Answering, Verdict};
use super::connection::{Connection, Secret};
use super::counts::Counts;
use super::ends::{End, Left};
use super::files::Standing;
use super::journal::Journal;
use super::revoking::{Admitted, Revoker};
use super::servers::Servers;
use super::standing::Problems;
use super::watched::Watched;
use super::{ends, fence, listener, stopping, tls_files, watched, watching};
use crate::audit::Record;
use crate::config::callout::CalloutConfig;
use crate::limits::{CALLOUT_SERVER_WAIT, CALLOUT_SETTLE};
use crate::state::{self, StateError};

/// Why a callout does not run. Says who erred, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CalloutError {
    /// A file, or the configuration, is not as it must be.
    #[error("{message}")]
    Config {
        /// What is wrong.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// The machine.
    #[error("{0}")]
    Machine(String),
}

impl CalloutError {
    /// The configuration is wrong.
    pub fn config(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Config { message: message.into(), hint: hint.into() }
    }

    /// A file is wrong.
    pub fn file(path: &Path, why: impl std::fmt::Display, hint: &str) -> Self {
        Self::config(format!("{}: {why}", path.display()), hint)
    }
}

/// What the tasks of a callout share.
#[derive(Debug)]
pub struct Shared {
    /// Its configuration.
    pub config: CalloutConfig,
    /// What decisions are made with.
    pub standing: arc_swap::ArcSwap<Standing>,
    /// What it counts.
    pub counts: Counts,
    /// Why it is not ready.
    pub problems: Arc<Problems>,
    /// Its audit log.
    pub journal: Journal,
    /// Whom it let in.
    pub admitted: Admitted,
    /// Which servers there are; absent where it was told to do without.
    pub servers: Option<Arc<Servers>>,
    /// Decides, and makes answers.
    pub answering: Answering,
    at_work: Semaphore,
    /// Where decisions are made: signatures on the threads that read would have requests wait unread until their servers gave up.
    deciding: Handle,
}

impl Shared {
    /// The page of metrics.
    pub fn page(&self) -> String {
        self.counts.page(self.standing.load().roles.generation(), &self.problems)
    }
}

/// Runs until SIGTERM or SIGINT. `ready` is told where metrics are served.
pub fn run(config: CalloutConfig, ready: impl FnOnce(Option<std::net::SocketAddr>)) -> Result<(), CalloutError> {
    let machine = |error: std::io::Error| CalloutError::Machine(error.to_string());
    portcullis_tls::install_provider();
    // Secrets and files first, then the fence, then threads.
    let answering = Answering::new(&config)?;
    let login = Secret::read(&config.login)?;
    let system = config.system.as_ref().map(Secret::read).transpose()?;
    tls_files::check(&config)?;
    let ends = ended(&config, &login, system.as_ref())?;
    let (watched, standing) = first(&config)?;
    answering.fits(&standing.roles)?;
    let mut folder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(folder.recursive(true), 0o700)
        .create(&config.state_dir)
        .map_err(|error| CalloutError::file(&config.state_dir, error, ""))?;
    // Held to the end: two that write one audit log break its chain.
    let _only_one = state::lock(&config.state_dir).map_err(|error| match error {
        StateError::InUse { path } => {
            let hint = "each callout has a state_dir, and a listen.metrics, of its own";
            CalloutError::file(&path, "it is in use by another callout", hint)
        }
        error => CalloutError::file(&config.state_dir, error, ""),
    })?;
    let listening = match config.metrics {
        None => None,
        Some(address) => {
            let listener = std::net::TcpListener::bind(address)
                .map_err(|error| CalloutError::config(format!("listen.metrics {address}: {error}"), "is it taken?"))?;
            listener.set_nonblocking(true).map_err(machine)?;
            Some(listener)
        }
    };
    let report = fence::enter(&config).map_err(machine)?;
    tracing::info!(landlock = %report.landlock, seccomp = report.seccomp, "the fence is up");
    for path in fence::fixed(&config) {
        tracing::warn!(
            path = %path.display(),
            "seeds lie in its folder or below: when it is replaced by another file, this callout cannot read it; hint: a folder of its own for certificates, or a restart after each"
        );
    }
    for danger in config.dangers.on() {
        tracing::warn!("{danger} is on and weakens this callout");
    }
    let journal = Journal::open(&config.state_dir.join("audit.jsonl")).map_err(|error| {
        CalloutError::file(&config.state_dir, format!("the audit log: {error}"), "see `audit verify`")
    })?;
    ready(listening.as_ref().and_then(|listener| listener.local_addr().ok()));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(machine)?;
    let deciding = tokio::runtime::Builder::new_multi_thread().thread_name("decide").enable_all().build();
    let deciding = deciding.map_err(machine)?;
    let made = Made { answering, login, system, ends, standing, watched, listening, journal };
    let ended = runtime.block_on(serve(config, made, deciding.handle().clone()));
    deciding.shutdown_background();
    ended
}

/// What it begins with: files that nobody was writing before they were read, nor while they were.
fn first(config: &CalloutConfig) -> Result<(Watched, Standing), CalloutError> {
    let until = std::time::Instant::now() + CALLOUT_SETTLE;
    loop {
        let watched = watched::settled(config, until).map_err(|path| {
            CalloutError::file(
                &path,
                "it is written again and again",
                "begin when it is whole; write another file and mv it",
            )
        })?;
        let standing = Standing::load(config, 1);
        if watched.is_unchanged() {
            return Ok((watched, standing?));
        }
    }
}

/// Everything that was made before the fence went up.
struct Made {
    answering: Answering,
    login: Secret,
    system: Option<Secret>,
    ends: Vec<End>,
    standing: Standing,
    watched: Watched,
    listening: Option<std::net::TcpListener>,
    journal: Journal,
}

/// When the credentials end, which are not read again; refused where one has, or a token that is.
fn ended(config: &CalloutConfig, login: &Secret, system: Option<&Secret>) -> Result<Vec<End>, CalloutError> {
    let now = crate::clock::now();
    let of_system = config.system.as_ref().and_then(|login| login.creds.as_deref());
    let ends = [
        ends::of_secret(config.login.creds.as_deref(), login),
        system.and_then(|secret| ends::of_secret(of_system, secret)),
    ];
    let ends: Vec<End> = ends.into_iter().flatten().collect();
    let tokens = ends::of_tokens(config)?;
    match ends.iter().chain(&tokens).find(|end| end.left(now) == Left::None) {
        Some(end) => Err(CalloutError::config(end.text(now), ends::HINT)),
        None => Ok(ends),
    }
}

async fn serve(config: CalloutConfig, made: Made, deciding: Handle) -> Result<(), CalloutError> {
    let Made { answering, login, system, ends, standing, watched, listening, journal } = made;
    let machine = |error: std::io::Error| CalloutError::Machine(error.to_string());
    let problems = Arc::new(Problems::default());
    let own = Connection::open(&config, &config.login, login, "callout", Arc::clone(&problems)).await?;
    let mut revoker = None;
    let mut servers = None;
    if let (Some(login), Some(secret)) = (&config.system, system) {
        let connection = Connection::open(&config, login, secret, "system", Arc::clone(&problems)).await?;
        let all = Servers::new(connection.client.clone());
        tokio::spawn(Arc::clone(&all).keep_looking());
        revoker = Some(Revoker::new(connection.client.clone(), Arc::clone(&all), journal.clone()));
        let account = answering.system_account(&config);
        tokio::spawn(connection.keep_verified(account, Arc::clone(&problems), || {}));
        servers = Some(all);
    }
    let shared = Arc::new(Shared {
        standing: arc_swap::ArcSwap::from_pointee(standing),
        counts: Counts::default(),
        problems: Arc::clone(&problems),
        journal: journal.clone(),
        admitted: Admitted::default(),
        servers,
        answering,
        at_work: Semaphore::new(config.concurrency),
        deciding,
        config,
    });
    let started =
        Record::new("callout-start").field("version", env!("CARGO_PKG_VERSION")).field("id", shared.config.id.as_str());
    if !journal.durable(started).await {
        return Err(CalloutError::Machine("the audit log cannot be written".to_owned()));
    }
    if let Some(listener) = listening {
        let listener = TcpListener::from_std(listener).map_err(machine)?;
        tokio::spawn(listener::serve(Arc::clone(&shared), listener));
    }
    tokio::spawn(ends::keep_telling(Arc::clone(&shared), ends));
    tokio::spawn(watching::run(Arc::clone(&shared), watched, revoker));
    let queue = own.client.queue_subscribe(SUBJECT, QUEUE.to_owned()).await;
    let mut requests = queue.map_err(|error| CalloutError::Machine(format!("cannot subscribe: {error}")))?;
    let account = shared.config.account.clone();
    tokio::spawn(own.clone().keep_verified(account, Arc::clone(&problems), || {}));
    let listen = |kind| tokio::signal::unix::signal(kind).map_err(machine);
    let (mut term, mut int) =
        (listen(tokio::signal::unix::SignalKind::terminate())?, listen(tokio::signal::unix::SignalKind::interrupt())?);
    let places = Arc::new(Semaphore::new(shared.config.concurrency.saturating_add(shared.config.waiting)));
    let told = loop {
        let message = tokio::select! {
            biased;
            _ = term.recv() => break "SIGTERM",
            _ = int.recv() => break "SIGINT",
            message = requests.next() => message,
        };
        let Some(message) = message else { break "the end of its subscription" };
        take(&shared, &own.client, &places, message).await;
    };
    stopping::finish(&shared, &own.client, requests, &places, told).await;
    let _ = journal.durable(Record::new("callout-stop")).await;
    tracing::info!("it has ended: {}", shared.counts.in_words());
    Ok(())
}

/// Begins to work on a request, or says no at once where there is no place for it.
pub(super) async fn take(shared: &Arc<Shared>, client: &Client, places: &Arc<Semaphore>, message: Message) {
    let arrived = Instant::now();
    let Some(reply) = message.reply.clone() else {
        shared.counts.rejected.up();
        return;
    };
    let Ok(place) = Arc::clone(places).try_acquire_owned() else {
        shared.counts.busy.up();
        let _ = client.publish(reply, Bytes::new()).await;
        return;
    };
    let (shared, client, deciding) = (Arc::clone(shared), client.clone(), shared.deciding.clone());
    deciding.spawn(async move {
        let _place = place;
        shared.counts.at_work.fetch_add(1, Ordering::Relaxed);
        let until = arrived + shared.config.deadline;
        // An answer that comes too late is none: the server has said no by then, and an empty one costs nothing.
        let decided = async {
            // In the order in which they came. What waited for most of its time is not begun: it would not be done in time, and
            // take the time of others. Closed is never said to it.
            let begin = arrived + shared.config.deadline.mul_f64(BEGIN);
            let at_work = tokio::time::timeout_at(begin, shared.at_work.acquire()).await;
            match at_work {
                Ok(_at_work) => Some(decide(&shared, &message, until).await),
                Err(_) => None,
            }
        };
        let answer = match tokio::time::timeout_at(until, decided).await {
            Ok(Some(answer)) => answer,
            Ok(None) | Err(_) => {
                shared.counts.late.up();
                Bytes::new()
            }
        };
        let _ = client.publish(reply, answer).await;
        shared.counts.at_work.fetch_sub(1, Ordering::Relaxed);
        shared.counts.took.took(arrived.elapsed());
    });
}

/// Decides one request; gives the bytes of the answer. Empty: a no, without a word.
async fn decide(shared: &Shared, message: &Message, until: Instant) -> Bytes {
    let now = crate::clock::now();
    let keys = message.headers.as_ref().into_iter().flat_map(|headers| headers.get_all("Nats-Server-Xkey"));
    let keys: Vec<&str> = keys.map(|key| key.as_str()).collect();
    let asked = match shared.answering.open(&message.payload, &keys, now) {
        Ok(asked) => asked,
        Err(error) => return reject(shared, "request", &error.to_string()),
    };
    if let Some(servers) = &shared.servers
        && !servers.knows(asked.server(), until.min(Instant::now() + CALLOUT_SERVER_WAIT)).await
    {
        return reject(shared, "server", "the key of the request is no server's that the system account knows");
    }
    if shared.journal.is_broken() {
        shared.problems.set("audit", "the audit log cannot be written");
        return shared.answering.unavailable(&asked, now);
    }
    let _at_work = shared.journal.at_work();
    let standing = shared.standing.load_full();
    let verdict = shared.answering.decide(&asked, &standing, now);
    let reference = ulid::Ulid::generate().to_string();
    match verdict {
        Verdict::Denied(denied) => {
            shared.counts.denied.up();
            tracing::info!(reference, "{}", denied.text());
            if !shared.journal.note(denied.record(&asked).reference(&reference)) {
                shared.counts.records_lost.up();
            }
            denied.answer()
        }
        Verdict::Allowed(allowed) => {
            // It is signed while the disk writes, and leaves when both are done.
            let recorded = shared.journal.begin(allowed.record(&asked).reference(&reference));
            let number = asked.connection();
            let fits = shared.admitted.remember(asked.server(), number, allowed.workload().clone(), allowed.until());
            let answer = shared.answering.allow(&asked, &allowed, now);
            let on_disk = match recorded {
                Some(done) => done.await.unwrap_or(false),
                None => false,
            };
            // What was revoked or narrowed while this was under way does not get in by the way.
            let current = shared.standing.load_full();
            let stands = Arc::ptr_eq(&current, &standing) || shared.answering.holds(&asked, &allowed, &current, now);
            match answer {
                Ok(answer) if on_disk && stands && fits => {
                    shared.counts.allowed.up();
                    answer
                }
                _ => {
                    shared.counts.denied.up();
                    tracing::warn!(reference, on_disk, stands, fits, "allowed, but it does not leave");
                    let record = Record::new("callout-withheld").field("of", reference).field("on_disk", on_disk);
                    if !shared.journal.note(record.field("stands", stands).field("fits", fits)) {
                        shared.counts.records_lost.up();
                    }
                    shared.answering.unavailable(&asked, now)
                }
            }
        }
    }
}

/// Somebody asks who may not ask, or not so: no word in answer, and no work for it.
fn reject(shared: &Shared, code: &str, why: &str) -> Bytes {
    shared.counts.rejected.up();
    tracing::warn!(code, "a request was not taken: {why}");
    let record = Record::new("callout-rejected").field("code", code).field("why", why);
    if !shared.journal.note(record) {
        shared.counts.records_lost.up();
    }
    Bytes::new()
}

/// By which part of its time a request must have been begun.
const BEGIN: f64 = 0.75;
/// What servers ask on.
const SUBJECT: &str = "$SYS.REQ.USER.AUTH";
/// All callouts of a system share the requests.
const QUEUE: &str = "callout";
