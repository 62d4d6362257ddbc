//! How the host is: why it is not ready, where it listens, what the runtime says of itself.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use super::Host;
use crate::clock;
use crate::config::Config;
use crate::limits;
use crate::rpc::runtime::{StatusReply, StatusRequest};

impl Host {
    /// Why the host is not ready, one line each; empty: it is.
    pub async fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.settled.load(Ordering::Acquire) {
            problems.push("configured components are still being started".to_owned());
        }
        if self.audit_broken.load(Ordering::Acquire) {
            problems.push("the audit log cannot be written".to_owned());
        }
        if self.identity_process.now().is_none() {
            problems.push("the identity process is down".to_owned());
        }
        if self.runtime_process.now().is_none() {
            problems.push("the runtime process is down".to_owned());
        }
        let generation = self.policy().generation();
        let identity = self.identity_process.now().map(|up| ("identity", up.generation.load(Ordering::Acquire)));
        let runtime = self.runtime_process.now().map(|up| ("runtime", up.generation.load(Ordering::Acquire)));
        for (role, has) in [identity, runtime].into_iter().flatten().filter(|(_, has)| *has != generation) {
            problems.push(format!("the {role} process has policy generation {has}, not {generation} yet"));
        }
        problems.extend(self.identity.problems().await);
        problems.extend(wants_svid(&self.config).filter(|_| !self.own().is_shown(clock::now())).map(str::to_owned));
        let nats = self.nats_problems();
        // A host that serves by what was on its disk goes on with that: commands come when NATS does.
        let restored = self.cluster.as_ref().is_some_and(|cluster| cluster.was_restored());
        let commanded = self.config.nats.is_some() && self.config.membership.is_some();
        if commanded && !restored && nats.is_empty() && !self.commands_decided.load(Ordering::Acquire) {
            problems.push("nats: commands are not heard yet".to_owned());
        }
        problems.extend(nats);
        problems.extend(self.cluster.iter().flat_map(|cluster| cluster.problems()));
        problems.extend(self.trust_problem());
        problems.extend(self.policy().problems().iter().cloned());
        // A host for other processes' identities alone needs no grant; one that is to run something does.
        if !self.config.components.is_empty() && self.policy().grants_nothing() {
            problems.push("the policy files grant nothing: everything is denied".to_owned());
        }
        if let Ok(refused) = self.refused.lock() {
            problems.extend(refused.iter().map(|(path, refused)| format!("{}: {}", path.display(), refused.shown())));
        }
        problems
    }

    /// What an operator should know and what takes nothing away that is served here, one line each.
    pub fn warnings(&self) -> Vec<String> {
        let cluster = self.cluster.iter().flat_map(|cluster| cluster.warnings());
        self.nats_warnings().into_iter().chain(cluster).collect()
    }

    /// What the runtime says of itself.
    pub async fn runtime_status(&self) -> Option<StatusReply> {
        let up = self.runtime_process.now()?;
        let asked =
            tokio::time::timeout(limits::RPC_TIMEOUT, async { up.client().status(StatusRequest {}).await }).await;
        asked.ok()?.ok().map(tonic::Response::into_inner)
    }

    /// Where the host listens: HTTP, then mTLS.
    pub fn addresses(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        let mtls = self.listeners.mtls.as_ref().and_then(|listener| listener.local_addr().ok());
        (self.listeners.http.local_addr().ok(), mtls)
    }

    /// Where the host listens besides, by name.
    pub fn endpoint_addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        let metrics = self.metrics_address.get().map(|address| ("metrics", *address));
        let broker = self.listeners.broker.address().map(|address| ("broker", address));
        let control = self.control_address.map(|address| ("control", address));
        self.listeners.endpoints.addresses().into_iter().chain(broker).chain(metrics).chain(control).collect()
    }
}

/// What a host is not ready for without an X.509-SVID of its own: nobody would believe what it says.
fn wants_svid(config: &Config) -> Option<&'static str> {
    if config.control.https.is_some() {
        return Some("control.https: the host has no X.509-SVID of its own to show yet");
    }
    let signs = config.membership.as_ref().is_some_and(|membership| membership.key.is_none());
    signs.then_some("cluster: the host has no X.509-SVID of its own to sign with yet")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_host_whose_word_is_signed_with_its_svid_is_not_ready_without_one() {
        let root =
            portcullis_signing::SecretKey::generate(portcullis_signing::KeyKind::Root).unwrap().public().to_string();
        let minimal = include_str!("../config/tests/minimal.toml").replace("ROOTKEY", &root);
        let key = portcullis_nkey::KeyPair::generate(portcullis_nkey::Kind::User).unwrap().public();
        let nats = "[nats]\nservers = [\"tls://n:4222\"]\naccount = \"A\"\ntls.ca = \"ca\"\nauth.nkey = \"n.nk\"\n";
        let member = "[cluster]\nname = \"c\"\nhost = \"h1\"\n";
        let keyed = format!("{member}key = \"h1.nk\"\n[[cluster.member]]\nhost = \"h1\"\nwho = \"{key}\"\n");
        let https = "[control]\nhttps = \"127.0.0.1:1\"\n";
        for (more, wants) in [
            (String::new(), None),
            (https.to_owned(), Some("control.https: ")),
            (format!("{member}{nats}"), Some("cluster: ")),
            (format!("{keyed}{nats}"), None),
            (format!("{keyed}{nats}{https}"), Some("control.https: ")),
        ] {
            let minimal = match more.contains("[cluster]") {
                true => minimal
                    .lines()
                    .filter(|line| !line.starts_with("cluster"))
                    .fold(String::new(), |all, line| all + line + "\n"),
                false => minimal.clone(),
            };
            let text = format!("{minimal}\n{more}");
            let config = Config::parse(&text, Path::new("/etc/p/p.toml"), Path::new("/var/p"));
            let wanted = wants_svid(&config.unwrap_or_else(|error| panic!("{text}: {error}")));
            assert_eq!(wanted.and_then(|why| why.split_inclusive(": ").next()), wants, "{text}");
        }
    }
}
