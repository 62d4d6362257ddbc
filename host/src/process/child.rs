//! Starting a child process and noticing its end.
//!
//! Children are started from one thread that lives as long as the supervisor: the kernel ties a child's death signal to
//! the *thread* that started it (prctl(2), `PR_SET_PDEATHSIG`), so a worker thread that ends would take children with it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::sync::{oneshot, watch};

use super::Role;
use super::handover::Handover;
use crate::config::environment;

/// Starts children. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Spawner {
    jobs: mpsc::Sender<Job>,
}

/// A running child.
#[derive(Debug)]
pub struct Child {
    /// Process id.
    pub pid: u32,
    /// The way to give it descriptors.
    pub handover: Handover,
    pidfd: OwnedFd,
    ended: watch::Receiver<Option<String>>,
}

struct Job {
    role: Role,
    stdin: OwnedFd,
    stdout: Option<OwnedFd>,
    reply: oneshot::Sender<io::Result<std::process::Child>>,
}

impl Spawner {
    /// Starts the thread that starts children.
    pub fn new() -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::Builder::new().name("children".to_owned()).spawn(move || {
            while let Ok(job) = queue.recv() {
                let started = start(job.role, job.stdin, job.stdout);
                if let Err(Ok(mut orphan)) = job.reply.send(started) {
                    let _ = orphan.kill();
                    let _ = orphan.wait();
                }
            }
        })?;
        Ok(Self { jobs })
    }

    /// Starts this binary again in `role`. Its standard input is the handover socket; its standard output is `stdout`,
    /// else nothing; its standard error is ours.
    pub async fn spawn(&self, role: Role, stdout: Option<OwnedFd>) -> io::Result<Child> {
        let (handover, stdin) = Handover::pair()?;
        let (reply, started) = oneshot::channel();
        let gone = || io::Error::other("the thread that starts children is gone");
        self.jobs.send(Job { role, stdin, stdout, reply }).map_err(|_| gone())?;
        let mut process = started.await.map_err(|_| gone())??;
        let pid = process.id();
        let pidfd = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::other("the child has no process id"))
            .and_then(|pid| Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?))?;
        let (tell, ended) = watch::channel(None);
        std::thread::Builder::new().name(format!("wait-{role}")).spawn(move || {
            let how = match process.wait() {
                Ok(status) => status.to_string(),
                Err(error) => format!("cannot be waited for: {error}"),
            };
            let _ = tell.send(Some(how));
        })?;
        Ok(Child { pid, handover, pidfd, ended })
    }
}

impl Child {
    /// Waits for the end of the process and says how it ended.
    pub async fn ended(&self) -> String {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(how) => how.clone().unwrap_or_default(),
            Err(_) => "nobody waits for it any more".to_owned(),
        }
    }

    /// A way to kill the process for somebody who does not hold it.
    pub fn killer(&self) -> io::Result<Killer> {
        Ok(Killer(self.pidfd.try_clone()?))
    }

    /// Kills the process; an error only where it is gone already.
    pub fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// The first packet: what the child is to be, with the descriptors it starts with.
    pub fn boot(&self, payload: serde_json::Value, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let boot = serde_json::json!({ "parent": std::process::id(), "config": payload });
        self.handover.send("boot", 0, boot, fds)
    }
}

/// Can kill one process and do nothing else.
#[derive(Debug)]
pub struct Killer(OwnedFd);

impl Killer {
    /// Kills the process, if it still is there.
    pub fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.0, Signal::KILL);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

fn start(role: Role, stdin: OwnedFd, stdout: Option<OwnedFd>) -> io::Result<std::process::Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("role").arg(role.name()).env_clear().stdin(Stdio::from(stdin)).stderr(Stdio::inherit());
    let tokens = if role == Role::Identity { environment::PKCS11 } else { &[] };
    for name in environment::PASSED_ON.iter().chain(tokens) {
        if let Some(value) = environment::read(name) {
            command.env(name, value);
        }
    }
    // Signals to the group of the supervisor (Ctrl-C) are the supervisor's to act on.
    command.process_group(0);
    match stdout {
        Some(fd) => command.stdout(Stdio::from(fd)),
        None => command.stdout(Stdio::null()),
    };
    command.spawn()
}

/// Borrows descriptors for [`Child::boot`] and [`Handover::send`].
pub fn borrow<'a, const N: usize>(fds: [&'a OwnedFd; N]) -> [BorrowedFd<'a>; N] {
    fds.map(AsFd::as_fd)
}
