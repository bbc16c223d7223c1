//! The host's name servers, lent to a container that cannot reach them: where they listen at the host's loopback addresses.
//!
//! Nothing is parsed: a relay from 127.0.0.11 in the container's namespace to the server, from the host's. Several servers get
//! an address each (127.0.0.11, 127.0.0.12 …), so it stays the container's resolver that chooses among them. The sockets have random
//! ports, reached by rules in the container's namespace: binding port 53 would be in the way of a name server in the container.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use linux::netlink::{NetlinkError, Socket};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::config::MAX_SERVERS;
use crate::error::{Result, during};
use crate::ports::Protocol;
use crate::proxy::{Relay, serve};
use crate::{namespace, table};

const PORT: u16 = 53;
const BACKLOG: i32 = 64;

/// Relays from a container's 127.0.0.11:53 (and .12, .13) to name servers of the host.
#[derive(Debug)]
pub struct Forwarder {
    relays: Vec<Relay>,
}

impl Forwarder {
    /// Where the container sees the host's server of a number.
    pub(crate) fn address(index: usize) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, 0, 11 + u8::try_from(index.min(MAX_SERVERS)).unwrap_or(0))
    }

    /// Opens the sockets in the container's namespace and adds the rules there. `servers` are
    /// [`crate::ContainerFiles::forward_to`].
    pub fn bind(namespace: BorrowedFd<'_>, servers: &[IpAddr]) -> Result<Forwarder> {
        let failed = || "lend the host's name servers to the container".to_owned();
        namespace::inside(namespace, || {
            let mut relays = Vec::new();
            let mut redirects = Vec::new();
            for (index, server) in servers.iter().take(MAX_SERVERS).enumerate() {
                let target = SocketAddr::new(*server, PORT);
                for (protocol, kind) in [(Protocol::Udp, SocketType::DGRAM), (Protocol::Tcp, SocketType::STREAM)] {
                    let (listener, port) = listener(Forwarder::address(index), kind).map_err(during(failed))?;
                    redirects.push(table::Redirect {
                        protocol,
                        address: Forwarder::address(index),
                        port: PORT,
                        to: port,
                    });
                    relays.push(Relay { listener, protocol, target });
                }
            }
            Socket::netfilter()
                .and_then(|mut socket| table::redirect_own(&mut socket, &redirects))
                .map_err(during::<NetlinkError>(failed))?;
            Ok(Forwarder { relays })
        })
    }

    /// The sockets to wait at: when one is readable, a child is to [`Forwarder::serve`].
    pub fn listeners(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.relays.iter().map(|relay| relay.listener.as_fd())
    }

    /// Serves, as [`crate::serve_proxy`] does: in a forked, single-threaded child that runs in the host's network namespace; drops
    /// every privilege first, dies with its parent, returns after a minute of silence.
    pub fn serve(self) -> Result<()> {
        serve(self.relays)
    }
}

fn listener(address: Ipv4Addr, kind: SocketType) -> Result<(OwnedFd, u16), Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET, kind, flags, None)?;
    rustix::net::bind(&socket, &SocketAddr::new(address.into(), 0))?;
    if kind == SocketType::STREAM {
        rustix::net::listen(&socket, BACKLOG)?;
    }
    let port = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?.port();
    Ok((socket, port))
}
