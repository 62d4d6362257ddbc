//! CloudEvents 1.0 (structured JSON): heartbeats and what happens to components, as other systems read it too.

use portcullis_identity::SpiffeId;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::document::{self, DocumentError};
use crate::limits::EVENT_BYTES;

/// What the content type of an event is.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// An event. Who signed it is the statement's to say; `source` must be the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloudEvent {
    specversion: String,
    /// Unique for its source.
    pub id: String,
    /// The host's SPIFFE ID.
    pub source: SpiffeId,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// The component that it happened to, where it did to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// When, RFC 3339.
    pub time: String,
    datacontenttype: String,
    /// More.
    #[serde(default)]
    pub data: serde_json::Value,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EventKind {
    /// A host says what it runs.
    #[serde(rename = "dev.portcullis.host.heartbeat.v1")]
    Heartbeat,
    /// A host joined.
    #[serde(rename = "dev.portcullis.host.up.v1")]
    HostUp,
    /// A host leaves in order.
    #[serde(rename = "dev.portcullis.host.down.v1")]
    HostDown,
    /// A component was started.
    #[serde(rename = "dev.portcullis.component.started.v1")]
    Started,
    /// A component could not be started.
    #[serde(rename = "dev.portcullis.component.start-failed.v1")]
    StartFailed,
    /// A component was stopped because the cluster does not want it here.
    #[serde(rename = "dev.portcullis.component.stopped.v1")]
    Stopped,
    /// A component was stopped because it is revoked.
    #[serde(rename = "dev.portcullis.component.revoked.v1")]
    Revoked,
    /// Another set of policies is in force, or one was refused.
    #[serde(rename = "dev.portcullis.policy.changed.v1")]
    PolicyChanged,
    /// A value in a bucket was not believed.
    #[serde(rename = "dev.portcullis.value.refused.v1")]
    Refused,
}

impl EventKind {
    /// The last token of its subject.
    pub fn word(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat",
            Self::HostUp => "host-up",
            Self::HostDown => "host-down",
            Self::Started => "started",
            Self::StartFailed => "start-failed",
            Self::Stopped => "stopped",
            Self::Revoked => "revoked",
            Self::PolicyChanged => "policy-changed",
            Self::Refused => "refused",
        }
    }
}

impl CloudEvent {
    /// An event of now.
    pub fn new(id: String, source: SpiffeId, kind: EventKind, now: OffsetDateTime, data: serde_json::Value) -> Self {
        Self {
            specversion: "1.0".to_owned(),
            id,
            source,
            kind,
            subject: None,
            time: now.format(&Rfc3339).unwrap_or_default(),
            datacontenttype: "application/json".to_owned(),
            data,
        }
    }

    /// The same about a component.
    pub fn about(mut self, component: &str) -> Self {
        self.subject = Some(component.to_owned());
        self
    }

    /// Reads an event.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let event: Self = document::read("the event", bytes, EVENT_BYTES)?;
        if event.specversion != "1.0" {
            return Err(DocumentError::member("specversion", "is not 1.0"));
        }
        if event.datacontenttype != "application/json" {
            return Err(DocumentError::member("datacontenttype", "is not application/json"));
        }
        if event.id.is_empty() {
            return Err(DocumentError::member("id", "is empty"));
        }
        document::text("id", &event.id)?;
        document::text("subject", event.subject.as_deref().unwrap_or_default())?;
        if OffsetDateTime::parse(&event.time, &Rfc3339).is_err() {
            return Err(DocumentError::member("time", "is not RFC 3339"));
        }
        Ok(event)
    }

    /// Writes it.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_attributes_that_cloudevents_demand() {
        let source: SpiffeId = "spiffe://example.org/portcullis/host/h1".parse().unwrap();
        let event = CloudEvent::new(
            "1".to_owned(),
            source,
            EventKind::Started,
            OffsetDateTime::UNIX_EPOCH,
            serde_json::json!({"a": 1}),
        )
        .about("shop:cart");
        let json: serde_json::Value = serde_json::from_slice(&event.to_json()).unwrap();
        for (name, value) in [
            ("specversion", "1.0"),
            ("id", "1"),
            ("source", "spiffe://example.org/portcullis/host/h1"),
            ("subject", "shop:cart"),
            ("type", "dev.portcullis.component.started.v1"),
            ("time", "1970-01-01T00:00:00Z"),
            ("datacontenttype", "application/json"),
        ] {
            assert_eq!(json.get(name).and_then(|value| value.as_str()), Some(value), "{name}");
        }
        assert_eq!(CloudEvent::parse(&event.to_json()).unwrap(), event);
    }

    #[test]
    fn what_is_no_event_of_ours_is_refused() {
        let good = r#"{"specversion":"1.0","id":"1","source":"spiffe://a/b","type":"dev.portcullis.host.up.v1","time":"2026-01-01T00:00:00Z","datacontenttype":"application/json","data":{}}"#;
        assert!(CloudEvent::parse(good.as_bytes()).is_ok());
        for (old, new) in [
            (r#""1.0""#, r#""0.3""#),
            (r#""id":"1""#, r#""id":"""#),
            ("spiffe://a/b", "http://a"),
            ("host.up.v1", "host.other.v1"),
            ("2026-01-01T00:00:00Z", "yesterday"),
            ("application/json", "text/plain"),
            (r#""data":{}"#, r#""x":{}"#),
        ] {
            assert!(CloudEvent::parse(good.replace(old, new).as_bytes()).is_err(), "{new}");
        }
        assert!(CloudEvent::parse(&vec![b' '; EVENT_BYTES + 1]).is_err());
    }
}
