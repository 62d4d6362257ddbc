//! The lease of one connection of the Workload API: the supervisor watches the process at the other end, and says at any time
//! whether it still is the one that was attested. When the lease ends the connection is cut.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use crate::limits::WORKLOAD_LOOK_TIMEOUT;
use crate::rpc;

/// Asks about the process.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    questions: mpsc::Sender<oneshot::Sender<()>>,
}

impl Lease {
    /// Takes our end of a lease; the future is ready when it ended.
    pub(super) fn take(fd: OwnedFd) -> io::Result<(Self, impl Future<Output = ()>)> {
        let stream = rpc::stream(fd)?;
        let (questions, asked) = mpsc::channel(1);
        Ok((Self { questions }, hold(stream, asked)))
    }

    /// Whether the process still is the one that was attested.
    pub(super) async fn holds(&self) -> bool {
        let (reply, answer) = oneshot::channel();
        self.questions.send(reply).await.is_ok() && answer.await.is_ok()
    }
}

/// Carries questions over and answers back, one at a time, until the supervisor ends the lease or does not answer in time.
async fn hold(mut stream: UnixStream, mut asked: mpsc::Receiver<oneshot::Sender<()>>) {
    let mut byte = [0];
    loop {
        let reply = tokio::select! {
            biased;
            // Between two questions nothing comes but the end.
            _ = stream.read(&mut byte) => return,
            reply = asked.recv() => match reply {
                Some(reply) => reply,
                None => std::future::pending().await,
            },
        };
        let answered = async {
            stream.write_all(&[1]).await?;
            stream.read_exact(&mut byte).await.map(|_| ())
        };
        match tokio::time::timeout(WORKLOAD_LOOK_TIMEOUT, answered).await {
            Ok(Ok(())) => drop(reply.send(())),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease() -> (Lease, tokio::task::JoinHandle<()>, UnixStream) {
        let (ours, theirs) = rpc::pair().unwrap();
        let (lease, ended) = Lease::take(ours).unwrap();
        (lease, tokio::spawn(ended), rpc::stream(theirs).unwrap())
    }

    #[tokio::test]
    async fn a_lease_holds_as_long_as_the_supervisor_answers() {
        let (lease, ended, mut supervisor) = lease();
        let asked = tokio::spawn({
            let lease = lease.clone();
            async move { lease.holds().await }
        });
        let mut byte = [0];
        supervisor.read_exact(&mut byte).await.unwrap();
        supervisor.write_all(&byte).await.unwrap();
        assert!(asked.await.unwrap());
        drop(supervisor);
        ended.await.unwrap();
        assert!(!lease.holds().await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_supervisor_that_does_not_answer_ends_the_lease() {
        let (lease, ended, _supervisor) = lease();
        assert!(!lease.holds().await);
        ended.await.unwrap();
    }
}
