//! The components of the configuration: started with the host, in their order. What is refused is remembered and shown by `status`.
//!
//! Decides when one is tried again: where nothing but a cluster that could not be looked at kept it from starting, once it was;
//! where policy refused it, after each later policy; where trust did, after trust changed. Each time is a start like the first: the
//! bytes are read and verified anew, and whatever was found before counts for nothing. One that an operator stopped meanwhile, or
//! whose name runs from elsewhere, is left alone.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use portcullis_signing::ComponentName;
use tokio::sync::Notify;

use super::refused::{MendedBy, Refused};
use super::starting::Again;
use super::{Host, StartSpec};
use crate::cli::error::exit;
use crate::config::Component;

/// What components that were refused are tried again after.
#[derive(Debug, Default)]
pub struct Changed {
    policies: AtomicU64,
    trust: AtomicU64,
    news: Notify,
}

/// What was so when components were tried last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    policies: u64,
    trust: u64,
}

impl Changed {
    /// Another policy is in force.
    pub fn policy(&self) {
        self.policies.fetch_add(1, Ordering::AcqRel);
        self.news.notify_one();
    }

    /// Something else is trusted, or denied.
    pub fn trust(&self) {
        self.trust.fetch_add(1, Ordering::AcqRel);
        self.news.notify_one();
    }

    fn now(&self) -> Seen {
        Seen { policies: self.policies.load(Ordering::Acquire), trust: self.trust.load(Ordering::Acquire) }
    }
}

impl Seen {
    /// Whether what refused a start then may not refuse it now.
    fn is_mended(self, now: Self, by: &MendedBy) -> bool {
        match by {
            MendedBy::Policy(_) => now.policies != self.policies,
            MendedBy::Trust => now.trust != self.trust,
        }
    }
}

impl Host {
    /// Starts every configured component; what is refused is remembered and shown by `status`.
    pub async fn start_configured(self: &Arc<Self>, progress: &(dyn Fn(&Path) + Sync)) {
        if let Some(cluster) = self.cluster.as_ref().filter(|_| !self.config.components.is_empty()) {
            cluster.first_look().await;
        }
        // As it was before the first one was tried: what changes meanwhile is news to those that were refused.
        let seen = self.changed.now();
        for component in self.config.components.clone() {
            progress(&component.path);
            self.start_one(component, false).await;
        }
        self.settled.store(true, Ordering::Release);
        self.send_routes().await;
        if !self.config.components.is_empty() {
            tokio::spawn(try_again(Arc::clone(self), seen));
        }
    }

    async fn start_one(self: &Arc<Self>, component: Component, again: bool) {
        let Component { path, evidence, .. } = component;
        let mut spec = StartSpec { path: path.clone(), evidence, yields: again, ..StartSpec::default() };
        if again {
            let (host, path) = (Arc::clone(self), path.clone());
            spec.again = Some(Again::new(move || host.still_wanted(&path)));
        }
        let Err(refused) = self.start_component(spec).await else { return };
        if again && refused.code == YIELDED {
            tracing::info!("{} is left alone: {}", path.display(), refused.message);
            return self.left_alone(&path);
        }
        tracing::error!(code = refused.code, "{} was refused: {}", path.display(), refused.shown());
        if let Ok(mut list) = self.refused.lock() {
            list.retain(|(before, _)| *before != path);
            list.push((path, refused));
        }
    }

    /// What was refused at the start of the host and runs now is no problem any more.
    pub(super) fn runs_now(&self, path: &Path, name: &str) {
        if let Ok(mut refused) = self.refused.lock() {
            refused.retain(|(refused, _)| refused != path && refused != Path::new(name));
        }
        if let Ok(mut stopped) = self.stopped.lock() {
            stopped.remove(name);
        }
    }

    /// Whoever yields takes nobody's place, and is not started where an operator stopped what has its name.
    pub(super) fn check_yields(&self, spec: &StartSpec, name: &str) -> Result<(), Refused> {
        if !spec.yields {
            return Ok(());
        }
        if self.running().iter().any(|component| component.admitted.facts().name == name) {
            return Err(yielded(format!("{name} runs already, started otherwise")));
        }
        match self.stopped.lock() {
            Ok(stopped) if !stopped.contains(name) => Ok(()),
            Ok(_) | Err(_) => Err(yielded(format!("{name} was stopped by an operator"))),
        }
    }

