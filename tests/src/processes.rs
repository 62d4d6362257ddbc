//! What the kernel says of processes: who is whose child, who is still there. Ids are told from reused ones by their start.

use std::path::Path;
use std::time::{Duration, Instant};

/// One process, told from a later one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    started: u64,
}

impl Process {
    /// The process that has this id now.
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, started: stat(pid)?.started })
    }

    /// Whether it runs: gone and waiting to be reaped are the same.
    pub fn runs(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started == self.started && !matches!(stat.state, 'Z' | 'X'))
    }

    /// A file of its folder under `/proc`.
    pub fn read(&self, file: &str) -> std::io::Result<Vec<u8>> {
        std::fs::read(Path::new("/proc").join(self.pid.to_string()).join(file))
    }
}

/// The children of a process, in any depth.
pub fn descendants(of: u32) -> Vec<Process> {
    let all: Vec<(Process, u32)> =
        every().into_iter().filter_map(|pid| Some((Process::of(pid)?, stat(pid)?.parent))).collect();
    let (mut found, mut parents) = (Vec::new(), vec![of]);
    while let Some(parent) = parents.pop() {
        for (process, _) in all.iter().filter(|(_, of)| *of == parent) {
            found.push(*process);
            parents.push(process.pid);
        }
    }
    found
}

/// The processes of a process group that still run.
pub fn in_group(group: u32) -> Vec<Process> {
    let member = |pid: &u32| stat(*pid).is_some_and(|stat| stat.group == group);
    every().into_iter().filter(member).filter_map(Process::of).filter(Process::runs).collect()
}

/// Waits until something holds; says whether it did in time.
pub fn holds_within(most: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + most;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

struct Stat {
    state: char,
    parent: u32,
    group: u32,
    started: u64,
}

/// proc_pid_stat(5). The name, which may hold anything, ends at the last closing bracket.
fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

fn every() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
