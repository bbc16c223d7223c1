//! The host's name servers, lent to a container that cannot reach them: where they listen at the host's loopback addresses.
//!
//! Nothing is parsed: a relay from 127.0.0.11 in the container's namespace to the server, from the host's. Several servers get
//! an address each (127.0.0.11, 127.0.0.12 …), so it stays the container's resolver that chooses among them. The sockets have random
//! ports, reached by rules in the container's namespace: binding port 53 would be in the way of a name server in the container.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};

use linux::netlink::{NetlinkError, Socket};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::Resolver;
use super::config::{MAX_SERVERS, ResolvConf};
use crate::error::{Result, during};
use crate::ports::Protocol;
use crate::proxy::{Relay, serve};
use crate::{namespace, table};

const PORT: u16 = 53;
const BACKLOG: i32 = 64;

/// Relays from a container's 127.0.0.11:53 (and .12, .13) to name servers of the host.
#[derive(Debug)]
pub struct Forwarder {
    listeners: Vec<Listener>,
}

impl Forwarder {
    /// Where the container sees the host's server of a number.
    pub(crate) fn address(index: usize) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, 0, 11 + u8::try_from(index.min(MAX_SERVERS)).unwrap_or(0))
    }

    /// Opens the sockets in the container's namespace and adds the rules there.
    pub fn bind(namespace: BorrowedFd<'_>) -> Result<Forwarder> {
        let failed = || "lend the host's name servers to the container".to_owned();
        namespace::inside(namespace, || {
            let mut listeners = Vec::new();
            let mut redirects = Vec::new();
            for index in 0..MAX_SERVERS {
                let address = Forwarder::address(index);
                for (protocol, kind) in [(Protocol::Udp, SocketType::DGRAM), (Protocol::Tcp, SocketType::STREAM)] {
                    let (socket, to) = listener(address, kind).map_err(during(failed))?;
                    redirects.push(table::Redirect { protocol, address, port: PORT, to });
                    listeners.push(Listener { index, protocol, socket });
                }
            }
            Socket::netfilter()
                .and_then(|mut socket| table::redirect_own(&mut socket, &redirects))
                .map_err(during::<NetlinkError>(failed))?;
            Ok(Forwarder { listeners })
        })
    }

    /// Serves the servers of the resolver's resolv.conf until the process is killed. For a forked, single-threaded child in
    /// the host's network namespace: drops every privilege first, dies with its parent.
    pub fn serve(self, resolver: &Resolver) -> Result<()> {
        let text = super::read(&resolver.resolv_conf).map_err(during(|| "find the host's name servers".to_owned()))?;
        let servers = ResolvConf::parse(&text).servers();
        let relay = |listener: Listener| {
            let target = SocketAddr::new(*servers.get(listener.index)?, PORT);
            Some(Relay { listener: listener.socket, protocol: listener.protocol, target })
        };
        serve(self.listeners.into_iter().filter_map(relay).collect(), None)
    }
}

#[derive(Debug)]
struct Listener {
    index: usize,
    protocol: Protocol,
    socket: OwnedFd,
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