    /// An operator stopped this: if it was refused, it is not tried again.
    pub(super) fn wanted_no_more(&self, name: &str) {
        if let (Ok(name), Ok(mut stopped)) = (name.parse::<ComponentName>(), self.stopped.lock()) {
            stopped.insert(name.to_string());
        }
        let of_that_name = |refused: &Refused| matches!(&refused.mended_by, Some(MendedBy::Policy(of)) if of == name);
        if let Ok(mut list) = self.refused.lock() {
            list.iter_mut()
                .filter(|(_, refused)| of_that_name(refused))
                .for_each(|(_, refused)| refused.mended_by = None);
        }
    }

    /// What waited for its cluster and was stopped meanwhile is no problem any more, and is not tried at the next look.
    fn left_alone(&self, path: &Path) {
        if let Ok(mut list) = self.refused.lock() {
            list.retain(|(of, refused)| of != path || !refused.is_unseen());
            list.iter_mut().filter(|(of, _)| of == path).for_each(|(_, refused)| refused.mended_by = None);
        }
    }

    /// Asked directly before a component is admitted that is tried again: it may have been stopped or started meanwhile.
    fn still_wanted(&self, path: &Path) -> Result<(), Refused> {
        let list = self.refused.lock().map_err(|_| Refused::internal("poisoned"))?;
        match list.iter().any(|(of, refused)| of == path && (refused.mended_by.is_some() || refused.is_unseen())) {
            true => Ok(()),
            false => Err(yielded("an operator started or stopped it meanwhile".to_owned())),
        }
    }

    /// Those that were refused and may not be now.
    fn waiting(&self, may: impl Fn(&Refused) -> bool) -> Vec<Component> {
        let Ok(refused) = self.refused.lock() else { return Vec::new() };
        let waits = |path: &Path| refused.iter().any(|(refused, why)| refused == path && may(why));
        self.config.components.iter().filter(|component| waits(&component.path)).cloned().collect()
    }
}

impl Refused {
    /// Whether nothing but a cluster that could not be looked at refused it.
    fn is_unseen(&self) -> bool {
        UNSEEN.contains(&self.code.as_str())
    }
}

fn yielded(message: String) -> Refused {
    Refused {
        exit: exit::USAGE,
        code: YIELDED.to_owned(),
        message,
        hint: "portcullis start starts it by hand".to_owned(),
        ..Refused::internal("")
    }
}

/// Tries again what was refused whenever that may have changed, until the host goes down.
async fn try_again(host: Arc<Host>, mut seen: Seen) {
    let mut looks = host.cluster.as_ref().map(|cluster| cluster.looks());
    while !host.is_stopping() {
        let now = host.changed.now();
        let looked = host.cluster.as_ref().is_some_and(|cluster| cluster.stops_starts().is_none());
        let may = |refused: &Refused| {
            let mended = refused.mended_by.as_ref().is_some_and(|by| seen.is_mended(now, by));
            mended || (looked && refused.is_unseen())
        };
        let waiting = host.waiting(may);
        seen = now;
        for component in waiting {
            host.start_one(component, true).await;
        }
        let looked = async {
            match &mut looks {
                Some(looks) => looks.changed().await.map_err(|_| ()),
                None => std::future::pending().await,
            }
        };
        // Looks again now and then, so that a host that stops is noticed.
        tokio::select! {
            () = host.changed.news.notified() => {}
            Ok(()) = looked => {}
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

/// The last look at the cluster's revocations was too long ago, or there was none; or what is on disk of them, or of the set of
/// policies, is not proven; or that set does not fit this host's own files.
const UNSEEN: [&str; 3] = ["cluster.stale", "cluster.unproven", "cluster.unusable"];
/// One that is tried again gave way to an operator.
const YIELDED: &str = "component.yields";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_tried_again_after_that_which_refused_it_changed_and_after_nothing_else() {
        let changed = Changed::default();
        let policy = MendedBy::Policy("shop:orders".to_owned());
        let first = changed.now();
        assert!(!first.is_mended(changed.now(), &policy) && !first.is_mended(changed.now(), &MendedBy::Trust));
        changed.policy();
        let second = changed.now();
        assert!(first.is_mended(second, &policy) && !first.is_mended(second, &MendedBy::Trust));
        changed.trust();
        assert!(!second.is_mended(changed.now(), &policy) && second.is_mended(changed.now(), &MendedBy::Trust));
    }
}
