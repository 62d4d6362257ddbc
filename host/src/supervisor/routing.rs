//! Which component answers which path: the routes of the configuration, and those that came with starts. A path of somebody who runs is
//! nobody else's.

use std::sync::Arc;

use super::refused::Refused;
use super::{Host, StartSpec, children};
use crate::config::Route;

impl Host {
    pub(super) fn routes(&self) -> Vec<Route> {
        let extra = self.extra_routes.lock().map(|routes| routes.clone()).unwrap_or_default();
        extra.into_iter().rev().chain(self.config.routes.iter().cloned()).collect()
    }

    /// Refuses a route that is somebody else's.
    pub(super) fn check_free(&self, spec: &StartSpec, name: &str) -> Result<(), Refused> {
        let Some((host, path)) = &spec.route else { return Ok(()) };
        self.check_route_free(&Route { host: host.clone(), path: path.clone(), component: name.to_owned() })
    }

    pub(super) fn check_route_free(&self, wanted: &Route) -> Result<(), Refused> {
        let Route { host, path, component: name } = wanted;
        let same = |route: &Route| (&route.host, &route.path) == (host, path) && route.component != *name;
        let taken = self.routes().into_iter().find(same);
        let running = self.running();
        match taken.filter(|route| running.iter().any(|component| component.admitted.facts().name == route.component)) {
            Some(route) => Err(Refused {
                exit: crate::cli::error::exit::USAGE,
                code: "route.taken".to_owned(),
                message: format!(
                    "the route {}{path} is that of {}",
                    host.as_deref().unwrap_or_default(),
                    route.component
                ),
                hint: format!("choose another route, or `portcullis stop {}` first", route.component),
                ..Refused::internal("")
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn add_route(&self, route: Route) {
        if let Ok(mut routes) = self.extra_routes.lock() {
            routes.retain(|old| (&old.host, &old.path) != (&route.host, &route.path));
            routes.push(route);
        }
    }

    /// Replaces the routes of a component that are not of the configuration.
    pub(super) fn replace_routes(&self, name: &str, new: Vec<Route>) {
        if let Ok(mut routes) = self.extra_routes.lock() {
            routes.retain(|old| old.component != name);
            routes.extend(new);
        }
    }

    pub(super) async fn send_routes(self: &Arc<Self>) {
        if let Some(up) = self.runtime_process.wait().await
            && let Err(error) = children::set_routes(self, &up).await
        {
            tracing::error!(%error, "the routing table could not be sent");
        }
    }
}
