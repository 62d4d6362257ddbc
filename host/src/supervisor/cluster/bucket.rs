//! Reads a bucket by direct gets: all its values at once, in pages. Makes no consumer, so a host needs no right to.
//!
//! Decides nothing about the values: whoever answers may be a replica that lags, or lie.

use async_nats::{Client, HeaderMap, Message, StatusCode};
use bytes::Bytes;
use futures::StreamExt as _;
use portcullis_cluster::limits::MANIFESTS;
use portcullis_cluster::{Bucket, ClusterName, Place};
use portcullis_identity::limits::MAX_ENVELOPE_BYTES;
use serde_json::json;

use crate::limits::{CLUSTER_BATCH, CLUSTER_BUCKET};

/// A value as it is stored.
#[derive(Debug, Clone)]
pub struct Value {
    /// Its key.
    pub place: Place,
    /// The value: an envelope.
    pub bytes: Bytes,
}

/// What is in a bucket.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// The values under keys of ours.
    pub values: Vec<Value>,
    /// Keys that are not ours, as text.
    pub strange: Vec<String>,
}

/// Why a bucket cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BucketError {
    /// The connection.
    #[error("the server cannot be asked: {0}")]
    Transport(String),
    /// Nobody answers: the bucket is not there, or the right to read it is not.
    #[error(
        "bucket {0} does not answer; hint: `portcullis cluster init` makes it and prints the permissions of a host"
    )]
    NoAnswer(String),
    /// The answer is an error.
    #[error("bucket {bucket} answers {status}")]
    Status {
        /// Which.
        bucket: String,
        /// What.
        status: String,
    },
    /// More than a cluster may have.
    #[error("bucket {0} has more values than a cluster may have")]
    TooMany(String),
}

/// One page of an answer.
struct Page {
    contents: Vec<(String, Bytes, Option<String>)>,
    last: u64,
    up_to: Option<u64>,
    pending: u64,
}

/// How a page is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The last value of each key, at one moment: at most 1024 keys.
    Last,
    /// One value after the other, where there are more.
    Next,
}

impl Contents {
    /// Adds what an answer says is in this bucket. A later value of a key takes the place of an earlier one. What is of another
    /// bucket is no answer to what was asked.
    fn add(&mut self, cluster: &ClusterName, bucket: Bucket, subject: String, bytes: Bytes, removed: bool) {
        match Place::of_subject(cluster, &subject).filter(|place| place.bucket() == bucket) {
            Some(place) => {
                self.values.retain(|value| value.place != place);
                if !removed {
                    self.values.push(Value { place, bytes });
                }
            }
            None if self.strange.len() < STRANGE => self.strange.push(subject),
            None => {}
        }
    }

    /// Whether there is a value under this key.
    pub fn has(&self, place: &Place) -> bool {
        self.values.iter().any(|value| value.place == *place)
    }
}

/// Everything that is in a bucket now.
pub async fn read(client: &Client, cluster: &ClusterName, bucket: Bucket) -> Result<Contents, BucketError> {
    read_by(client, cluster, bucket, CLUSTER_BATCH).await
}

async fn read_by(client: &Client, cluster: &ClusterName, bucket: Bucket, batch: u32) -> Result<Contents, BucketError> {
    match pages(client, cluster, bucket, batch, Way::Last).await {
        Err(BucketError::Status { status, .. }) if status == TOO_MANY => {
            pages(client, cluster, bucket, batch, Way::Next).await
        }
        read => read,
    }
}

async fn pages(
    client: &Client,
    cluster: &ClusterName,
    bucket: Bucket,
    batch: u32,
    way: Way,
) -> Result<Contents, BucketError> {
    let name = bucket.name(cluster);
    let keys = format!("{}>", bucket.prefix(cluster));
    let (mut contents, mut from, mut up_to) = (Contents::default(), 1_u64, None::<u64>);
    loop {
        let mut request = match way {
            Way::Last => json!({ "multi_last": [keys], "batch": batch }),
            Way::Next => json!({ "next_by_subj": keys, "batch": batch, "seq": from }),
        };
        if let (Way::Last, Some(up_to), Some(members)) = (way, up_to, request.as_object_mut()) {
            members.insert("seq".to_owned(), from.into());
            members.insert("up_to_seq".to_owned(), serde_json::Value::from(up_to));
        }
        let page = page(client, cluster, bucket, &request).await?;
        for (subject, bytes, operation) in page.contents {
            contents.add(cluster, bucket, subject, bytes, operation.is_some());
        }
        if contents.values.len() > MANIFESTS {
            return Err(BucketError::TooMany(name));
        }
        if page.pending == 0 || page.last < from {
            return Ok(contents);
        }
        from = page.last.saturating_add(1);
        up_to = page.up_to;
    }
}

