//! How a component ends: recorded, then its identity, then its routes and its code. The runtime has no say in the first two.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::refused::Refused;
use super::starting::with_fields;
use super::{Component, Host, StartSpec, children, settle, trust_watch};
use crate::audit::Record;
use crate::rpc::runtime::UnloadRequest;

impl Host {
    /// Stops every instance of a component name, or one instance; returns how many.
    pub async fn stop_component(self: &Arc<Self>, target: &str) -> u32 {
        let matching = |component: &Arc<Component>| {
            let facts = component.admitted.facts();
            facts.name == target || facts.instance == target
        };
        // What runs ends at once, whatever is being started meanwhile: a compilation may take minutes.
        let mut stopped = 0;
        self.wanted_no_more(target);
        for component in self.running().into_iter().filter(matching) {
            trust_watch::end_now(self, &component, "asked", "").await;
            stopped += 1;
        }
        // What was being started, and came up in the meantime, is stopped all the same; then the routes are as they are to be.
        let _one_at_a_time = self.starting.lock().await;
        for component in self.running().into_iter().filter(matching) {
            self.end_instance(&component, "asked").await;
            stopped += 1;
        }
        if stopped > 0 {
            settle::settle(self).await;
        }
        stopped
    }

    /// Ends an instance: recorded, then its identity, then its routes and its code. The runtime has no say in the first two.
    pub(super) async fn end_instance(self: &Arc<Self>, component: &Component, why: &str) {
        let record = with_fields(Record::new("stop").field("by", "supervisor").field("why", why), &component.admitted);
        if let Err(error) = self.record(record) {
            tracing::error!(%error, "a stop could not be recorded; it goes on, since it takes rights away");
            self.audit_failed();
        }
        let instance = &component.admitted.facts().instance;
        if let Err(error) = self.identity.stop(instance).await {
            tracing::error!(%error, instance, "the identity process did not end an identity; it is started again without it");
            if let Some(up) = self.identity_process.now().filter(|_| !self.is_stopping()) {
                up.child.kill();
            }
        }
        self.remove(instance);
        let Some(up) = self.runtime_process.now().filter(|_| !self.is_stopping()) else { return };
        let unloaded = async {
            children::set_routes(self, &up).await?;
            let unload = UnloadRequest { instance: instance.clone() };
            up.client().unload(unload).await.map(|_| ()).map_err(io::Error::other)
        };
        if let Err(error) = unloaded.await {
            tracing::error!(%error, instance, "the runtime did not unload an instance; it is started again without it");
            up.child.kill();
        }
    }

    /// Ends a component that a restarted process did not take back, and says so where refusals are shown.
    pub(super) async fn give_up(self: &Arc<Self>, component: &Component, why: String) {
        let facts = component.admitted.facts();
        tracing::error!(
            component = facts.name,
            why,
            "a component could not be taken back after a restart and is ended"
        );
        let spec = StartSpec { path: PathBuf::from(&facts.name), ..StartSpec::default() };
        let refused = self.refuse(&spec, Refused { code: "host.not-taken-back".to_owned(), ..Refused::internal(why) });
        if let Ok(mut list) = self.refused.lock() {
            list.push((spec.path, refused));
        }
        self.remove(&facts.instance);
        let _ = self.identity.stop(&facts.instance).await;
    }
}
