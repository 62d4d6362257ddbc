//! What the runtime is told about messages of components: the servers, whom to believe there, and as whom to come. No secret.

use std::io;

use portcullis_identity::SpiffeId;

use super::Host;
use crate::config::nats::{NatsAuth, NatsLink};
use crate::nats::Settings;
use crate::runtime::messaging::told::Told;

/// As JSON; empty where components have no messages.
pub fn told(host: &Host) -> io::Result<String> {
    let (Some(settings), Some(nats)) = (&host.config.messaging, &host.config.nats) else { return Ok(String::new()) };
    let ca = nats.tls.ca.as_deref().map(crate::supervisor::nats::read).transpose().map_err(io::Error::other)?;
    let own: SpiffeId = host.data_id().ok_or_else(|| io::Error::other("the host has no SPIFFE ID"))?;
    let of_components = settings.account.as_ref().map(|account| NatsLink {
        account: account.clone(),
        user: None,
        inbox_prefix: None,
        auth: NatsAuth { svid: true, ..NatsAuth::default() },
    });
    let link = of_components.as_ref().or(nats.data.as_ref());
    let link = link.ok_or_else(|| io::Error::other("there is no connection for messages"))?;
    let mut line = Settings::of(nats, link, &own, "data", ca);
    line.name = "portcullis messages".to_owned();
    Ok(serde_json::to_string(&Told { settings: settings.clone(), line })?)
}
