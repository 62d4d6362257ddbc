//! Ports that are told to somebody before anybody listens there.
//!
//! A port that was found free and let go may be anybody's a moment later: another test's, or that of an outgoing connection, to which
//! the kernel gives any port of its own range. So these lie outside of that range, and each is locked for as long as the test process
//! lives, through every restart of what listens there.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

static LOCKS: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port of the loopback that is this test process's alone.
pub fn reserved() -> u16 {
    let folder = std::env::temp_dir().join("portcullis-test-ports");
    std::fs::create_dir_all(&folder).expect("a folder for the locks of ports");
    let ports: Vec<u16> = range().collect();
    // Test processes begin at different places.
    let begin = usize::try_from(std::process::id()).unwrap_or_default().wrapping_mul(97) % ports.len();
    for port in ports.iter().cycle().skip(begin).take(ports.len()) {
        let lock = File::options().create(true).truncate(false).write(true).open(folder.join(port.to_string()));
        let Some(lock) = lock.ok().filter(|lock| lock.try_lock().is_ok()) else { continue };
        // It may be that of something that is no test.
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok() {
            LOCKS.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
            return *port;
        }
    }
    panic!("no port is left");
}

/// Ports that the kernel gives nobody by itself.
fn range() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = text.split_whitespace().filter_map(|end| end.parse::<u16>().ok());
    match (ends.next(), ends.next()) {
        (Some(low), _) if low > 12_000 => 10_000..=low - 1,
        (Some(_), Some(high)) if high < 63_000 => high + 1..=65_535,
        _ => 10_000..=65_535,
    }
}
