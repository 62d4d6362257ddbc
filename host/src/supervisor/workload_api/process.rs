//! A process at the other end of a Unix socket: who it is, and whether it still is the same.
//!
//! The kernel says which process connected (`SO_PEERCRED`, `SO_PEERPIDFD`); everything else is read through descriptors that
//! stand for that very process (its pidfd, its `/proc` folder), never by its number again, so that a number that was given to
//! another process in between leads nowhere. Trusts the kernel; nothing that the process itself says is taken.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat};
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

/// Tells one executable file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct FileId {
    device: u64,
    inode: u64,
    size: i64,
    modified: (i64, i64),
}

/// A state of one executable file: it is another one after any change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileState {
    file: FileId,
    changed: (i64, i64),
}

/// What the kernel says of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Its id, for the audit log.
    pub pid: u32,
    /// The user that it connected as.
    pub uid: u32,
    /// The group that it connected as.
    pub gid: u32,
    /// Its executable as the kernel names it.
    pub executable: PathBuf,
    /// SHA-256 of its executable, where an entry asked for it.
    pub sha256: Option<String>,
}

/// A process that is connected.
#[derive(Debug)]
pub struct Process {
    pidfd: OwnedFd,
    folder: OwnedFd,
    executable: FileId,
    facts: Facts,
}

/// Why nothing is known of a process.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It ended, or was in another process id namespace.
    #[error("it is gone, or cannot be seen from here")]
    Gone,
    /// It runs another executable than when it was looked at first.
    #[error("its executable changed while it was looked at")]
    Changed,
    /// The operating system refused something.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Process {
    /// The process that connected to this socket.
    pub fn connected(socket: &UnixStream) -> Result<Self, ProcessError> {
        let peer = socket.peer_cred()?;
        let id = peer.pid().filter(|id| *id > 0).ok_or(ProcessError::Gone)?;
        let pidfd = match portcullis_native::peer_pidfd(socket.as_fd()) {
            Ok(Some(pidfd)) => pidfd,
            // Linux before 6.5: since the connection was made the id may have passed to another process.
            Ok(None) => Pid::from_raw(id)
                .and_then(|id| rustix::process::pidfd_open(id, PidfdFlags::empty()).ok())
                .ok_or(ProcessError::Gone)?,
            Err(_) => return Err(ProcessError::Gone),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(CWD, format!("/proc/{id}"), flags, Mode::empty());
        let folder = folder.map_err(|_| ProcessError::Gone)?;
        // The process of the pidfd lives, so the id was its own all the time and the folder is its own, too.
        if has_ended(&pidfd) {
            return Err(ProcessError::Gone);
        }
        let executable = FileState::of(&stat(&folder)?).file;
        let path = rustix::fs::readlinkat(&folder, "exe", Vec::new()).map_err(io::Error::from)?;
        let facts = Facts {
            pid: id.unsigned_abs(),
            uid: peer.uid(),
            gid: peer.gid(),
            executable: PathBuf::from(OsString::from_vec(path.into_bytes())),
            sha256: None,
        };
        let process = Self { pidfd, folder, executable, facts };
        process.check()?;
        Ok(process)
    }

    /// What is known of it.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Its executable, as the file that the kernel runs, whatever lies at its path now.
    pub fn executable(&self) -> Result<(File, FileState), ProcessError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.folder, "exe", flags, Mode::empty()).map_err(io::Error::from)?;
        let state = FileState::of(&rustix::fs::fstat(&file).map_err(io::Error::from)?);
        if state.file != self.executable {
            return Err(ProcessError::Changed);
        }
        Ok((File::from(file), state))
    }

    /// Remembers the digest of its executable.
    pub fn hashed(&mut self, sha256: String) {
        self.facts.sha256 = Some(sha256);
    }

    /// Whether the file at this path, as this process sees it, is its executable and nobody but root and we could change it.
    pub fn runs(&self, path: &Path) -> Result<(), NotThis> {
        if self.facts.executable != path {
            return Err(NotThis::OtherPath);
        }
        let at_path = rustix::fs::statat(CWD, path, AtFlags::empty()).map_err(|_| NotThis::OtherFile)?;
        // The same name in another mount namespace is another file.
        if FileState::of(&at_path).file != self.executable {
            return Err(NotThis::OtherFile);
        }
        let trusted = [0, rustix::process::getuid().as_raw()];
        if at_path.st_mode & 0o022 != 0 || !trusted.contains(&at_path.st_uid) {
            return Err(NotThis::Writable);
        }
        // Whoever may write to a folder above may put another file there, run it, and put this one back.
        for folder in path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
            let at = rustix::fs::statat(CWD, folder, AtFlags::empty()).map_err(|_| NotThis::OtherFile)?;
            let sticky = at.st_mode & 0o1000 != 0;
            if (at.st_mode & 0o022 != 0 && !sticky) || !trusted.contains(&at.st_uid) {
                return Err(NotThis::Writable);
            }
        }
        Ok(())
    }

    /// Whether it still lives and runs what it ran.
    pub fn check(&self) -> Result<(), ProcessError> {
        if FileState::of(&stat(&self.folder)?).file != self.executable {
            return Err(ProcessError::Changed);
        }
        if has_ended(&self.pidfd) { Err(ProcessError::Gone) } else { Ok(()) }
    }

    /// A descriptor that is readable once the process has ended.
    pub fn pidfd(&self) -> io::Result<OwnedFd> {
        self.pidfd.try_clone()
    }
}

