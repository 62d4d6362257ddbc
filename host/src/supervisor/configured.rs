//! The components of the configuration: started with the host, in their order. What is refused is remembered and shown by `status`.
//!
//! Decides when one is tried again: where nothing but a cluster that could not be looked at kept it from starting, once it was.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::cluster::Cluster;
use super::{Host, StartSpec};
use crate::config::Component;

impl Host {
    /// Starts every configured component; what is refused is remembered and shown by `status`.
    pub async fn start_configured(self: &Arc<Self>, progress: &(dyn Fn(&Path) + Sync)) {
        if let Some(cluster) = self.cluster.as_ref().filter(|_| !self.config.components.is_empty()) {
            cluster.first_look().await;
        }
        for component in self.config.components.clone() {
            progress(&component.path);
            self.start_one(component).await;
        }
        self.settled.store(true, Ordering::Release);
        self.send_routes().await;
        if let Some(cluster) = self.cluster.clone().filter(|_| !self.waiting().is_empty()) {
            tokio::spawn(start_when_looked(Arc::clone(self), cluster));
        }
    }

    async fn start_one(self: &Arc<Self>, component: Component) {
        let Component { path, evidence, .. } = component;
        let spec = StartSpec { path: path.clone(), evidence, ..StartSpec::default() };
        if let Err(refused) = self.start_component(spec).await {
            tracing::error!(code = refused.code, "{} was refused: {}", path.display(), refused.message);
            if let Ok(mut list) = self.refused.lock() {
                list.retain(|(before, _)| *before != path);
                list.push((path, refused));
            }
        }
    }

    /// Those that start once the cluster was looked at, as far as that is known.
    fn waiting(&self) -> Vec<Component> {
        let Ok(refused) = self.refused.lock() else { return Vec::new() };
        let waits =
            |path: &Path| refused.iter().any(|(refused, why)| refused == path && UNSEEN.contains(&why.code.as_str()));
        self.config.components.iter().filter(|component| waits(&component.path)).cloned().collect()
    }
}

async fn start_when_looked(host: Arc<Host>, cluster: Arc<Cluster>) {
    let mut looks = cluster.looks();
    while !host.is_stopping() {
        let waiting = host.waiting();
        if waiting.is_empty() {
            return;
        }
        if cluster.stops_starts().is_none() {
            for component in waiting {
                host.start_one(component).await;
            }
        }
        // Looks again now and then, so that a host that stops is noticed.
        let _ = tokio::time::timeout(Duration::from_secs(1), looks.changed()).await;
    }
}

/// The last look at the cluster's revocations was too long ago, or there was none; or what is on disk of them is not proven.
const UNSEEN: [&str; 2] = ["cluster.stale", "cluster.unproven"];
