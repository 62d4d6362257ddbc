//! What a component sends: decided on its literal subject, then sent under the grant.
//!
//! The subject for answers that a component names itself is decided on as a subscription: it has others publish there. One for a
//! request is ours: the component's own inbox, a new one each time that nobody can guess.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use portcullis_policies::{Denial, Subject};

use super::NoLine;
use super::delivery::{Answer, Delivery};
use super::line::{Line, LineError};
use crate::runtime::component::Loaded;
use crate::runtime::standing::{linked, messaged};

/// Why nothing was sent, or no answer came. The component sees this text.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// Policy said no; it is in the audit log under the reference.
    #[error("denied {code}, reference {reference}")]
    Denied { code: String, reference: String },
    /// Larger than this host sends.
    #[error("a message has at most {0} bytes")]
    TooLarge(usize),
    /// No connection.
    #[error(transparent)]
    NoLine(#[from] NoLine),
    /// The connection, or the other side.
    #[error(transparent)]
    Line(#[from] LineError),
}

/// Publishes one message.
pub(super) async fn publish(
    who: &Arc<Loaded>,
    delivery: Option<&Delivery>,
    subject: &str,
    reply: Option<&str>,
    body: Vec<u8>,
) -> Result<(), SendError> {
    check(who, body.len())?;
    if let Some(answer) = delivery.and_then(|delivery| may_answer(who, delivery, subject)).transpose()? {
        let line = who.shared().messaging.line(who).await?;
        line.publish(answer.subject(), None, Bytes::from(body)).await?;
    } else {
        let grant = who.slice().publish(subject).map_err(|denial| refuse(who, &denial, "publish", subject))?;
        who.note(&grant, || messaged("publish", subject, ""));
        // No subject at all: some libraries send an empty one.
        let reply = reply.filter(|reply| !reply.is_empty()).map(|reply| may_name(who, reply)).transpose()?;
        let line = who.shared().messaging.line(who).await?;
        line.publish(grant.subject(), reply.as_ref(), Bytes::from(body)).await?;
    }
    who.shared().messaging.counts().sent.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Publishes a message and waits for one answer: its subject and its bytes.
pub(super) async fn request(
    who: &Arc<Loaded>,
    subject: &str,
    body: Vec<u8>,
    timeout_ms: u32,
) -> Result<(String, Vec<u8>), SendError> {
    check(who, body.len())?;
    let grant = who.slice().request(subject).map_err(|denial| refuse(who, &denial, "request", subject))?;
    who.note(&grant, || messaged("request", subject, ""));
    let messaging = &who.shared().messaging;
    let settings = messaging.settings().ok_or(NoLine::NotConfigured)?;
    let within = Duration::from_millis(u64::from(timeout_ms).clamp(1, settings.request_ms));
    let line: Line = messaging.line(who).await?;
    let inbox = line.new_inbox();
    messaging.counts().sent.fetch_add(1, Ordering::Relaxed);
    let answer = line.ask(grant.subject(), &inbox, Bytes::from(body), within).await?;
    let most = usize::try_from(settings.message_bytes).unwrap_or(usize::MAX);
    if answer.len() > most {
        return Err(SendError::TooLarge(most));
    }
    Ok((inbox, answer.into()))
}

/// What does not depend on the subject: whether it may do anything, and how large the message is.
fn check(who: &Arc<Loaded>, bytes: usize) -> Result<(), SendError> {
    if super::is_over(who) {
        return Err(NoLine::Over.into());
    }
    let settings = who.shared().messaging.settings().ok_or(NoLine::NotConfigured)?;
    let most = usize::try_from(settings.message_bytes).unwrap_or(usize::MAX);
    if bytes > most {
        return Err(SendError::TooLarge(most));
    }
    let in_force = who.in_force();
    in_force.links().map_err(|(interface, denial)| {
        let code = denial.code().to_string();
        let events = &who.shared().events;
        let reference = events.report(who.instance(), denial.generation(), &code, linked(interface));
        SendError::Denied { code, reference }
    })
}

/// The right to answer the message at work, for as long as policy grants what it was delivered under.
fn may_answer(who: &Arc<Loaded>, delivery: &Delivery, subject: &str) -> Option<Result<Answer, SendError>> {
    let answer = delivery.answer(subject)?;
    let (pattern, queue) = (delivery.under().pattern().as_str(), delivery.under().queue());
    let still = who.slice().subscribe(pattern, queue);
    Some(still.map(|_grant| answer).map_err(|denial| {
        let code = denial.code().to_string();
        let what = messaged("subscribe", pattern, queue);
        let reference = who.shared().events.report(who.instance(), denial.generation(), &code, what);
        SendError::Denied { code, reference }
    }))
}

/// Whether a component may have answers sent to a subject that it names.
fn may_name(who: &Arc<Loaded>, reply: &str) -> Result<Subject, SendError> {
    let grant = who.slice().subscribe(reply, "").map_err(|denial| refuse(who, &denial, "subscribe", reply))?;
    who.note(&grant, || messaged("subscribe", reply, ""));
    // A pattern may be subscribed to and is no subject of a message.
    reply.parse().map_err(|_| SendError::Line(LineError::Subject))
}

fn refuse(who: &Arc<Loaded>, denial: &Denial, action: &str, subject: &str) -> SendError {
    let code = denial.code().to_string();
    let what = messaged(action, subject, "");
    let reference = who.shared().events.report(who.instance(), denial.generation(), &code, what);
    SendError::Denied { code, reference }
}
