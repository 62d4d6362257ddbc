//! What the identity process keeps: the issuer, the policy, and the instances that were admitted.
//!
//! An instance that is not in the table here has no identity. What is issued or denied is on disk in the audit log before
//! the answer leaves; an issuance that cannot be recorded does not leave.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use portcullis_identity::rpc::{Denied, Failed};
use portcullis_identity::{InstanceId, IssueError, Issuer};
use portcullis_policies::{ComponentFacts, Denial, FixContext, PolicySet, Slice};
use serde_json::json;
use tonic::Request;
use tonic::transport::Channel;

use crate::limits;
use crate::rpc::audit::AppendRequest;
use crate::rpc::audit::audit_client::AuditClient;

/// The state behind both services.
pub(super) struct Keeper {
    pub(super) issuer: Mutex<Issuer>,
    pub(super) policy: Mutex<Arc<PolicySet>>,
    pub(super) instances: Mutex<HashMap<String, Instance>>,
    pub(super) audit: AuditClient<Channel>,
    pub(super) fix: FixContext,
    pub(super) counts: Counts,
}

pub(super) struct Instance {
    pub(super) facts: ComponentFacts,
    pub(super) slice: Arc<Slice>,
    /// Serials and token ids whose issuance is on disk. An SVID that is not in here does not leave.
    pub(super) recorded: HashSet<String>,
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) x509: AtomicU64,
    pub(super) jwt: AtomicU64,
    pub(super) handshakes: AtomicU64,
    pub(super) denied: AtomicU64,
}

/// Why a call ended without its result.
pub(super) enum Stop {
    Denied(Denied),
    Failed(Failed),
}

impl Keeper {
    pub(super) fn issuer(&self) -> Result<MutexGuard<'_, Issuer>, Stop> {
        self.issuer.lock().map_err(|_| failed("internal", "the issuer is poisoned"))
    }

    pub(super) fn instance(&self, name: &str) -> Result<(InstanceId, ComponentFacts, Arc<Slice>), Stop> {
        let instances = self.instances.lock().map_err(|_| failed("internal", "poisoned"))?;
        let known = instances
            .get(name)
            .ok_or_else(|| failed("unknown-instance", "this instance has no identity on this host"))?;
        let id = name.parse().map_err(|_| failed("unknown-instance", "a malformed instance id"))?;
        Ok((id, known.facts.clone(), Arc::clone(&known.slice)))
    }

    /// Records a denial, then gives it the form of a reply. A denial that cannot be recorded is a denial all the same.
    pub(super) async fn denied(&self, facts: &ComponentFacts, denial: Denial) -> Stop {
        self.counts.denied.fetch_add(1, Ordering::Relaxed);
        let reference = ulid::Ulid::generate().to_string();
        let denial = denial.with_reference(reference.clone());
        let fields = json!({
            "instance": facts.instance,
            "component": facts.name,
            "code": denial.code().to_string(),
            "denial": denial,
            "text": denial.render(&self.fix),
            "fix": denial.fix(&self.fix).unwrap_or_default(),
        });
        if let Err(error) = self.append("denial", &reference, &fields).await {
            tracing::error!(%error, "a denial could not be recorded");
        }
        let code = denial.code().to_string();
        let denial_json = serde_json::to_string(&denial).unwrap_or_default();
        Stop::Denied(Denied { code, reference, denial_json })
    }

    /// Sees to it that an issuance is on disk. Without that the SVID does not leave.
    pub(super) async fn recorded(&self, instance: &str, id: &str, fields: serde_json::Value) -> Result<(), Stop> {
        let known = |instances: &HashMap<String, Instance>| {
            instances.get(instance).is_some_and(|held| held.recorded.contains(id))
        };
        if self.instances.lock().is_ok_and(|instances| known(&instances)) {
            return Ok(());
        }
        let reference = ulid::Ulid::generate().to_string();
        self.append("issuance", &reference, &fields)
            .await
            .map_err(|error| failed("unavailable", &format!("the issuance could not be recorded: {error}")))?;
        let mut instances = self.instances.lock().map_err(|_| failed("internal", "poisoned"))?;
        let held =
            instances.get_mut(instance).ok_or_else(|| failed("unknown-instance", "this instance was stopped"))?;
        if held.recorded.len() >= RECORDED {
            held.recorded.clear();
        }
        held.recorded.insert(id.to_owned());
        Ok(())
    }

    pub(super) async fn append(&self, kind: &str, reference: &str, fields: &serde_json::Value) -> Result<(), String> {
        let mut request = Request::new(AppendRequest {
            kind: kind.to_owned(),
            reference: reference.to_owned(),
            fields_json: fields.to_string(),
        });
        request.set_timeout(limits::RPC_TIMEOUT);
        self.audit.clone().append(request).await.map(|_| ()).map_err(|status| status.message().to_owned())
    }

    pub(super) fn is_recorded(&self, instance: &str, id: &str) -> bool {
        self.instances.lock().is_ok_and(|all| all.get(instance).is_some_and(|held| held.recorded.contains(id)))
    }
}

pub(super) fn failed(kind: &str, message: &str) -> Stop {
    Stop::Failed(Failed { kind: kind.to_owned(), message: message.to_owned() })
}

pub(super) fn issue_failed(error: IssueError) -> Stop {
    let kind = match &error {
        IssueError::UnknownInstance(_) => "unknown-instance",
        IssueError::Audiences | IssueError::Lifetime => "invalid-argument",
        IssueError::AuthorityExpired | IssueError::Minting(_) => "unavailable",
    };
    failed(kind, &format!("{error}; hint: {}", error.hint()))
}

/// Issuances remembered as recorded for one instance; beyond, the memory starts anew and an issuance may be recorded twice.
const RECORDED: usize = 4096;
