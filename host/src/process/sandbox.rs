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
use seccompiler::{SeccompAction, SeccompFilter};

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
    let refused = refused_calls(fence.role);
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

/// Calls that no role makes, and those that a role does not.
fn refused_calls(role: Role) -> Vec<i64> {
    let mut calls = vec![
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
        libc::SYS_kcmp,
        libc::SYS_setuid,
        libc::SYS_setgid,
        libc::SYS_setresuid,
        libc::SYS_setresgid,
    ];
    match role {
        Role::Runtime => {}
        Role::Identity => calls.extend([libc::SYS_socket, libc::SYS_connect, libc::SYS_bind, libc::SYS_listen]),
        Role::Compile => calls.extend([
            libc::SYS_socket,
            libc::SYS_socketpair,
            libc::SYS_connect,
            libc::SYS_bind,
            libc::SYS_listen,
            libc::SYS_sendto,
            libc::SYS_sendmsg,
            libc::SYS_kill,
        ]),
    }
    calls
}

fn refuse_calls(calls: Vec<i64>) -> io::Result<()> {
    let rules: BTreeMap<i64, Vec<seccompiler::SeccompRule>> =
        calls.into_iter().map(|call| (call, Vec::new())).collect();
    let arch = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let eperm = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, eperm, arch).map_err(io::Error::other)?;
    let program: seccompiler::BpfProgram = filter.try_into().map_err(io::Error::other)?;
    seccompiler::apply_filter(&program).map_err(io::Error::other)
}
