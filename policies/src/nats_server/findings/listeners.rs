//! Everything else that the server listens on, and what it writes down.

use super::super::value::{Entry, Map};
use super::{Level, Look};

impl Look<'_> {
    pub(super) fn listeners(&mut self) {
        for (keys, code, what) in [
            (LEAFNODES, "listener.leafnodes", "leaf nodes"),
            (WEBSOCKET, "listener.websocket", "web sockets"),
            (MQTT, "listener.mqtt", "MQTT"),
        ] {
            let Some(entry) = self.config.entry(keys) else { continue };
            let Some(block) = entry.value.as_map() else {
                let reason = format!("the block for {what} is not in this file");
                self.danger(code, Some(entry), reason, "write it out");
                continue;
            };
            if is_open(block) {
                self.listener(entry, block, code, what);
            }
        }
        for (keys, what) in [(&["cluster"][..], "routes"), (&["gateway"][..], "gateways")] {
            let Some(entry) = self.config.entry(keys) else { continue };
            match entry.value.as_map() {
                Some(block) if is_open(block) => self.between_servers(entry, block, what),
                Some(_) => {}
                None => {
                    let reason = format!("the block for {what} is not in this file");
                    self.danger("listener.routes", Some(entry), reason, "write it out");
                }
            }
        }
        self.watching();
    }

    /// A listener whose logins go to the callout, or past it.
    fn listener(&mut self, entry: &Entry, block: &Map, code: &'static str, what: &str) {
        if block.get(&["tls"]).is_none() || block.is_on(&["no_tls"]) {
            let reason = format!("the listener for {what} has no TLS of its own");
            self.danger(code, Some(entry), reason, "give it a tls block, or take the listener away");
        }
        if block.map(&["tls"]).is_some_and(trusts_everybody) {
            let reason = format!("the listener for {what} verifies certificates, and trusts every public authority");
            self.danger("tls.no-ca", Some(entry), reason, "name the authorities of your trust domains in ca_file");
        }
        let own = block
            .map(&["authorization", "authentication"])
            .filter(|own| LOGINS.iter().any(|key| own.filled(&[key]).is_some()));
        match own {
            Some(own) => {
                let reason =
                    format!("{what} have logins of their own in this file: whoever has one comes in past the callout");
                let hint = "take them away: a role of the callout says who may come in so";
                self.danger("auth.beside", Some(entry), reason, hint);
                let system = self.config.text(&["system_account", "system"]).unwrap_or("$SYS");
                if own.text(&["account"]) == Some(system) {
                    let reason = format!("{what} come into the system account");
                    self.danger("auth.beside", Some(entry), reason, "give them an account of their own");
                }
            }
            None if code == "listener.leafnodes" => {
                let reason =
                    "leaf nodes log in through the callout like clients: a whole server with clients of its own";
                let hint = "take the listener away, or give a role kinds = [\"leafnode\"] and know why";
                self.danger(code, Some(entry), reason, hint);
            }
            None => {}
        }
        let reason = format!("a listener for {what} is open: its logins go to the callout too");
        self.add(Level::Note, code, Some(entry), reason, "close it where no role has it in `types` or `kinds`");
        if block.get(&["no_auth_user"]).is_some() {
            let reason = format!("{what} without a credential become a user of this file");
            self.danger("auth.no-auth-user", Some(entry), reason, "drop no_auth_user");
        }
        let cookies = ["jwt_cookie", "user_cookie", "pass_cookie", "token_cookie"];
        if cookies.iter().any(|key| block.filled(&[key]).is_some()) && !block.is_on(&["same_origin"]) {
            let reason =
                "a browser sends its cookies along for whatever page asks: each of them could connect as its user";
            self.danger(code, Some(entry), reason, "set same_origin: true, or drop the cookies");
        }
    }

    fn between_servers(&mut self, entry: &Entry, block: &Map, what: &str) {
        let Some(tls) = block.map(&["tls"]) else {
            let reason = format!("{what} have no TLS: requests of the callout and users' tokens cross them");
            self.danger("listener.routes", Some(entry), reason, "give the block tls with verify and ca_file");
            return;
        };
        if tls.filled(&["ca_file", "ca_cert_file"]).is_none() || tls.is_on(&["insecure"]) {
            let reason = format!(
                "{what} are taken from whoever has a certificate of a public authority, or any: who is one hears and says what it likes"
            );
            self.danger(
                "listener.routes",
                Some(entry),
                reason,
                "name the authority of your servers in ca_file, without insecure",
            );
        }
    }

    fn watching(&mut self) {
        if let Some(entry) = self.config.entry(&["http", "http_port", "monitor_port"]) {
            let local = entry.value.as_text().is_some_and(is_local);
            if !local {
                let reason = "the monitoring port shows who is connected to everybody who reaches it; `verify` does not cover it";
                let hint = "listen on 127.0.0.1, or use https_port behind a proxy";
                self.danger("listener.monitoring", Some(entry), reason, hint);
            }
        }
        if let Some(entry) = self.config.entry(&["https", "https_port"])
            && !entry.value.as_text().is_some_and(is_local)
        {
            let reason = "the monitoring port shows who is connected to everybody who reaches it";
            self.add(
                Level::Note,
                "listener.monitoring",
                Some(entry),
                reason,
                "keep it behind a proxy that asks who comes",
            );
        }
        if let Some(entry) = self.config.entry(&["prof_port"])
            && entry.value.as_text() != Some("0")
        {
            let reason = "the profiling port gives the server's memory to everybody who reaches it";
            self.danger("listener.profiling", Some(entry), reason, "drop prof_port");
        }
        if self.config.is_on(&["trace"]) || self.config.is_on(&["trace_verbose"]) {
            let entry = self.config.entry(&["trace", "trace_verbose"]);
            let reason = "the trace writes what clients send into the log, JWTs in clear text";
            self.danger("log.trace", entry, reason, "switch it off");
        }
    }
}

/// Whether a block opens a port.
pub(super) fn is_open(block: &Map) -> bool {
    block.get(&["port", "listen"]).is_some()
}

fn trusts_everybody(tls: &Map) -> bool {
    (tls.is_on(&["verify"]) || tls.is_on(&["verify_and_map"])) && tls.filled(&["ca_file", "ca_cert_file"]).is_none()
}

/// `127.0.0.1:8222`, `localhost:8222`, `[::1]:8222`: the host, and not somewhere in it.
fn is_local(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or("", |(host, _)| host);
    matches!(host, "localhost" | "[::1]" | "::1") || host.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
}

pub(super) const LEAFNODES: &[&str] = &["leafnodes", "leaf"];
pub(super) const WEBSOCKET: &[&str] = &["websocket", "ws"];
pub(super) const MQTT: &[&str] = &["mqtt"];
/// What a block of logins can have.
const LOGINS: [&str; 6] = ["user", "username", "users", "nkey", "token", "password"];
