//! The fence around each child process, put up before it starts a thread or reads anything.
//!
//! Dies with its parent; no core dump, not readable through `/proc` or ptrace by others of the same uid; no new
//! privileges; Landlock: only the paths its role needs; seccomp: none of the calls that its role never makes.
//! Landlock degrades with the kernel (it says how far it got); everything else must hold or the child ends.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule};

use super::Role;
use crate::limits;

/// What the fence of one child is made of.
#[derive(Debug)]
pub struct Fence<'a> {
    /// The role, which decides the calls that are refused.
    pub role: Role,
    /// The process that started this one.
    pub parent: u32,
    /// Paths below which files may be read.
    pub read: &'a [&'a Path],
    /// Paths below which files may be read, made, renamed and removed.
    pub write: &'a [&'a Path],
    /// Leave the process readable by a debugger of the same uid. A `danger_` knob of the configuration.
    pub inspectable: bool,
}

/// How far the fence got, for `status` and the log.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Report {
    /// `full`, `partial` or `none`.
    pub landlock: String,
    /// Number of system calls that are refused.
    pub seccomp: usize,
}

/// Puts the fence up around the calling process, which must have one thread.
pub fn enter(fence: &Fence<'_>) -> io::Result<Report> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if parent != Some(fence.parent) {
        return Err(io::Error::other("the process that started this one is gone"));
    }
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    if !fence.inspectable {
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    rustix::thread::set_no_new_privs(true)?;
    let landlock = restrict_paths(fence).map_err(io::Error::other)?;
    let refused = refused_calls(fence.role)?;
    let count = refused.len();
    refuse_calls(refused)?;
    Ok(Report { landlock, seccomp: count })
}

/// The same for a process that nobody of ours started: it lives for as long as whoever started it wants, keeps the network, and
/// reaches no Unix socket.
pub fn enter_alone(read: &[&Path], write: &[&Path]) -> io::Result<Report> {
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    rustix::thread::set_no_new_privs(true)?;
    let fence = Fence { role: Role::Runtime, parent: 0, read, write, inspectable: false };
    let landlock = restrict_paths(&fence).map_err(io::Error::other)?;
    let refused = refused_calls(fence.role)?;
    let count = refused.len();
    refuse_calls(refused)?;
    Ok(Report { landlock, seccomp: count })
}

/// Limits of a compile process: processor time, address space, no files beyond those it has, hence no sockets either.
pub fn limit_compile_job() -> io::Result<()> {
    let set =
        |resource, value| rustix::process::setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) });
    set(Resource::Cpu, limits::COMPILE_CPU_SECONDS)?;
    set(Resource::As, limits::COMPILE_ADDRESS_SPACE)?;
    set(Resource::Fsize, limits::NATIVE_BYTES)?;
    Ok(())
}

fn restrict_paths(fence: &Fence<'_>) -> Result<String, landlock::RulesetError> {
    let abi = ABI::V6;
    let read = AccessFs::from_read(abi) & !AccessFs::Execute;
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?;
    for path in fence.read {
        if let Ok(fd) = PathFd::new(path) {
            rules = rules.add_rule(PathBeneath::new(fd, read_access(path, read)))?;
        }
    }
    for path in fence.write {
        if let Ok(fd) = PathFd::new(path) {
            let all = AccessFs::from_all(abi) & !AccessFs::Execute;
            rules = rules.add_rule(PathBeneath::new(fd, all))?;
        }
    }
    let status = rules.restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => "full",
        RulesetStatus::PartiallyEnforced => "partial",
        RulesetStatus::NotEnforced => "none",
    }
    .to_owned())
}

fn read_access(path: &Path, read: landlock::BitFlags<AccessFs>) -> landlock::BitFlags<AccessFs> {
    if path.is_dir() { read } else { read & AccessFs::from_file(ABI::V6) }
}

/// A call that is refused, with conditions on its arguments where it is refused only for some.
type Refused = (i64, Vec<SeccompRule>);

/// Calls that no role makes, and those that a role does not.
fn refused_calls(role: Role) -> io::Result<Vec<Refused>> {
    let always = [
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_bpf,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_kexec_load,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_open_by_handle_at,
        libc::SYS_pidfd_getfd,
        libc::SYS_pidfd_send_signal,
        libc::SYS_kcmp,
        libc::SYS_kill,
        libc::SYS_setuid,
        libc::SYS_setgid,
        libc::SYS_setresuid,
        libc::SYS_setresgid,
        libc::SYS_setsid,
        libc::SYS_setpgid,
    ];
    let mut calls: Vec<Refused> = always.into_iter().map(|call| (call, Vec::new())).collect();
    // Threads, but no processes: one that was forked would outlive its parent's death and keep the parent's sockets.
    let thread = u64::try_from(libc::CLONE_THREAD).map_err(io::Error::other)?;
    calls.push((libc::SYS_clone, vec![when(0, SeccompCmpOp::MaskedEq(thread), 0)?]));
    #[cfg(target_arch = "x86_64")]
    calls.extend([(libc::SYS_fork, Vec::new()), (libc::SYS_vfork, Vec::new())]);
    match role {
        // Unix sockets lead to the control plane and to other services of this machine; Landlock does not see them.
        Role::Runtime => {
            let unix = u64::try_from(libc::AF_UNIX).map_err(io::Error::other)?;
            calls.push((libc::SYS_socket, vec![when(0, SeccompCmpOp::Eq, unix)?]));
        }
        Role::Identity => calls.extend(SOCKETS.map(|call| (call, Vec::new()))),
        Role::Compile => {
            calls.extend(SOCKETS.map(|call| (call, Vec::new())));
            calls.extend([libc::SYS_socketpair, libc::SYS_sendto, libc::SYS_sendmsg].map(|call| (call, Vec::new())));
        }
    }
    Ok(calls)
}

fn when(argument: u8, is: SeccompCmpOp, value: u64) -> io::Result<SeccompRule> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, is, value).map_err(io::Error::other)?;
    SeccompRule::new(vec![condition]).map_err(io::Error::other)
}

/// `clone3` passes its flags in memory, where no filter sees them: told that it does not exist, the C library uses `clone`.
fn refuse_calls(calls: Vec<Refused>) -> io::Result<()> {
    apply(calls, libc::EPERM)?;
    apply(vec![(libc::SYS_clone3, Vec::new())], libc::ENOSYS)
}

fn apply(calls: Vec<Refused>, error: i32) -> io::Result<()> {
    let rules: BTreeMap<i64, Vec<SeccompRule>> = calls.into_iter().collect();
    let arch = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let refuse = SeccompAction::Errno(error.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).map_err(io::Error::other)?;
    let program: seccompiler::BpfProgram = filter.try_into().map_err(io::Error::other)?;
    seccompiler::apply_filter(&program).map_err(io::Error::other)
}

/// Raises the number of files that this process and its children may have open to the most that they may.
pub fn raise_open_files() -> u64 {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match rustix::process::setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}

const SOCKETS: [i64; 4] = [libc::SYS_socket, libc::SYS_connect, libc::SYS_bind, libc::SYS_listen];