/// Why a process does not run the executable of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotThis {
    /// Another path.
    #[error("it runs another executable")]
    OtherPath,
    /// Another file under the same path.
    #[error("it runs another file than the one at that path: replaced since, or in another mount namespace")]
    OtherFile,
    /// The path proves nothing where the caller may write what lies there, or a folder above.
    #[error(
        "others than root and this host may change the executable or a folder above it: give its sha256 instead of its path"
    )]
    Writable,
}

fn stat(folder: &OwnedFd) -> Result<Stat, ProcessError> {
    rustix::fs::statat(folder, "exe", AtFlags::empty()).map_err(|error| match error {
        rustix::io::Errno::SRCH | rustix::io::Errno::NOENT => ProcessError::Gone,
        other => ProcessError::Io(other.into()),
    })
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut wait = [rustix::event::PollFd::from_borrowed_fd(pidfd.as_fd(), rustix::event::PollFlags::IN)];
    let none = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    !matches!(rustix::event::poll(&mut wait, Some(&none)), Ok(0))
}

impl FileState {
    /// The state that these metadata tell.
    pub fn of(stat: &Stat) -> Self {
        let nanoseconds = |value| i64::try_from(value).unwrap_or(i64::MAX);
        let file = FileId {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size,
            modified: (stat.st_mtime, nanoseconds(stat.st_mtime_nsec)),
        };
        Self { file, changed: (stat.st_ctime, nanoseconds(stat.st_ctime_nsec)) }
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        u64::try_from(self.file.size).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    async fn connection() -> (UnixStream, UnixStream) {
        let folder = tempfile::tempdir().unwrap();
        let listener = tokio::net::UnixListener::bind(folder.path().join("s")).unwrap();
        let client = UnixStream::connect(folder.path().join("s")).await.unwrap();
        (listener.accept().await.unwrap().0, client)
    }

    #[tokio::test]
    async fn this_very_process_is_seen_with_its_executable() {
        let (server, _client) = connection().await;
        let process = Process::connected(&server).unwrap();
        let facts = process.facts();
        let me = std::env::current_exe().unwrap().canonicalize().unwrap();
        assert_eq!((facts.pid, facts.uid), (std::process::id(), rustix::process::getuid().as_raw()));
        assert_eq!(facts.executable, me);
        let (mut file, state) = process.executable().unwrap();
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        assert_eq!(bytes, std::fs::read(&me).unwrap());
        assert_eq!(state.size(), u64::try_from(bytes.len()).unwrap());
        assert_eq!(process.runs(Path::new("/bin/sh")), Err(NotThis::OtherPath));
        process.check().unwrap();
    }

    /// A process with the pidfd and folder of a child, as if it had connected.
    fn child_as_process(child: &std::process::Child) -> Process {
        let id = i32::try_from(child.id()).unwrap();
        let pidfd = rustix::process::pidfd_open(Pid::from_raw(id).unwrap(), PidfdFlags::empty()).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(CWD, format!("/proc/{id}"), flags, Mode::empty()).unwrap();
        let executable = FileState::of(&stat(&folder).unwrap()).file;
        let facts = Facts { pid: child.id(), uid: 0, gid: 0, executable: PathBuf::new(), sha256: None };
        Process { pidfd, folder, executable, facts }
    }

    #[test]
    fn a_path_proves_an_executable_only_where_nobody_else_could_change_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("provider");
        std::fs::copy("/bin/sleep", &path).unwrap();
        let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        mode(0o755);
        let mut child = Command::new(&path).arg("60").spawn().unwrap();
        let mut process = child_as_process(&child);
        process.facts.executable.clone_from(&path);
        let right = process.runs(&path);
        mode(0o775);
        let group = process.runs(&path);
        mode(0o757);
        let others = process.runs(&path);
        let still = process.check();
        std::fs::remove_file(&path).unwrap();
        std::fs::copy("/bin/sleep", &path).unwrap();
        let replaced = process.runs(&path);
        let _ = child.kill();
        let _ = child.wait();
        assert_eq!((right, group, others), (Ok(()), Err(NotThis::Writable), Err(NotThis::Writable)));
        still.unwrap();
        assert_eq!(replaced, Err(NotThis::OtherFile));
    }

