//! For tests and benches of this process: a keeper with a real issuer, a real policy, and a real audit log behind real gRPC.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use portcullis_identity::rpc::{AdmitRequest, Audited, PolicySource, PushPolicyRequest};
use portcullis_identity::{Issuer, Lifetimes};
use portcullis_policies::FixContext;
use serde_json::Value;
use tonic::{Request, Response, Status};

use super::keeper::{Keeper, Stop};
use crate::audit::{AuditLog, Durability, Record};
use crate::clock;
use crate::rpc::audit::audit_client::AuditClient;
use crate::rpc::audit::audit_server::{Audit, AuditServer};
use crate::rpc::audit::{AppendManyReply, AppendManyRequest, AppendReply, AppendRequest};

/// Everything of one test.
pub(super) struct Rig {
    pub(super) keeper: Arc<Keeper>,
    pub(super) sink: Sink,
    folder: tempfile::TempDir,
}

/// The audit log of a test.
#[derive(Clone)]
pub(super) struct Sink(Arc<Inner>);

struct Inner {
    log: Mutex<AuditLog>,
    broken: AtomicBool,
    held: AtomicBool,
    writes: AtomicU64,
}

impl Rig {
    /// A keeper that knows the policy, and nobody yet.
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let domain = "example.org".parse().unwrap();
        let keys = folder.path().join("keys");
        let issuer = Issuer::open(&keys, &domain, Lifetimes::default(), clock::now()).unwrap();
        let log =
            AuditLog::open(&folder.path().join("audit.jsonl"), crate::audit::Parts::default(), clock::now()).unwrap();
        let (broken, held, writes) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
        let sink = Sink(Arc::new(Inner { log: Mutex::new(log), broken, held, writes }));
        let (ours, theirs) = crate::rpc::pair().unwrap();
        let service = AuditServer::new(sink.clone()).max_decoding_message_size(MESSAGE_BYTES);
        tokio::spawn(crate::rpc::serve(theirs, tonic::service::Routes::new(service)));
        let audit = AuditClient::new(crate::rpc::client(ours).await.unwrap()).max_encoding_message_size(MESSAGE_BYTES);
        let fix = FixContext { program: "portcullis".to_owned(), config: None };
        let keeper = Arc::new(Keeper::new(issuer, audit, fix).unwrap());
        let rig = Self { keeper, sink, folder };
        assert!(rig.push(1, Vec::new()));
        rig
    }

    /// Pushes the policy again; says whether it was taken.
    pub(super) fn push(&self, generation: u64, audited: Vec<Audited>) -> bool {
        self.push_text(generation, GRANTS, audited)
    }

    /// Pushes another policy.
    pub(super) fn push_text(&self, generation: u64, text: &str, audited: Vec<Audited>) -> bool {
        let sources = vec![PolicySource { name: "g".to_owned(), kind: "grants".to_owned(), text: text.to_owned() }];
        self.keeper.push_policy(PushPolicyRequest { generation, sources, audited }).is_ok()
    }

    /// Admits an instance with an ID of its own.
    pub(super) fn admit(&self, instance: &str) -> Result<(), Stop> {
        self.keeper.admit(AdmitRequest {
            instance: instance.to_owned(),
            spiffe_id: id(instance),
            digest: format!("sha256:{}", "0".repeat(64)),
            component: "test:one".to_owned(),
            signer: "ABCDEFGH".to_owned(),
            signer_group: "tests".to_owned(),
            ..AdmitRequest::default()
        })
    }

    /// Takes the folder of the keys away: nothing can be written there any more.
    pub(super) fn lose_keys(&self) {
        let keys = self.folder.path().join("keys");
        std::fs::rename(&keys, self.folder.path().join("away")).unwrap();
    }

    /// The records of a kind.
    pub(super) fn records(&self, kind: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.log_path()).unwrap();
        let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        records.filter(|record| record["kind"] == kind).collect()
    }

    /// Where the log lies.
    pub(super) fn log_path(&self) -> PathBuf {
        self.folder.path().join("audit.jsonl")
    }
}

/// The SPIFFE ID of an instance.
pub(super) fn id(instance: &str) -> String {
    format!("spiffe://example.org/ns/test/sa/{instance}")
}

impl Sink {
    /// Lets every further record fail, or none.
    pub(super) fn set_broken(&self, broken: bool) {
        self.0.broken.store(broken, Ordering::Release);
    }

    /// Lets every record wait, or none any more.
    pub(super) fn set_held(&self, held: bool) {
        self.0.held.store(held, Ordering::Release);
    }

    /// How often the log was written to and flushed.
    pub(super) fn writes(&self) -> u64 {
        self.0.writes.load(Ordering::Acquire)
    }

    async fn write(&self, requests: Vec<AppendRequest>) -> Result<u64, Status> {
        while self.0.held.load(Ordering::Acquire) {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        if self.0.broken.load(Ordering::Acquire) {
            return Err(Status::unavailable("the disk is full"));
        }
        let inner = Arc::clone(&self.0);
        let written = tokio::task::spawn_blocking(move || {
            let records: Vec<_> = requests.into_iter().map(record).collect();
            inner.writes.fetch_add(1, Ordering::AcqRel);
            inner.log.lock().unwrap().append_many(clock::now(), &records, Durability::Durable).unwrap().seq
        });
        Ok(written.await.unwrap())
    }
}

#[tonic::async_trait]
impl Audit for Sink {
    async fn append(&self, request: Request<AppendRequest>) -> Result<Response<AppendReply>, Status> {
        let sequence = self.write(vec![request.into_inner()]).await?;
        Ok(Response::new(AppendReply { sequence, reference: String::new() }))
    }

    async fn append_many(&self, request: Request<AppendManyRequest>) -> Result<Response<AppendManyReply>, Status> {
        let sequence = self.write(request.into_inner().records).await?;
        Ok(Response::new(AppendManyReply { sequence }))
    }
}

fn record(request: AppendRequest) -> Record {
    let fields: serde_json::Map<String, Value> = serde_json::from_str(&request.fields_json).unwrap();
    let record = Record::new(&request.kind).reference(&request.reference);
    fields.into_iter().fold(record, |record, (name, value)| record.field(&name, value))
}

const MESSAGE_BYTES: usize = 64 << 20;
const GRANTS: &str = r#"
version = 1
[[grant]]
id = "one"
reason = "a test"
owner = "tests"
component = "test:one"
identity = ["read", "x509", "validate"]
audiences = ["vault"]
"#;
