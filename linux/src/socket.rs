//! Socket calls that the standard library lacks: marks, the local address of a datagram, and file descriptors as messages.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket as nix_socket;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, sockopt};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

use crate::CallError;

/// The most descriptors in one message.
pub const MAX_FDS: usize = 16;

fn errno(error: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(error as i32)
}

/// SO_MARK: the number that firewall rules know the socket (and its packets) by. Needs CAP_NET_ADMIN (or, since 5.17, CAP_NET_RAW).
pub fn set_mark(socket: impl AsFd, mark: u32) -> Result<(), CallError> {
    nix_socket::setsockopt(&socket.as_fd(), sockopt::Mark, &mark)
        .map_err(|error| CallError::new("setsockopt", "SO_MARK", errno(error)))
}

/// Has each datagram of a UDP socket tell the local address that it was sent to (IP_PKTINFO, IPV6_RECVPKTINFO).
pub fn report_local_address(socket: impl AsFd, ipv6: bool) -> Result<(), CallError> {
    let socket = socket.as_fd();
    if ipv6 {
        nix_socket::setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)
            .map_err(|error| CallError::new("setsockopt", "IPV6_RECVPKTINFO", errno(error)))
    } else {
        nix_socket::setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)
            .map_err(|error| CallError::new("setsockopt", "IP_PKTINFO", errno(error)))
    }
}

/// The local end of a datagram: its address, and the interface where that is needed to name it (link-local IPv6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalEnd {
    /// The address that the datagram was sent to, or is to be sent from.
    pub address: IpAddr,
    /// The interface's index, 0 for whichever the routes say.
    pub interface: u32,
}

/// A datagram's length, its sender and the local end. `local` is None where the kernel did not say.
#[derive(Clone, Copy, Debug)]
pub struct Datagram {
    /// Bytes in the buffer; a longer datagram was cut.
    pub len: usize,
    /// Who sent it.
    pub peer: SocketAddr,
    /// Whom it was sent to.
    pub local: Option<LocalEnd>,
}

/// Receives a datagram of a socket prepared by [`report_local_address`], without waiting.
pub fn receive_datagram(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Datagram, CallError> {
    let fail = |errno| CallError::new("recvmsg", "UDP", errno);
    let mut control = nix::cmsg_space!(libc::in6_pktinfo);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = nix_socket::recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )
    .map_err(|error| fail(errno(error)))?;
    let peer = message.address.as_ref().and_then(to_std).ok_or_else(|| fail(Errno::AFNOSUPPORT))?;
    let mut local = None;
    for item in message.cmsgs().map_err(|error| fail(errno(error)))? {
        match item {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                let address = IpAddr::from(u32::from_be(info.ipi_spec_dst.s_addr).to_be_bytes());
                local = Some(LocalEnd { address, interface: 0 });
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                let address = std::net::Ipv6Addr::from(info.ipi6_addr.s6_addr);
                let interface = if address.is_unicast_link_local() { info.ipi6_ifindex } else { 0 };
                local = Some(LocalEnd { address: address.into(), interface });
            }
            _ => {}
        }
    }
    Ok(Datagram { len: message.bytes, peer, local })
}

/// Sends a datagram from a given local address of an unconnected socket, without waiting.
pub fn send_datagram(
    socket: BorrowedFd<'_>,
    data: &[u8],
    peer: SocketAddr,
    local: Option<LocalEnd>,
) -> Result<(), CallError> {
    let slices = [IoSlice::new(data)];
    let peer = SockaddrStorage::from(peer);
    let raw = socket.as_raw_fd();
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let sent = match local.map(|end| (end.address, end.interface)) {
        None => nix_socket::sendmsg(raw, &slices, &[], flags, Some(&peer)),
        Some((IpAddr::V4(address), interface)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: i32::try_from(interface).unwrap_or(0),
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            nix_socket::sendmsg(raw, &slices, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&peer))
        }
        Some((IpAddr::V6(address), interface)) => {
            let info =
                libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: address.octets() }, ipi6_ifindex: interface };
            nix_socket::sendmsg(raw, &slices, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&peer))
        }
    };
    sent.map(|_| ()).map_err(|error| CallError::new("sendmsg", "UDP", errno(error)))
}

fn to_std(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::V4(SocketAddrV4::from(*v4)));
    }
    address.as_sockaddr_in6().map(|v6| SocketAddr::V6(SocketAddrV6::from(*v6)))
}

/// Sends bytes (at least one: a stream carries descriptors only with data) and descriptors over a Unix socket.
pub fn send_fds(socket: impl AsFd, data: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, CallError> {
    let fail = |errno| CallError::new("sendmsg", "SCM_RIGHTS", errno);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if data.is_empty() || (!fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds))) {
        return Err(fail(Errno::INVAL));
    }
    let slices = [IoSlice::new(data)];
    rustix::io::retry_on_intr(|| rustix::net::sendmsg(&socket, &slices, &mut control, SendFlags::NOSIGNAL))
        .map_err(fail)
}

/// Receives bytes and the descriptors that came with them, close-on-exec. More than [`MAX_FDS`] are an error (and are closed).
pub fn receive_fds(socket: impl AsFd, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), CallError> {
    let fail = |errno| CallError::new("recvmsg", "SCM_RIGHTS", errno);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::io::retry_on_intr(|| {
        let mut slices = [IoSliceMut::new(buffer)];
        rustix::net::recvmsg(&socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)
    })
    .map_err(fail)?;
    let mut fds = Vec::new();
    for item in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = item {
            fds.extend(rights);
        }
    }
    if message.flags.contains(rustix::net::ReturnFlags::CTRUNC) {
        return Err(fail(Errno::TOOBIG));
    }
    Ok((message.bytes, fds))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;
    use std::net::UdpSocket;
    use std::os::unix::net::UnixStream;

    #[test]
    fn descriptors_cross_a_socket() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        send_fds(&ours, b"x", &[writer.as_fd()]).unwrap();
        drop(writer);
        let mut buffer = [0; 8];
        let (len, mut fds) = receive_fds(&theirs, &mut buffer).unwrap();
        assert_eq!((len, fds.len()), (1, 1));
        assert!(rustix::io::fcntl_getfd(&fds[0]).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        std::fs::File::from(fds.pop().unwrap()).write_all(b"hello").unwrap();
        assert_eq!(std::io::read_to_string(reader).unwrap(), "hello");
    }

    #[test]
    fn a_reply_comes_from_the_address_that_was_asked() {
        let server = UdpSocket::bind("0.0.0.0:0").unwrap();
        report_local_address(&server, false).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let target = SocketAddr::from(([127, 0, 0, 77], server.local_addr().unwrap().port()));
        client.send_to(b"ping", target).unwrap();
        rustix::event::poll(
            &mut [rustix::event::PollFd::new(&server, rustix::event::PollFlags::IN)],
            Some(&rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 }),
        )
        .unwrap();
        let mut buffer = [0; 64];
        let got = receive_datagram(server.as_fd(), &mut buffer).unwrap();
        assert_eq!((got.len, got.peer), (4, client.local_addr().unwrap()));
        assert_eq!(got.local, Some(LocalEnd { address: target.ip(), interface: 0 }));
        send_datagram(server.as_fd(), b"pong", got.peer, got.local).unwrap();
        assert_eq!(client.recv_from(&mut buffer).unwrap(), (4, target));
    }
}
