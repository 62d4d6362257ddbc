//! The door of the Workload API: accepts connections, sees who is there, hands the connected socket to the identity process.
//!
//! Decides which registered entries the process at the other end fits, by what the kernel says of it and nothing else; a
//! process that fits none is handed over as such and gets its refusal from there. As long as a connection lasts the process
//! behind it is watched: when it ends or becomes another program its lease ends and the connection is cut. No key and no SVID
//! ever comes here.

mod digests;
mod matching;
mod process;
mod refusals;
mod socket;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;

use self::digests::Digests;
pub use self::process::Facts;
use self::process::{Process, ProcessError};
pub use self::refusals::Refusals;
pub use self::socket::Socket;
use super::{Host, HostError};
use crate::audit::Record;
use crate::config::workload_api::WorkloadApi as Settings;
use crate::limits::{CHILD_START, WORKLOAD_CONNECTIONS, WORKLOAD_CONNECTIONS_EACH, WORKLOAD_LOOK};
use crate::process::child::{Child, borrow};
use crate::roles::identity::Caller;
use crate::rpc;

/// The door, while it is open.
#[derive(Debug)]
pub struct WorkloadApi {
    settings: Settings,
    socket: Socket,
    room: Arc<Semaphore>,
    seats: Mutex<HashMap<u32, usize>>,
    digests: Digests,
    refusals: Mutex<Refusals>,
}

/// A connection's place among those of its user.
struct Seat {
    api: Arc<WorkloadApi>,
    uid: u32,
    /// Its number, from 1.
    number: usize,
}

/// Opens the door, if the configuration has one.
pub fn listen(host: &Arc<Host>) -> Result<(), HostError> {
    let Some(settings) = host.config.workload_api.clone() else { return Ok(()) };
    let failed = |error: io::Error| {
        let path = settings.socket.display();
        io::Error::new(error.kind(), format!("the Workload API's socket {path} cannot be made: {error}"))
    };
    let (socket, listener) = Socket::listen(&settings).map_err(failed)?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    tracing::info!(endpoint = %format!("unix://{}", settings.socket.display()), entries = settings.workloads.len(), "the Workload API is served");
    let api = Arc::new(WorkloadApi {
        settings,
        socket,
        room: Arc::new(Semaphore::new(WORKLOAD_CONNECTIONS)),
        seats: Mutex::default(),
        digests: Digests::default(),
        refusals: Mutex::default(),
    });
    if host.workload_api.set(Arc::clone(&api)).is_ok() {
        tokio::spawn(accept(Arc::clone(host), api, listener));
    }
    Ok(())
}