    #[test]
    fn a_path_proves_nothing_below_a_folder_that_others_may_write_to() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let above = folder.path().canonicalize().unwrap().join("above");
        let path = above.join("bin").join("provider");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::copy("/bin/sleep", &path).unwrap();
        let mode = |of: &Path, mode| std::fs::set_permissions(of, PermissionsExt::from_mode(mode)).unwrap();
        mode(&path, 0o755);
        let mut child = Command::new(&path).arg("60").spawn().unwrap();
        let mut process = child_as_process(&child);
        process.facts.executable.clone_from(&path);
        let seen: Vec<_> = [0o755, 0o775, 0o757, 0o1777, 0o700]
            .into_iter()
            .map(|bits| {
                mode(&above, bits);
                process.runs(&path)
            })
            .collect();
        let _ = child.kill();
        let _ = child.wait();
        // A sticky folder lets nobody replace what belongs to others.
        let writable = Err(NotThis::Writable);
        assert_eq!(seen, [Ok(()), writable, writable, Ok(()), Ok(())]);
    }

    #[test]
    fn a_process_that_ends_or_becomes_another_is_noticed() {
        let mut ends = Command::new("/bin/sh").args(["-c", "read x"]).stdin(Stdio::piped()).spawn().unwrap();
        let process = child_as_process(&ends);
        process.check().unwrap();
        drop(ends.stdin.take());
        ends.wait().unwrap();
        assert!(matches!(process.check(), Err(ProcessError::Gone)));

        let mut changes =
            Command::new("/bin/sh").args(["-c", "read x; exec sleep 60"]).stdin(Stdio::piped()).spawn().unwrap();
        let process = child_as_process(&changes);
        process.check().unwrap();
        drop(changes.stdin.take());
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while process.check().is_ok() && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        let checked = process.check();
        let _ = changes.kill();
        let _ = changes.wait();
        assert!(matches!(checked, Err(ProcessError::Changed)), "{checked:?}");
    }
}
