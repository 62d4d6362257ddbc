//! The handover socket: how a supervisor gives file descriptors to a child, at its start and later.
//!
//! A `SOCK_SEQPACKET` socket pair whose one end is the child's standard input. A packet is a label, a number that names
//! the transfer, a JSON payload, and up to four descriptors. Only the supervisor's packets are acted on, and only by the
//! child that inherited the socket; nothing is ever received from a child here.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};

use crate::limits::{HANDOVER_BYTES, HANDOVER_FDS};

/// One end of a handover socket.
#[derive(Debug)]
pub struct Handover {
    socket: OwnedFd,
}

/// What came over.
#[derive(Debug)]
pub struct Packet {
    /// What the descriptors are for.
    pub label: String,
    /// Names this transfer in a later message; zero where nothing refers to it.
    pub transfer: u64,
    /// Data that goes with it.
    pub payload: serde_json::Value,
    /// The descriptors, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    label: String,
    transfer: u64,
    payload: serde_json::Value,
}

impl Handover {
    /// The supervisor's end, and the end that becomes a child's standard input.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self { socket: ours }, theirs))
    }

    /// The child's end, from its standard input.
    pub fn from_stdin() -> io::Result<Self> {
        Ok(Self { socket: io::stdin().as_fd().try_clone_to_owned()? })
    }

    /// Another handle of this end.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()? })
    }

    /// Sends one packet.
    pub fn send(
        &self,
        label: &str,
        transfer: u64,
        payload: serde_json::Value,
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let header = serde_json::to_vec(&Header { label: label.to_owned(), transfer, payload })?;
        if header.len() > HANDOVER_BYTES || fds.len() > HANDOVER_FDS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "handover packet over its limit"));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(HANDOVER_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one packet"));
        }
        rustix::net::sendmsg(&self.socket, &[IoSlice::new(&header)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Waits for the next packet; `None` when the supervisor closed the socket or died.
    pub fn receive(&self) -> io::Result<Option<Packet>> {
        let mut bytes = vec![0_u8; HANDOVER_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(HANDOVER_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
        })?;
        if received.bytes == 0 {
            return Ok(None);
        }
        let fds = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .collect();
        let header: Header = serde_json::from_slice(bytes.get(..received.bytes).unwrap_or_default())?;
        Ok(Some(Packet { label: header.label, transfer: header.transfer, payload: header.payload, fds }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn descriptors_arrive_with_their_label_and_work() {
        let (ours, theirs) = Handover::pair().unwrap();
        let child = Handover { socket: theirs };
        let (mut a, b) = UnixStream::pair().unwrap();
        ours.send("http", 7, serde_json::json!({"port": 1}), &[b.as_fd()]).unwrap();
        let packet = child.receive().unwrap().unwrap();
        assert_eq!((packet.label.as_str(), packet.transfer, packet.fds.len()), ("http", 7, 1));
        let mut received = UnixStream::from(packet.fds.into_iter().next().unwrap());
        received.write_all(b"hi").unwrap();
        drop((received, b));
        let mut text = String::new();
        a.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hi");
    }

    #[test]
    fn a_closed_supervisor_end_is_the_end() {
        let (ours, theirs) = Handover::pair().unwrap();
        drop(ours);
        assert!(Handover { socket: theirs }.receive().unwrap().is_none());
    }

    #[test]
    fn a_packet_over_the_limit_is_refused() {
        let (ours, _theirs) = Handover::pair().unwrap();
        let big = serde_json::Value::String("x".repeat(HANDOVER_BYTES));
        assert!(ours.send("big", 0, big, &[]).is_err());
    }
}
