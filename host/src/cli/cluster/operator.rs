//! The operator's end of a cluster: signs what is kept in buckets, writes it where nobody wrote meanwhile, and believes what is there
//! only by its statement.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, StatusCode};
use portcullis_cluster::{ClusterName, Place, place};
use portcullis_identity::TrustBundle;
use portcullis_identity::limits::MAX_ENVELOPE_BYTES;
use portcullis_identity::statement::{Envelope, Jti, Signers, UserKey};
use serde_json::Value;

use super::kept::{Kept, Versioned};
use crate::cli::error::{CliError, exit};
use crate::cli::files;
use crate::clock;
use crate::config::operator::OperatorConfig;
use crate::control::inbox;
use crate::control::key::{Key, ToSign};
use crate::control::unreached::unreached;
use crate::limits::{CONFIG_BYTES, NATS_FILE_BYTES};
use crate::nats::{FromFiles, Nats, NatsError};

/// An operator who is connected.
#[derive(Debug)]
pub struct Operator {
    /// What the file says.
    pub config: OperatorConfig,
    /// The cluster.
    pub cluster: ClusterName,
    /// The connection.
    pub nats: Nats,
    key: Key,
}

/// A value as it is stored, not believed.
#[derive(Debug)]
struct Stored {
    /// Its bytes; none: it was deleted.
    value: Vec<u8>,
    /// Its place in the stream.
    sequence: u64,
}

impl Operator {
    /// Reads the operator's file and connects.
    pub async fn open(path: &Path) -> Result<Self, CliError> {
        let text = files::read_text(path, CONFIG_BYTES, "operator file")?;
        let invalid = |why: String| {
            CliError::new(exit::CONFIG, "operator.invalid", why)
                .with_hint("correct the operator file: docs/control-plane.md")
        };
        let config = OperatorConfig::parse(&text, path).map_err(|error| invalid(error.to_string()))?;
        let cluster = config.cluster.as_deref().and_then(|name| name.parse::<ClusterName>().ok());
        let cluster = cluster.ok_or_else(|| invalid("`cluster` is missing, or is no token".to_owned()))?;
        let key = Key::read(&config)?;
        let nats =
            config.nats.as_ref().ok_or_else(|| invalid("[nats] is missing: a cluster is reached by it".to_owned()))?;
        let ca =
            nats.tls.ca.as_deref().map(|path| files::read_text(path, NATS_FILE_BYTES as u64, "CA file")).transpose()?;
        let own = format!("spiffe://{}/operator", config.trust_domain).parse().map_err(CliError::internal)?;
        let own = key.spiffe_id().cloned().unwrap_or(own);
        let settings = inbox::settings(nats, &key, &own, ca);
        let credentials = FromFiles::new(nats.host.auth.clone());
        let nats = Nats::start(settings, credentials).await.map_err(|error| unreachable(&error))?;
        nats.verified(CONNECT).await.map_err(|error| unreachable(&error))?;
        Ok(Self { config, cluster, nats, key })
    }

    /// Whom the server takes this operator for.
    pub fn login(&self) -> Option<String> {
        self.config.nats.as_ref().map(|nats| inbox::who(&nats.host, &self.key))
    }

    /// Whether what is signed ends with an SVID.
    pub fn signs_with_svid(&self) -> bool {
        self.key.spiffe_id().is_some()
    }

    /// The bundle that hosts are checked with.
    pub fn trust(&self) -> Result<TrustBundle, CliError> {
        let bundle = files::read_bytes(&self.config.bundle, CONFIG_BYTES, "bundle")?;
        TrustBundle::from_json(&self.config.trust_domain, &bundle).map_err(|error| {
            CliError::new(exit::CONFIG, "operator.bundle", format!("{}: {error}", self.config.bundle.display()))
                .with_hint("`portcullis identity bundle` on a host prints it")
        })
    }

