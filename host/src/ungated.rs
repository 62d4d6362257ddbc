//! For one measurement, `tests/bench/gate.py`: a host that asks policy nothing on the path of requests, beside one that does.
//!
//! Only in builds with the feature `bench-ungated`, which nothing turns on by itself and CI refuses. Such a build does not run at
//! all unless its configuration says whether the gate is to be `on` or `off`, and it serves loopback alone; `status` and the
//! log name the knob either way.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

/// The key of the configuration.
pub const KEY: &str = "danger_bench_gate";

/// Whether the gate is off, as the configuration says; or what is wrong with that.
pub fn configured(gate: Option<&str>, mut listens: impl Iterator<Item = SocketAddr>) -> Result<bool, String> {
    let off = match gate {
        Some("on") => false,
        Some("off") => true,
        Some(_) => return Err("is neither \"on\" nor \"off\"".to_owned()),
        None => {
            return Err(
                "is missing: this build can be told to ask policy nothing, and is for the bench alone".to_owned()
            );
        }
    };
    match listens.find(|address| !address.ip().is_loopback()) {
        Some(address) => Err(format!("is for loopback alone, and {address} is not")),
        None => Ok(off),
    }
}

/// Leaves the gate of this process open, until its end.
pub fn open() {
    tracing::error!("THE GATE IS OPEN: this process asks policy nothing");
    OPEN.store(true, Ordering::Release);
}

/// Whether it is.
pub fn is_open() -> bool {
    OPEN.load(Ordering::Acquire)
}

static OPEN: AtomicBool = AtomicBool::new(false);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn such_a_build_refuses_to_run_unless_told_and_anywhere_but_on_loopback() {
        let near: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let far: SocketAddr = "0.0.0.0:1".parse().unwrap();
        assert_eq!(configured(Some("on"), [near].into_iter()), Ok(false));
        assert_eq!(configured(Some("off"), [near].into_iter()), Ok(true));
        for (gate, listens) in [(None, near), (Some(""), near), (Some("on"), far), (Some("off"), far)] {
            assert!(configured(gate, [near, listens].into_iter()).is_err(), "{gate:?}");
        }
    }
}