/// Tells a new identity process which entries there are: one packet each, since together they may be larger than one can be.
pub async fn register(host: &Host, child: &Child) -> io::Result<()> {
    let entries = host.config.workload_api.iter().flat_map(|api| &api.workloads);
    for entry in entries {
        child.handover.send("workload-entry", 0, serde_json::to_value(entry)?, &[])?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Closes the door and has every client told that the server ends.
pub async fn stop(host: &Host) {
    let Some(api) = host.workload_api.get() else { return };
    api.socket.remove();
    api.room.close();
    if let Some(up) = host.identity_process.now() {
        let told = up.child.handover.send("workload-api-drain", 0, serde_json::Value::Null, &[]);
        if let Err(error) = told {
            tracing::warn!(%error, "the identity process was not told that the host stops");
        }
    }
    let until = Instant::now() + STOPPING;
    while Instant::now() < until && api.seats.lock().is_ok_and(|seats| !seats.is_empty()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn accept(host: Arc<Host>, api: Arc<WorkloadApi>, listener: UnixListener) {
    // The semaphore is closed when the host stops.
    while let Ok(room) = Arc::clone(&api.room).acquire_owned().await {
        let accepted = tokio::select! {
            biased;
            () = closed(&api) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (host, api) = (Arc::clone(&host), Arc::clone(&api));
                tokio::spawn(async move {
                    let _room = room;
                    if let Err(error) = serve(&host, &api, stream).await {
                        tracing::warn!(%error, "a connection to the Workload API was lost");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the Workload API failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn closed(api: &WorkloadApi) {
    while !api.room.is_closed() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn serve(host: &Arc<Host>, api: &Arc<WorkloadApi>, stream: UnixStream) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    if host.is_child(peer.pid()) {
        tracing::error!(pid = peer.pid(), "a process of this host tried the Workload API: it may be taken over");
        return Ok(());
    }
    let Some(seat) = Seat::take(api, peer.uid()) else {
        tracing::warn!(uid = peer.uid(), "a connection to the Workload API was closed: this user has too many");
        return Ok(());
    };
    let stranger = Facts {
        pid: peer.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default(),
        uid: peer.uid(),
        gid: peer.gid(),
        executable: std::path::PathBuf::new(),
        sha256: None,
    };
    let busy = seat.number > WORKLOAD_CONNECTIONS_EACH;
    let (looked_at, api_for_look) = (stream, Arc::clone(api));
    let (stream, known) = tokio::task::spawn_blocking(move || {
        let known = if busy { None } else { Some(attest(&api_for_look, &looked_at)) };
        (looked_at, known)
    })
    .await
    .map_err(io::Error::other)?;
    let (process, facts, entries) = match known {
        None => (None, stranger, Vec::new()),
        Some(Ok((process, entries, why))) => {
            let facts = process.facts().clone();
            if entries.is_empty() {
                refused(host, api, &facts, &why);
            }
            (Some(process), facts, entries)
        }
        Some(Err(ProcessError::Gone | ProcessError::Changed)) => return Ok(()),
        Some(Err(ProcessError::Io(error))) => {
            let hint = "to see the executables of other users' processes the host needs CAP_SYS_PTRACE";
            refused(host, api, &stranger, &format!("the kernel does not tell what it runs: {error}; {hint}"));
            (None, stranger, Vec::new())
        }
    };
    let lease = hand_over(host, stream, Caller { facts, entries, busy }).await?;
    match process {
        Some(process) => watch(&process, lease).await,
        // Whoever is not known has nothing that could be taken from it; the identity process ends it soon.
        None => until_over(lease).await,
    }
}

/// Sees who is there, and which entries it fits; where none, why.
fn attest(api: &WorkloadApi, stream: &UnixStream) -> Result<(Process, Vec<String>, String), ProcessError> {
    let mut process = Process::connected(stream)?;
    let entries = &api.settings.workloads;
    if matching::wants_digest(entries, process.facts().uid) {
        let digest = api.digests.of(&process)?;
        process.hashed(digest);
    }
    let (fitting, misfits) = matching::entries(entries, process.facts(), |path| process.runs(path));
    let names = fitting.iter().map(|entry| entry.name.clone()).collect();
    let why = match misfits.is_empty() {
        true => "no entry has this uid".to_owned(),
        false => misfits.iter().map(|(name, misfit)| format!("entry {name}: {misfit}")).collect::<Vec<_>>().join("; "),
    };
    process.check()?;
    Ok((process, names, why))
}

/// Gives the connection to the identity process; what comes back is our end of its lease. One that ended just now is waited for.
async fn hand_over(host: &Host, stream: UnixStream, caller: Caller) -> io::Result<UnixStream> {
    let (lease, theirs) = rpc::pair()?;
    let fds = Arc::new((OwnedFd::from(stream.into_std()?), theirs));
    let payload = serde_json::to_value(caller)?;
    let until = Instant::now() + CHILD_START;
    loop {
        let identity = host.identity_process.wait().await;
        let identity = identity.ok_or_else(|| io::Error::other("the identity process is not up"))?;
        let (payload, fds) = (payload.clone(), Arc::clone(&fds));
        let sent = tokio::task::spawn_blocking(move || {
            identity.child.handover.send("workload-api", 0, payload, &borrow([&fds.0, &fds.1]))
        });
        match sent.await.map_err(io::Error::other)? {
            Ok(()) => break,
            Err(error) if Instant::now() >= until => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    drop(fds);
    rpc::stream(lease)
}

/// Answers as long as the process is what it was; returning ends the lease.
async fn watch(process: &Process, mut lease: UnixStream) -> io::Result<()> {
    #[expect(deprecated, reason = "an owned descriptor stays open and the same; the new name is unsafe code")]
    let ended = AsyncFd::with_interest(process.pidfd()?, Interest::READABLE)?;
    let mut looks = tokio::time::interval(WORKLOAD_LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = [0];
    loop {
        tokio::select! {
            biased;
            _ = ended.readable() => return Ok(()),
            read = lease.read(&mut asked) => {
                if !matches!(read, Ok(1)) {
                    return Ok(());
                }
                if changed(process) {
                    return Ok(());
                }
                lease.write_all(&asked).await?;
            }
            _ = looks.tick() => if changed(process) {
                return Ok(());
            }
        }
    }
}

fn changed(process: &Process) -> bool {
    let checked = process.check();
    if let Err(error @ ProcessError::Changed) = &checked {
        let facts = process.facts();
        tracing::warn!(pid = facts.pid, uid = facts.uid, %error, "a connection to the Workload API is cut");
    }
    checked.is_err()
}

async fn until_over(mut lease: UnixStream) -> io::Result<()> {
    let mut asked = [0];
    while lease.read(&mut asked).await.is_ok_and(|read| read > 0) {}
    Ok(())
}

/// Writes down that a process has no identity, with the entry that would give it one.
fn refused(host: &Host, api: &WorkloadApi, facts: &Facts, why: &str) {
    let due = api.refusals.lock().ok().and_then(|mut refusals| refusals.refused(facts.uid, Instant::now()));
    let Some(number) = due else { return };
    let executable = facts.executable.display().to_string();
    let text = format!("uid {} running {} has no identity: {why}", facts.uid, executable.escape_debug());
    let entry = json!({ "uid": facts.uid, "executable": executable, "sha256": facts.sha256 });
    let record = Record::new("denial")
        .field("by", "supervisor")
        .field("action", "workload-api")
        .field("code", "workload.no-entry")
        .field("text", text)
        .field("hint", "if it is to have one, add a [[workload]] entry with this uid and executable")
        .field("pid", facts.pid)
        .field("uid", facts.uid)
        .field("gid", facts.gid)
        .field("entry", entry)
        .field("refused", number);
    if let Err(error) = host.record(record) {
        tracing::error!(%error, "a refusal could not be recorded");
        host.audit_failed();
    }
}

impl Seat {
    /// A place for one more connection of this user; `None` beyond twice the limit.
    fn take(api: &Arc<WorkloadApi>, uid: u32) -> Option<Self> {
        let mut seats = api.seats.lock().ok()?;
        let taken = seats.entry(uid).or_default();
        if *taken >= 2 * WORKLOAD_CONNECTIONS_EACH {
            return None;
        }
        *taken += 1;
        Some(Self { api: Arc::clone(api), uid, number: *taken })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Ok(mut seats) = self.api.seats.lock()
            && let Some(taken) = seats.get_mut(&self.uid)
        {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
                seats.remove(&self.uid);
            }
        }
    }
}

/// How long clients may take to go when the host stops.
const STOPPING: Duration = Duration::from_secs(1);
