//! Messages with descriptors over Unix sockets.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};

use crate::{Errno, Result, check};

/// The kernel's limit of descriptors in one message.
pub const MAX_FDS: usize = 253;

/// Room for the control message that carries [`MAX_FDS`] descriptors.
const CONTROL: usize = 1040;

/// A pair of connected sockets that keep message boundaries.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// What was sent over a Unix socket and not yet read by the other side, in bytes of the kernel's memory:
/// 0 when all was read.
pub fn unread(socket: BorrowedFd<'_>) -> Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ writes one int, to which the pointer leads.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ as _, &raw mut bytes) }.into())?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// Sends `bytes` and `fds` as one message.
///
/// On a stream socket fewer bytes may be taken than given; the descriptors go with the first, and
/// the count of bytes taken is returned. At least one byte must be sent when there are
/// descriptors. A closed peer is `Errno::PIPE`, never a signal.
pub fn send_with_fds(
    socket: impl AsFd,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    block: bool,
) -> Result<usize> {
    if fds.len() > MAX_FDS || (bytes.is_empty() && !fds.is_empty()) {
        return Err(Errno::INVAL);
    }
    let mut space = [MaybeUninit::uninit(); CONTROL];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    let mut flags = SendFlags::NOSIGNAL;
    if !block {
        flags |= SendFlags::DONTWAIT;
    }
    loop {
        match sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, flags) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Receives one message (on a stream socket: what is there, up to `buffer`'s length).
///
/// Returns the count of bytes and the descriptors, all close-on-exec. 0 bytes without descriptors
/// mean the peer has closed. A message that did not fit, in bytes or in descriptors, is
/// `Errno::MSGSIZE`; what had come of it is closed. With `block` false and nothing there:
/// `Errno::AGAIN`.
pub fn recv_with_fds(
    socket: impl AsFd,
    buffer: &mut [u8],
    block: bool,
) -> Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); CONTROL];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut flags = RecvFlags::CMSG_CLOEXEC;
    if !block {
        flags |= RecvFlags::DONTWAIT;
    }
    let message = loop {
        let mut slices = [std::io::IoSliceMut::new(buffer)];
        match recvmsg(&socket, &mut slices, &mut control, flags) {
            Err(Errno::INTR) => {}
            result => break result?,
        }
    };
    let mut fds = Vec::new();
    for item in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = item {
            fds.extend(rights);
        }
    }
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Errno::MSGSIZE);
    }
    Ok((message.bytes, fds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_and_descriptors_arrive() {
        let (a, b) = pair().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        assert_eq!(send_with_fds(&a, b"hello", &[write.as_fd()], true).unwrap(), 5);
        drop(write);
        let mut buffer = [0; 16];
        let (count, fds) = recv_with_fds(&b, &mut buffer, true).unwrap();
        assert_eq!(&buffer[..count], b"hello");
        assert_eq!(fds.len(), 1);
        assert!(rustix::io::fcntl_getfd(&fds[0]).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        rustix::io::write(&fds[0], b"x").unwrap();
        assert_eq!(rustix::io::read(&read, &mut buffer).unwrap(), 1);
    }

    #[test]
    fn as_many_as_the_kernel_takes() {
        let (a, b) = pair().unwrap();
        let many = vec![a.as_fd(); MAX_FDS];
        send_with_fds(&a, b"x", &many, true).unwrap();
        let mut buffer = [0; 1];
        assert_eq!(recv_with_fds(&b, &mut buffer, true).unwrap().1.len(), MAX_FDS);
        let more = vec![a.as_fd(); MAX_FDS + 1];
        assert_eq!(send_with_fds(&a, b"x", &more, true), Err(Errno::INVAL));
    }

    #[test]
    fn truncation_is_an_error_and_leaks_nothing() {
        let (a, b) = pair().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        send_with_fds(&a, b"hello", &[write.as_fd()], true).unwrap();
        drop(write);
        let mut buffer = [0; 2];
        assert_eq!(recv_with_fds(&b, &mut buffer, true).unwrap_err(), Errno::MSGSIZE);
        assert_eq!(rustix::io::read(&read, &mut buffer).unwrap(), 0, "the copy was closed");
    }

    #[test]
    fn nothing_there_and_closed_peer() {
        let (a, b) = pair().unwrap();
        let mut buffer = [0; 2];
        assert_eq!(recv_with_fds(&b, &mut buffer, false).unwrap_err(), Errno::AGAIN);
        drop(a);
        assert_eq!(recv_with_fds(&b, &mut buffer, true).unwrap().0, 0);
        assert_eq!(send_with_fds(&b, b"x", &[], true), Err(Errno::PIPE));
    }
}
