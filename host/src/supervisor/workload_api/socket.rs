//! The Workload API's socket in the file system: made aside with its mode and group, then moved to its name in one step, so that
//! no client ever meets one that is not ready or is open to more than it should be.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::config::workload_api::WorkloadApi;

/// A socket at its name.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    /// Device and inode.
    file: (u64, u64),
}

impl Socket {
    /// Makes the socket and listens on it.
    pub fn listen(config: &WorkloadApi) -> io::Result<(Self, UnixListener)> {
        Self::at(&config.socket, config.mode_bits(), config.group.as_deref())
    }

    /// The same at any name, with any mode and group.
    pub fn at(socket: &Path, mode: u32, group: Option<&str>) -> io::Result<(Self, UnixListener)> {
        let folder = socket.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        check_folder(folder)?;
        if let Ok(meta) = std::fs::symlink_metadata(socket)
            && !std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type())
        {
            return Err(io::Error::other(
                "there is something else than a socket; hint: move it away or choose another path",
            ));
        }
        let group = group.map(group_id).transpose()?;
        let aside = folder.join(format!(".workload-{}", ulid::Ulid::generate()));
        DirBuilder::new().mode(0o700).create(&aside)?;
        let made = made_aside(&aside, socket, mode, group);
        // Only what was not moved is left in it.
        let _ = std::fs::remove_file(aside.join(NAME));
        let _ = std::fs::remove_dir(&aside);
        let (listener, file) = made?;
        Ok((Self { path: socket.to_path_buf(), file }, listener))
    }

    /// Takes the socket away, unless another one is there by now.
    pub fn remove(&self) {
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.file);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "a socket could not be removed");
        }
    }
}

fn made_aside(aside: &Path, socket: &Path, mode: u32, group: Option<u32>) -> io::Result<(UnixListener, (u64, u64))> {
    use std::os::fd::AsRawFd;
    // By a descriptor: the path of a socket is limited, and this one is longer than the one that it gets.
    let folder = std::fs::File::open(aside)?;
    let here = PathBuf::from(format!("/proc/self/fd/{}/{NAME}", folder.as_raw_fd()));
    let listener = UnixListener::bind(&here)?;
    let path = aside.join(NAME);
    if let Some(group) = group {
        std::os::unix::fs::lchown(&path, None, Some(group))?;
    }
    std::fs::set_permissions(&path, PermissionsExt::from_mode(mode))?;
    let meta = std::fs::symlink_metadata(&path)?;
    std::fs::rename(&path, socket)?;
    Ok((listener, (meta.dev(), meta.ino())))
}

/// A folder where others may take our socket's name would let them speak in our place.
fn check_folder(folder: &Path) -> io::Result<()> {
    let meta = std::fs::metadata(folder)?;
    let ours = [0, rustix::process::getuid().as_raw()].contains(&meta.uid());
    let writable = meta.mode() & 0o022 != 0 && meta.mode() & 0o1000 == 0;
    if !meta.is_dir() || !ours || writable {
        let why = format!("{} must belong to root or this user and not be writable by others", folder.display());
        return Err(io::Error::other(why));
    }
    Ok(())
}

/// A group's number, by itself or by its name in `/etc/group`.
fn group_id(text: &str) -> io::Result<u32> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let groups = std::fs::read_to_string("/etc/group")?;
    find_group(&groups, text).ok_or_else(|| io::Error::other(format!("there is no group `{}`", text.escape_default())))
}

fn find_group(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

const NAME: &str = "s";

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn config(folder: &Path) -> WorkloadApi {
        let socket = folder.join("workload.sock");
        WorkloadApi { socket, mode: "0660".to_owned(), group: None, wit_svid: false, workloads: Vec::new() }
    }

    #[test]
    fn the_socket_appears_with_its_mode_and_takes_the_place_of_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let (first, _old) = Socket::listen(&config).unwrap();
        let meta = std::fs::symlink_metadata(&config.socket).unwrap();
        assert_eq!(meta.mode() & 0o7777, 0o660);
        let (second, listener) = Socket::listen(&config).unwrap();
        let _client = UnixStream::connect(&config.socket).unwrap();
        listener.accept().unwrap();
        first.remove();
        assert!(config.socket.exists(), "the socket of another host is left alone");
        second.remove();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    }

    #[test]
    fn what_is_no_socket_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        std::fs::write(&config.socket, "precious").unwrap();
        assert!(Socket::listen(&config).is_err());
        assert_eq!(std::fs::read_to_string(&config.socket).unwrap(), "precious");
    }

    #[test]
    fn a_folder_that_others_may_write_is_refused_unless_it_is_sticky() {
        let folder = tempfile::tempdir().unwrap();
        for (mode, good) in [(0o777, false), (0o775, false), (0o1777, true), (0o755, true)] {
            std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(Socket::listen(&config(folder.path())).is_ok(), good, "{mode:o}");
        }
    }

    #[test]
    fn groups_have_numbers_and_names() {
        let groups = "root:x:0:\nworkloads:x:4242:a,b\nworkload:x:1:\nbroken\n";
        assert_eq!(find_group(groups, "workloads"), Some(4242));
        assert_eq!(find_group(groups, "broken"), None);
        assert_eq!(find_group(groups, "work"), None);
        assert_eq!(group_id("17").unwrap(), 17);
        assert!(group_id("no such group").is_err());
        let folder = tempfile::tempdir().unwrap();
        let unknown = WorkloadApi { group: Some("no such group".to_owned()), ..config(folder.path()) };
        assert!(Socket::listen(&unknown).is_err());
    }
}
