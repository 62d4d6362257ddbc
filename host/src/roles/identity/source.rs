//! Where components' identities come from: the built-in issuer, or a site's SPIRE that the supervisor connects this process to.
//!
//! With a source outside of this host the built-in authority signs nothing and is published nowhere; its bundle is that of the
//! site, its rotation is the site's business. What the source says of itself is kept for `identity show`, `status` and metrics.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use portcullis_identity::source::{IdentitySource, SourceError, SourceKind, SourceStatus};
use portcullis_identity::spire::Dial;
use portcullis_identity::{Clock, broker, spire};
use tokio::net::UnixStream;

use super::dials::Dials;
use super::keeper::{Keeper, Stop, failed, issue_failed};
use crate::clock;
use crate::config::identity_source::{ADMIN_SOCKET, BROKER_SOCKET, Outside, WORKLOAD_SOCKET};
use crate::identity_report::SourceReport;
use crate::limits::SOURCE_LOOK;

/// One of the supervisor's named connections.
struct Named {
    dials: Arc<Dials>,
    name: &'static str,
}

#[async_trait]
impl Dial for Named {
    async fn dial(&self) -> io::Result<UnixStream> {
        let stream = std::os::unix::net::UnixStream::from(self.dials.dial(self.name).await?);
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream)
    }
}

impl std::fmt::Debug for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Named").field(&self.name).finish()
    }
}

/// Begins to follow a source outside of this host.
pub(super) fn start(
    outside: &Outside,
    trust_domain: &portcullis_identity::TrustDomain,
    dials: &Arc<Dials>,
) -> Result<Arc<dyn IdentitySource>, SourceError> {
    let named = |name| Arc::new(Named { dials: Arc::clone(dials), name }) as Arc<dyn Dial>;
    let clock: Clock = Arc::new(clock::now);
    Ok(match outside {
        Outside::SpireDelegated { .. } => Arc::new(spire::delegated(named(ADMIN_SOCKET), trust_domain.clone(), clock)),
        Outside::Broker { broker_id, host_id, .. } => {
            let (workload, socket) = (named(WORKLOAD_SOCKET), named(BROKER_SOCKET));
            Arc::new(broker::broker(workload, socket, host_id.clone(), broker_id.clone(), clock)?)
        }
    })
}

/// Where the host itself has its identity from, beside such a source: its Workload API, if the configuration names it.
pub(super) fn of_host(
    outside: &Outside,
    trust_domain: &portcullis_identity::TrustDomain,
    dials: &Arc<Dials>,
) -> Option<Arc<dyn IdentitySource>> {
    outside.workload_socket()?;
    let named = Arc::new(Named { dials: Arc::clone(dials), name: WORKLOAD_SOCKET });
    Some(Arc::new(spire::workload_api(named, trust_domain.clone(), Arc::new(clock::now))))
}

/// Publishes what the source publishes and keeps its report current, for as long as the process runs.
pub(super) async fn follow(keeper: Arc<Keeper>) {
    let mut published = keeper.identities.published();
    published.mark_changed();
    let mut look = tokio::time::interval(SOURCE_LOOK);
    loop {
        tokio::select! {
            changed = published.changed() => {
                if changed.is_err() {
                    return;
                }
                published.borrow_and_update();
                if keeper.publish().is_err() {
                    tracing::error!("the bundles of the identity source could not be published");
                }
            }
            _ = look.tick() => {}
        }
        // What the rotation task does where there is one.
        let due = keeper.rates.lock().map(|mut rates| rates.due(std::time::Instant::now())).unwrap_or_default();
        let limited = due.iter().map(|one| keeper.limited(one, &keeper.component_of(&one.instance))).collect();
        keeper.append_denials(limited).await;
        keeper.report(&keeper.identities.status());
    }
}

impl Keeper {
    /// Whether identities come from this host's own authority.
    pub(super) fn issues_itself(&self) -> bool {
        self.identities.kind() == SourceKind::BuiltIn
    }

    /// Where the host's own identity comes from; `None`: it can have none.
    pub(super) fn own_source(&self) -> Option<Arc<dyn IdentitySource>> {
        match self.issues_itself() {
            true => Some(Arc::clone(&self.identities)),
            false => self.of_host.clone(),
        }
    }

    /// Refuses what only the authority of this host could do.
    pub(super) fn only_builtin(&self) -> Result<(), Stop> {
        if self.issues_itself() {
            return Ok(());
        }
        let text = format!(
            "the identities of this host come from the source {}; hint: rotate and taint authorities there",
            self.identities.kind()
        );
        Err(failed("not-served", &text))
    }

    /// Keeps the report of the source current.
    pub(super) fn report(&self, status: &SourceStatus) {
        let Ok(mut report) = self.source.lock() else { return };
        let same = report.as_ref().filter(|before| before.up == status.connected);
        let since = same.map_or_else(|| clock::now().unix_timestamp(), |before| before.since);
        if report.as_ref().is_some_and(|before| before.up != status.connected) {
            tracing::warn!(source = %status.kind, up = status.connected, problem = status.problem, "the identity source");
        }
        let kind = status.kind.to_string();
        *report = Some(SourceReport { kind, up: status.connected, since, problem: status.problem.clone() });
    }
}

/// How a failure of the source is told.
pub(super) fn source_failed(error: SourceError) -> Stop {
    match error {
        SourceError::Issue(error) => issue_failed(error),
        error => failed(error.kind(), &format!("{error}; hint: {}", error.hint())),
    }
}
