//! Brings the children in step with what the supervisor holds: policy generation, identities, connections, routes.
//!
//! Called after every change and after every restart, always under the lock that starts, stops and reloads take. A child
//! that cannot be brought in step is killed: it comes back with the state of now. Nothing is left on an older policy.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Host;
use super::children::{self, IdentityUp, RuntimeUp};

/// Settles both children in a task of its own, as soon as nobody else changes anything.
pub fn soon(host: &Arc<Host>) {
    let host = Arc::clone(host);
    tokio::spawn(async move {
        let _one_at_a_time = host.starting.lock().await;
        settle(&host).await;
    });
}

/// Settles both children. The caller holds the lock.
pub async fn settle(host: &Arc<Host>) -> Vec<String> {
    let mut problems = Vec::new();
    let identity = host.identity_process.now();
    if let Some(up) = &identity
        && let Err(why) = settle_identity(host, up).await
    {
        problems.push(format!("the identity process is not in step and is started again: {why}"));
        up.child.kill();
    }
    if let Some(up) = host.runtime_process.now()
        && let Err(why) = settle_runtime(host, &up, identity.as_deref()).await
    {
        problems.push(format!("the runtime process is not in step and is started again: {why}"));
        up.child.kill();
    }
    for problem in &problems {
        tracing::error!("{problem}");
    }
    problems
}

async fn settle_identity(host: &Arc<Host>, up: &IdentityUp) -> Result<(), String> {
    let policy = host.policy();
    if up.generation.load(Ordering::Acquire) != policy.generation() {
        host.identity.push_policy(&policy, &host.audited()).await.map_err(|error| error.to_string())?;
        up.generation.store(policy.generation(), Ordering::Release);
    }
    let running = host.running();
    let stale = up.admitted.lock().map(|mut admitted| std::mem::take(&mut *admitted)).unwrap_or_default();
    for instance in stale {
        if !running.iter().any(|component| component.admitted.facts().instance == instance) {
            host.identity.stop(&instance).await.map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

async fn settle_runtime(host: &Arc<Host>, up: &RuntimeUp, identity: Option<&IdentityUp>) -> Result<(), String> {
    if let Some(identity) = identity
        && up.identity_pid.load(Ordering::Acquire) != identity.child.pid
    {
        let theirs = children::workloads(&identity.child).map_err(|error| error.to_string())?;
        let fds = crate::process::child::borrow([&theirs]);
        let sent = up.child.handover.send("identity", 0, serde_json::Value::Null, &fds);
        sent.map_err(|error| error.to_string())?;
        up.identity_pid.store(identity.child.pid, Ordering::Release);
    }
    if up.generation.load(Ordering::Acquire) != host.policy().generation() {
        children::push_policy(host, up).await.map_err(|error| error.to_string())?;
    }
    children::set_routes(host, up).await.map_err(|error| error.to_string())
}
