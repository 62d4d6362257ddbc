//! Which process connected to a Unix socket, as the kernel holds it: a pidfd that no reused process id can stand in for.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The process that connected to this Unix socket (`SO_PEERPIDFD`, Linux 6.5); `None` where the kernel does not know the option.
pub fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let mut fd: libc::c_int = -1;
    let mut len = libc::socklen_t::try_from(size_of::<libc::c_int>()).map_err(io::Error::other)?;
    // SAFETY: `fd` and `len` are live and writable for the whole call, and `len` says how large `fd` is. The kernel writes
    // at most that much.
    #[expect(unsafe_code, reason = "the option has no safe wrapper")]
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERPIDFD, (&raw mut fd).cast(), &raw mut len)
    };
    if result != 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ENOPROTOOPT) { Ok(None) } else { Err(error) };
    }
    if fd < 0 {
        return Err(io::Error::other("the kernel gave no descriptor"));
    }
    // SAFETY: the call succeeded, so the kernel has just opened this descriptor (close-on-exec) for us, and nobody else owns it.
    #[expect(unsafe_code, reason = "the kernel gives a number, which has to get an owner")]
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(Some(owned))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a broken test must stop")]
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_peer_of_a_pair_is_this_process() {
        let (one, _other) = UnixStream::pair().unwrap();
        let Some(pidfd) = peer_pidfd(one.as_fd()).unwrap() else { return };
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap();
        assert!(info.contains(&format!("Pid:\t{}\n", std::process::id())), "{info}");
    }

    #[test]
    fn what_is_no_unix_socket_has_no_peer() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(peer_pidfd(file.as_fd()).is_err());
    }
}