    /// What is stored at a place; `None`: nothing.
    async fn get(&self, at: &Place) -> Result<Option<Stored>, CliError> {
        let bucket = at.bucket();
        let subject = format!("$JS.API.DIRECT.GET.{}.{}", bucket.stream(&self.cluster), at.subject(&self.cluster));
        let answer = match self.nats.request(subject, None, Vec::new(), ANSWER).await {
            Ok(answer) => answer,
            Err(NatsError::NoResponders(_)) => return Err(no_bucket(&bucket.name(&self.cluster))),
            Err(error) => return Err(unreachable(&error)),
        };
        if answer.status == Some(StatusCode::NOT_FOUND) {
            return Ok(None);
        }
        let headers = answer.headers.as_ref();
        let header = |name: &str| headers.and_then(|headers| headers.get(name)).map(|value| value.as_str().to_owned());
        let sequence = header("Nats-Sequence").and_then(|text| text.parse().ok());
        let (Some(sequence), None) = (sequence, answer.status) else {
            return Err(CliError::new(exit::TRANSPORT, "cluster.answer", "the bucket's answer makes no sense"));
        };
        let value = match header("KV-Operation") {
            Some(_) => Vec::new(),
            None => answer.payload.to_vec(),
        };
        Ok(Some(Stored { value, sequence }))
    }

    /// What is stored at a place, judged; and its place in the stream.
    pub async fn read<T: Versioned>(&self, at: &Place) -> Result<(Kept<T>, u64), CliError> {
        let Some(stored) = self.get(at).await? else { return Ok((Kept::Nothing, 0)) };
        // Without a bundle others than this operator are not checked: they are doubted, which is said.
        let trust = self.trust().unwrap_or_else(|_| TrustBundle::new());
        let signers = Signers::new(Arc::new(trust), self.key.issuer().parse::<UserKey>().ok());
        let kept = Kept::judge(&stored.value, at, &place::audience(&self.cluster), &signers, clock::now());
        Ok((kept, stored.sequence))
    }

    /// Signs a payload and stores it, if nobody stored another one meanwhile.
    pub async fn put(
        &self,
        at: &Place,
        payload: Vec<u8>,
        version: u64,
        life: Duration,
        over: u64,
    ) -> Result<u64, CliError> {
        let jti: Jti = ulid::Ulid::generate().to_string().parse().map_err(|()| CliError::internal("no ULID"))?;
        let (audience, place) = (place::audience(&self.cluster), at.statement());
        let what = ToSign { audience: &audience, place: &place, life, version: Some(version) };
        let statement = self.key.sign(what, jti, &payload)?;
        let value = Envelope { statement, payload }.to_json();
        if value.len() > MAX_ENVELOPE_BYTES {
            return Err(CliError::usage(format!("the value would be larger than {MAX_ENVELOPE_BYTES} bytes")));
        }
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Subject-Sequence", over.to_string().as_str());
        let answer = self.nats.request(at.subject(&self.cluster), Some(headers), value.into_bytes(), ANSWER).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(NatsError::NoResponders(_)) => return Err(no_bucket(&at.bucket().name(&self.cluster))),
            Err(error) => return Err(unreachable(&error)),
        };
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap_or_default();
        match (answer.get("seq").and_then(Value::as_u64), answer.get("error")) {
            (Some(sequence), None) => Ok(sequence),
            (_, error) => {
                let why = error.map(ToString::to_string).unwrap_or_else(|| "no answer of JetStream".to_owned());
                Err(CliError::new(exit::TRANSPORT, "cluster.not-stored", format!("it was not stored: {why}"))
                    .with_hint("somebody else may have stored another version meanwhile: look with `cluster status`, and ask again"))
            }
        }
    }
}

/// The cluster cannot be reached.
pub fn unreachable(error: &NatsError) -> CliError {
    unreached("cluster.unreachable", error)
}

/// A bucket is not there for this operator.
pub fn no_bucket(name: &str) -> CliError {
    CliError::new(exit::TRANSPORT, "cluster.no-bucket", format!("bucket {name} does not answer"))
        .with_hint("`portcullis cluster init` makes the buckets and prints the permissions of each user")
}

/// How long the connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);