async fn page(
    client: &Client,
    cluster: &ClusterName,
    bucket: Bucket,
    request: &serde_json::Value,
) -> Result<Page, BucketError> {
    let transport = |error: &dyn std::fmt::Display| BucketError::Transport(error.to_string());
    let name = || bucket.name(cluster);
    let inbox = client.new_inbox();
    let mut replies = client.subscribe(inbox.clone()).await.map_err(|error| transport(&error))?;
    let subject = format!("$JS.API.DIRECT.GET.{}", bucket.stream(cluster));
    let asked = client.publish_with_reply(subject, inbox, request.to_string().into()).await;
    asked.map_err(|error| transport(&error))?;
    let mut page = Page { contents: Vec::new(), last: 0, up_to: None, pending: 0 };
    loop {
        let reply = tokio::time::timeout(CLUSTER_BUCKET, replies.next()).await;
        let reply = reply.map_err(|_| BucketError::NoAnswer(name()))?;
        let message = reply.ok_or_else(|| BucketError::Transport("the connection was closed".to_owned()))?;
        match end(&message) {
            None => {
                let Some((subject, sequence, operation)) = described(&message) else { continue };
                if message.payload.len() > MAX_ENVELOPE_BYTES {
                    tracing::warn!(subject = %subject.escape_debug(), "a value is larger than any of ours and is left out");
                } else {
                    page.contents.push((subject, message.payload, operation));
                }
                page.last = page.last.max(sequence);
            }
            Some(End::Done { pending, up_to }) => {
                (page.pending, page.up_to) = (pending, up_to);
                break;
            }
            Some(End::Empty) => break,
            Some(End::Nobody) => return Err(BucketError::NoAnswer(name())),
            Some(End::Failed(status)) => return Err(BucketError::Status { bucket: name(), status }),
        }
    }
    let _ = replies.unsubscribe().await;
    Ok(page)
}

enum End {
    Done { pending: u64, up_to: Option<u64> },
    Empty,
    Nobody,
    Failed(String),
}

fn end(message: &Message) -> Option<End> {
    let status = message.status?;
    Some(match status.as_u16() {
        204 => End::Done {
            pending: number(message.headers.as_ref(), "Nats-Num-Pending").unwrap_or_default(),
            up_to: number(message.headers.as_ref(), "Nats-UpTo-Sequence"),
        },
        404 => End::Empty,
        _ if status == StatusCode::NO_RESPONDERS => End::Nobody,
        413 => End::Failed(TOO_MANY.to_owned()),
        other => {
            let text = message.description.as_deref().unwrap_or_default();
            End::Failed(format!("{other} {}", text.chars().take(100).flat_map(char::escape_debug).collect::<String>()))
        }
    })
}

/// Key, sequence and operation of a stored value.
fn described(message: &Message) -> Option<(String, u64, Option<String>)> {
    let headers = message.headers.as_ref();
    let subject = headers?.get("Nats-Subject")?.as_str().to_owned();
    let operation = headers?.get("KV-Operation").map(|operation| operation.as_str().to_owned());
    Some((subject, number(headers, "Nats-Sequence")?, operation))
}

fn number(headers: Option<&HeaderMap>, name: &str) -> Option<u64> {
    headers?.get(name)?.as_str().parse().ok()
}

/// What the server says where more keys are asked for than it gives at once.
const TOO_MANY: &str = "413";
/// Keys of others that are remembered, to be shown.
const STRANGE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_another_bucket_is_no_value_of_the_one_that_was_asked() {
        let cluster: ClusterName = "prod".parse().unwrap();
        let app = Place::App("shop:cart".parse().unwrap());
        let mut revoked = Contents::default();
        for other in [&app, &Place::Policy] {
            revoked.add(&cluster, Bucket::Revoked, other.subject(&cluster), Bytes::from_static(b"x"), false);
        }
        assert!(revoked.values.is_empty() && revoked.strange.len() == 2);
        assert!(!revoked.has(&Place::Revoked), "nothing was seen of the revocations");
        revoked.add(&cluster, Bucket::Revoked, Place::Revoked.subject(&cluster), Bytes::from_static(b"1"), false);
        revoked.add(&cluster, Bucket::Revoked, Place::Revoked.subject(&cluster), Bytes::from_static(b"2"), false);
        assert!(revoked.has(&Place::Revoked) && !revoked.has(&app));
        assert_eq!(revoked.values.iter().map(|value| &*value.bytes).collect::<Vec<_>>(), [b"2"]);
        revoked.add(&cluster, Bucket::Revoked, Place::Revoked.subject(&cluster), Bytes::new(), true);
        assert!(!revoked.has(&Place::Revoked), "it was removed");
        for n in 0..2 * STRANGE {
            revoked.add(&cluster, Bucket::Revoked, n.to_string(), Bytes::new(), false);
        }
        assert_eq!(revoked.strange.len(), STRANGE);
    }
}
