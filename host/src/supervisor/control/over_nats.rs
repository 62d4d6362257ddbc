//! The way in over NATS: `portcullis.CLUSTER.ctl.HOST.METHOD`, answered to the reply subject of each message.
//!
//! A message whose own subject is another one is dropped: a stream can deliver what it stored to any subject. That is no
//! protection, since subjects prove nothing, but such a message was not meant for this host.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::StreamExt as _;

use super::remote::{LOOK, Over, Remote};
use crate::control::{room, subject};
use crate::nats::Nats;
use crate::supervisor::Host;

/// Serves for as long as the host runs.
pub async fn serve(host: Arc<Host>, remote: Arc<Remote>) {
    let all = subject(&host.config.cluster, &host.node(), "*");
    while !host.is_stopping() {
        if let Some(nats) = host.nats()
            && nats.verified(LOOK * 25).await.is_ok()
        {
            match nats.subscribe(all.clone(), None).await {
                Ok(messages) => {
                    host.commands_decided.store(true, Ordering::Release);
                    take(messages, &all, &nats, &remote).await;
                }
                Err(error) => {
                    // The server's word counts as one, too: a host that nobody may command over NATS works all the same.
                    host.commands_decided.store(true, Ordering::Release);
                    tracing::warn!(%error, hint = error.hint(), subject = all, "commands over NATS are not received");
                }
            }
        }
        tokio::time::sleep(LOOK * 5).await;
    }
}

async fn take(mut messages: async_nats::Subscriber, all: &str, nats: &Nats, remote: &Arc<Remote>) {
    let prefix = all.strip_suffix('*').unwrap_or(all).to_owned();
    while let Some(message) = messages.next().await {
        let method = message.subject.as_str().strip_prefix(&prefix).map(ToOwned::to_owned);
        let (Some(method), Some(reply)) = (method, message.reply.clone()) else {
            tracing::warn!(subject = %message.subject.as_str().escape_debug().take(128).collect::<String>(), "a control message of another subject, or without a reply subject, was dropped");
            continue;
        };
        let (nats, remote) = (nats.clone(), Arc::clone(remote));
        tokio::spawn(async move {
            let headers = message.headers.as_ref();
            let statement = headers.and_then(|headers| headers.get(portcullis_identity::statement::HEADER));
            let statement = statement.map(|value| value.as_str().to_owned());
            let over = Over::Nats { most: room(&nats) };
            let answered = remote.answer(&method, statement.as_deref(), &message.payload, over).await;
            let headers = answered.statement.map(|statement| {
                let mut headers = async_nats::HeaderMap::new();
                headers.insert(portcullis_identity::statement::HEADER, statement);
                headers
            });
            if let Err(error) = nats.publish(reply.to_string(), headers, answered.payload).await {
                tracing::warn!(%error, "an answer of the control plane was not sent");
            }
        });
    }
}
