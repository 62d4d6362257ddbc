//! What policy granted and is still at work: a request, a stream, a connection. It is decided anew whenever policy changes.
//!
//! Costs next to nothing while policy does not change: a number is compared, and whoever waits is woken. What would not be
//! granted now is reported and over; whoever holds this ends it. Cedar is asked here: never poll this from a guest's stack.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use portcullis_policies::{Caller, Denial, Grant, HttpSend, Subject, Subscribe};

use super::component::Loaded;
use crate::rpc::runtime::{self as rpc, event::What};

/// A grant that holds for as long as policy gives it.
pub struct Standing {
    who: Arc<Loaded>,
    granted: Granted,
    seen: u64,
    wait: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// What was granted.
#[derive(Debug)]
pub enum Granted {
    /// Somebody may call.
    Call(Caller),
    /// A request may go where its grant says, and to this address.
    Http(Grant<HttpSend>, SocketAddr),
    /// Messages may be received, and this one.
    Messages(Arc<Grant<Subscribe>>, Subject),
}

/// Why it is over, as it was reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Over {
    /// Stable code.
    pub code: String,
    /// Reference of the audit record.
    pub reference: String,
}

impl Standing {
    /// What was decided after `seen` was taken from [`Loaded::change`], so that no change in between is missed.
    pub fn new(who: &Arc<Loaded>, seen: u64, granted: Granted) -> Self {
        Self { who: Arc::clone(who), granted, seen, wait: None }
    }

    /// Whether policy changed and does not grant it any more. Does not wait.
    pub fn check(&mut self) -> Option<Over> {
        #[cfg(feature = "bench-ungated")]
        if crate::ungated::is_open() {
            return None;
        }
        let change = self.who.change();
        if change == self.seen {
            return None;
        }
        self.seen = change;
        let (denial, what) = self.decide().err()?;
        let code = denial.code().to_string();
        let generation = denial.generation();
        let reference = self.who.shared().events.ended(self.who.instance(), generation, &code, what);
        Some(Over { code, reference })
    }

    /// Ready when policy does not grant it any more.
    pub fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        #[cfg(feature = "bench-ungated")]
        if crate::ungated::is_open() {
            return Poll::Pending;
        }
        loop {
            // Whoever waits does so before looking: a change in between is either seen or told of.
            let who = &self.who;
            let waits = self.wait.get_or_insert_with(|| {
                let mut changes = who.changes();
                Box::pin(async move {
                    if changes.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                })
            });
            let told = waits.as_mut().poll(cx).is_ready();
            if told {
                self.wait = None;
            }
            if let Some(over) = self.check() {
                return Poll::Ready(over);
            }
            if !told {
                return Poll::Pending;
            }
        }
    }

    /// Waits until policy does not grant it any more.
    pub async fn over(&mut self) -> Over {
        std::future::poll_fn(|cx| self.poll_over(cx)).await
    }

    fn decide(&self) -> Result<(), (Denial, What)> {
        let in_force = self.who.in_force();
        let slice = in_force.slice();
        match &self.granted {
            Granted::Call(caller) => {
                let _grant = slice.call(caller).map_err(|denial| (denial, called(caller)))?;
                in_force.links().map_err(|(interface, denial)| (denial.clone(), linked(interface)))
            }
            Granted::Http(send, address) => {
                let (destination, method) = (send.destination().to_string(), send.method().to_owned());
                let sent = slice.http_send(send.destination(), send.method());
                let what = || rpc::HttpSend { destination: destination.clone(), method: method.clone() };
                let _grant = sent.map_err(|denial| (denial, What::HttpSend(what())))?;
                // With the grant that it was sent under: a policy that demands another peer refuses it.
                let _grant = slice.http_connect(send, *address).map_err(|denial| {
                    let address = address.to_string();
                    (denial, What::HttpConnect(rpc::HttpConnect { destination, method, address }))
                })?;
                Ok(())
            }
            Granted::Messages(subscribe, subject) => {
                let queue = subscribe.queue();
                // A wide pattern lies in no rule about something narrower: the message's own subject is asked about, too.
                for asked in [subscribe.pattern().as_str(), subject.as_str()] {
                    let _grant = slice
                        .subscribe(asked, queue)
                        .map_err(|denial| (denial, messaged("subscribe", asked, queue)))?;
                }
                in_force.links().map_err(|(interface, denial)| (denial.clone(), linked(interface)))
            }
        }
    }
}

/// What is reported of a call.
pub fn called(caller: &Caller) -> What {
    let caller = match caller {
        Caller::Anonymous => String::new(),
        Caller::Workload(id) => id.clone(),
    };
    What::Call(rpc::Call { caller })
}

/// What is reported of a message that was to be sent, or of a subscription.
pub fn messaged(action: &str, subject: &str, queue: &str) -> What {
    // What is longer is malformed, and so is what is left of it.
    let subject = subject.chars().take(SUBJECT_CHARS).collect();
    What::Messaging(rpc::Messaging { action: action.to_owned(), subject, queue: queue.to_owned() })
}

/// What is reported of a link that is not granted any more.
pub fn linked(interface: &str) -> What {
    What::Link(rpc::Link { interface: interface.to_owned() })
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standing")
            .field("component", &self.who.name())
            .field("granted", &self.granted)
            .finish_non_exhaustive()
    }
}

/// Longest part of a subject that is reported; subjects have at most 255 bytes.
const SUBJECT_CHARS: usize = 300;
