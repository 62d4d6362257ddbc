//! A host under test with a connection to NATS.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::NatsServer;
use crate::host::Host;
use crate::patience::LONG;
use crate::site::Site;

/// The SPIFFE ID of the host under test, where it has no name in a cluster.
pub const HOST_ID: &str = "spiffe://test.example/portcullis/host";

/// A site without components, with `[nats]` as given.
pub fn site(nats: &str) -> Site {
    let mut site = Site::new();
    site.config(&format!("[nats]\n{nats}\n"));
    site
}

/// Waits until the host is ready and has no warning: connected, that is.
pub fn wait_ready(host: &Host) {
    let until = Instant::now() + LONG;
    loop {
        let status = host.ask_status(LONG.as_secs());
        assert_eq!(status.get("ready"), Some(&Value::Bool(true)), "{status:#}\n{}", host.log());
        if status.get("warnings").and_then(Value::as_array).is_some_and(Vec::is_empty) {
            return;
        }
        assert!(Instant::now() < until, "it has warnings still: {status:#}\n{}", host.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until a host that was connected warns of this, and serves on.
pub fn wait_warning(host: &Host, text: &str) -> String {
    let until = Instant::now() + LONG;
    loop {
        let status = host.ask_status(0);
        let warnings = status.get("warnings").and_then(Value::as_array).cloned().unwrap_or_default();
        if let Some(warning) = warnings.iter().filter_map(Value::as_str).find(|warning| warning.contains(text)) {
            assert_eq!(status.get("ready"), Some(&Value::Bool(true)), "{status:#}");
            return warning.to_owned();
        }
        assert!(Instant::now() < until, "the host does not warn of {text:?}: {status:#}\n{}", host.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until a problem with this text keeps the host from being ready, and gives it.
pub fn wait_problem(host: &Host, text: &str) -> String {
    let until = Instant::now() + LONG;
    loop {
        let status = host.ask_status(0);
        let problems = status.get("problems").and_then(Value::as_array).cloned().unwrap_or_default();
        if let Some(problem) = problems.iter().filter_map(Value::as_str).find(|problem| problem.contains(text)) {
            assert_eq!(status.get("ready"), Some(&Value::Bool(false)), "{status:#}");
            return problem.to_owned();
        }
        assert!(Instant::now() < until, "the host does not say {text:?}: {status:#}\n{}", host.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The root certificate of the host's authority, PEM.
pub fn authority(host: &Host) -> String {
    let ended = host.run(["identity", "bundle"]).ok();
    let bundle = ended.json();
    let keys = bundle.get("keys").and_then(Value::as_array).cloned().unwrap_or_default();
    let der = keys.iter().find_map(|key| key.pointer("/x5c/0").and_then(Value::as_str));
    let der = der.unwrap_or_else(|| panic!("no X.509 authority in {bundle:#}"));
    let lines: Vec<&str> = der.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// The connections of hosts that a server with a monitoring port lists.
pub fn connections(server: &NatsServer, monitoring: u16) -> Vec<Value> {
    let address = SocketAddr::from(([127, 0, 0, 1], monitoring));
    let listed = crate::http::get(address, "/connz?subs=1&auth=1", &[]).json();
    let all = listed.get("connections").and_then(Value::as_array).cloned();
    let all = all.unwrap_or_else(|| panic!("no connections in {listed:#}\n{}", server.log()));
    let of_hosts =
        |one: &Value| one.get("name").and_then(Value::as_str).is_some_and(|name| name.starts_with("portcullis"));
    all.into_iter().filter(of_hosts).collect()
}

/// Waits until the server lists exactly one connection of a host, for which `fits` holds. Gives it and how long that took.
pub fn wait_connection(server: &NatsServer, monitoring: u16, fits: impl Fn(&Value) -> bool) -> (Value, Duration) {
    let began = Instant::now();
    loop {
        let listed = connections(server, monitoring);
        if let [one] = listed.as_slice()
            && fits(one)
        {
            return (one.clone(), began.elapsed());
        }
        assert!(began.elapsed() < LONG, "{listed:#?}\n{}", server.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}
