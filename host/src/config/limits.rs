//! Limits of requests and guests that an operator may change, with unit and reason.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Section `[limits]`.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests that may run at once; further ones are answered 503 before anything is made for them.
    pub concurrent_requests: u32,
    /// Connections that may be open at once; further ones wait in the listen queue.
    pub connections: u32,
    /// Wall-clock time of one request until its response has ended, in milliseconds.
    pub request_ms: u64,
    /// Processor time of one guest in one request, in milliseconds; then it traps.
    pub cpu_ms: u64,
    /// Linear memory of one instance, in MiB.
    pub memory_mib: u32,
    /// Elements of each table of one instance.
    pub table_elements: u32,
    /// Resource handles that one instance may hold.
    pub handles: u32,
    /// Bytes that the host copies for one call of a guest into the host.
    pub hostcall_bytes: u32,
    /// Headers of a request, in bytes all together.
    pub header_bytes: u32,
    /// Headers of a request, in number.
    pub headers: u32,
    /// Body of a request, in bytes.
    pub body_bytes: u64,
    /// Time for a client to send the head of a request, and to stay idle between two, in milliseconds.
    pub head_ms: u64,
    /// Longest pause of a client within the body it sends or the response it takes, in milliseconds.
    pub body_idle_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            concurrent_requests: 512,
            connections: 4096,
            request_ms: 30_000,
            cpu_ms: 2_000,
            memory_mib: 128,
            table_elements: 20_000,
            handles: 1_024,
            hostcall_bytes: 16 << 20,
            header_bytes: 32 << 10,
            headers: 100,
            body_bytes: 16 << 20,
            head_ms: 10_000,
            body_idle_ms: 10_000,
        }
    }
}

impl Limits {
    /// What is out of range, a line each.
    pub fn problems(&self) -> Vec<String> {
        let rows: [(&str, u64, u64, u64); 13] = [
            ("concurrent_requests", self.concurrent_requests.into(), 1, 10_000),
            ("connections", self.connections.into(), 1, 1_000_000),
            ("request_ms", self.request_ms, 10, 86_400_000),
            ("cpu_ms", self.cpu_ms, 2, 3_600_000),
            ("memory_mib", self.memory_mib.into(), 1, 4_096),
            ("table_elements", self.table_elements.into(), 1, 1_000_000),
            ("handles", self.handles.into(), 16, 1_000_000),
            ("hostcall_bytes", self.hostcall_bytes.into(), 4_096, 1 << 30),
            ("header_bytes", self.header_bytes.into(), 8_192, 1 << 20),
            ("headers", self.headers.into(), 8, 10_000),
            ("body_bytes", self.body_bytes, 0, 1 << 40),
            ("head_ms", self.head_ms, 100, 600_000),
            ("body_idle_ms", self.body_idle_ms, 100, 600_000),
        ];
        rows.iter()
            .filter(|(_, value, least, most)| value < least || value > most)
            .map(|(name, value, least, most)| format!("{name} is {value}, must be {least} to {most}"))
            .collect()
    }

    /// Wall-clock time of one request.
    pub fn request(&self) -> Duration {
        Duration::from_millis(self.request_ms)
    }

    /// Time for a client to send a head.
    pub fn head(&self) -> Duration {
        Duration::from_millis(self.head_ms)
    }

    /// Longest pause within a body.
    pub fn body_idle(&self) -> Duration {
        Duration::from_millis(self.body_idle_ms)
    }

    /// Processor time of one guest.
    pub fn cpu(&self) -> Duration {
        Duration::from_millis(self.cpu_ms)
    }
}
