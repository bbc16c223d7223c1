//! Publishing: listeners on the host, elements in the nftables maps.
//!
//! The listener is the truth: who holds it owns the port, and the kernel frees it whatever becomes of its holder. The map
//! element only follows it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use linux::netlink::{NetlinkError, Socket};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::bridge::BridgeNetwork;
use crate::error::{NetworkError, Result, during};
use crate::ports::{PortRange, PortRequest, PortSpec, Protocol};
use crate::{conntrack, filter, link, privileges, random, table};

/// Connections that wait for the proxy; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 1024;
/// Where the kernel does not say: its own default of ip_local_port_range.
const DEFAULT_LOCAL_PORTS: PortRange = PortRange { first: 32768, last: 60999 };
const LOCAL_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Random ports tried before the range counts as full.
const RANDOM_TRIES: usize = 256;
/// Ports for which the usual limit of open files (1024) is enough.
const MANY_PORTS: usize = 256;

/// A published port with the sockets that hold it. Dropping it frees the port.
#[derive(Debug)]
pub struct Published {
    /// What is published, with its final port.
    pub spec: PortSpec,
    /// The listening sockets (two for "all addresses": IPv4 and IPv6; none for SCTP). Non-blocking, close-on-exec.
    pub listeners: Vec<OwnedFd>,
}

/// The netlink socket of a removal. Closing it right after makes the kernel wait for a grace period (8–24 ms), so
/// whoever is in a hurry drops it late.
#[derive(Debug)]
pub struct Lingering(#[allow(dead_code)] Option<OwnedFd>);

/// Publishes ports of a container: binds the listeners, then adds the map elements in one transaction.
/// All or nothing: on an error no port stays bound.
pub fn publish(network: &BridgeNetwork, container: Ipv4Addr, requests: &[PortRequest]) -> Result<Vec<Published>> {
    let published = bind_all(requests, Some(network.mark))?;
    if published.is_empty() {
        return Ok(published);
    }
    let specs: Vec<PortSpec> = published.iter().map(|one| one.spec.clone()).collect();
    let failed = || format!("publish ports of {container} in nftables table {}", network.table);
    filter::with(|filter| {
        table::add_ports(filter, &network.table, container, &specs)?;
        forget_old_flows(filter, &specs)
    })
    .map_err(during(failed))?;
    Ok(published)
}

/// Binds the listeners alone, for a container that no rules lead to: all that comes is served by a proxy.
pub fn listen(requests: &[PortRequest]) -> Result<Vec<Published>> {
    bind_all(requests, None)
}

fn bind_all(requests: &[PortRequest], mark: Option<u32>) -> Result<Vec<Published>> {
    if requests.len() > MANY_PORTS {
        privileges::raise_open_files();
    }
    // Fixed ports first, so that a random one never takes what another request names.
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|&index| requests.get(index).map(|request| request.host_ports.map_or(u32::MAX, width)));
    let mut published = Vec::with_capacity(requests.len());
    for index in order {
        if let Some(request) = requests.get(index) {
            published.push((index, bind(request, mark)?));
        }
    }
    published.sort_by_key(|(index, _)| *index);
    Ok(published.into_iter().map(|(_, one)| one).collect())
}

/// Removes the map elements and the connection tracking of what was published; the listeners are freed by dropping
/// [`Published`]. Only needs the specs, so a later command can clear up for a monitor that was lost.
pub fn unpublish(network: &BridgeNetwork, container: Ipv4Addr, specs: &[PortSpec]) -> Result<Lingering> {
    if specs.is_empty() {
        return Ok(Lingering(None));
    }
    let failed = || format!("withdraw ports of {container} from nftables table {}", network.table);
    filter::with(|filter| {
        table::delete_ports(filter, &network.table, container, specs)?;
        let mut udp = specs.iter().filter(|spec| spec.protocol == Protocol::Udp);
        udp.try_for_each(|spec| conntrack::forget_from(filter, container, spec.container_port))
    })
    .map_err(during(failed))?;
    Ok(Lingering(filter::release()))
}

/// Flows to the ports that began before: they would go on to where they went.
fn forget_old_flows(filter: &mut Socket, specs: &[PortSpec]) -> Result<(), NetlinkError> {
    let mut own = None;
    for spec in specs.iter().filter(|spec| spec.protocol == Protocol::Udp) {
        match spec.host_ip {
            Some(IpAddr::V6(_)) => {}
            Some(IpAddr::V4(address)) if !address.is_unspecified() => {
                conntrack::forget_to(filter, &[address], spec.host_port)?;
            }
            _ => {
                let own = match &own {
                    Some(own) => own,
                    None => own.insert(link::addresses(&mut Socket::route()?)?),
                };
                conntrack::forget_to(filter, own, spec.host_port)?;
            }
        }
    }
    Ok(())
}

fn width(range: PortRange) -> u32 {
    u32::from(range.last - range.first)
}

/// Binds what a request asks for: the first free port of its range, or a random one.
fn bind(request: &PortRequest, mark: Option<u32>) -> Result<Published> {
    let attempt = |port| {
        let listeners = listeners(request.host_ip, port, request.protocol, mark)?;
        let spec = PortSpec {
            host_ip: request.host_ip,
            host_port: port,
            container_port: request.container_port,
            protocol: request.protocol,
        };
        Ok(Published { spec, listeners })
    };
    let (range, tries): (PortRange, Box<dyn Iterator<Item = Result<u16>>>) = match request.host_ports {
        Some(range) if range.first == range.last => return attempt(range.first),
        Some(range) => (range, Box::new(range.iter().map(Ok))),
        None => {
            let range = local_ports();
            let pick = move |_| Ok(range.first + u16::try_from(random::u32()? % (width(range) + 1)).unwrap_or(0));
            (range, Box::new((0..RANDOM_TRIES).map(pick)))
        }
    };
    for port in tries {
        match attempt(port?) {
            Err(NetworkError::PortTaken { .. }) => {}
            other => return other,
        }
    }
    Err(NetworkError::RangeTaken { first: range.first, last: range.last })
}

/// The first port that an ordinary user may listen on.
fn first_free_port() -> u16 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

/// The range that the kernel takes ports for outgoing connections from, and docker random published ones.
fn local_ports() -> PortRange {
    let read = || {
        let text = std::fs::read_to_string(LOCAL_PORTS).ok()?;
        let mut numbers = text.split_ascii_whitespace().map(|word| word.parse::<u16>().ok());
        let (first, last) = (numbers.next()??, numbers.next()??);
        (1 <= first && first <= last).then_some(PortRange { first, last })
    };
    read().unwrap_or(DEFAULT_LOCAL_PORTS)
}

/// The sockets of one port. None for SCTP, which few kernels have sockets for: it is rewritten, never served.
fn listeners(address: Option<IpAddr>, port: u16, protocol: Protocol, mark: Option<u32>) -> Result<Vec<OwnedFd>> {
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
        Protocol::Sctp => return Ok(Vec::new()),
    };
    let failed = |at: IpAddr, call: &'static str, errno: Errno| match errno {
        Errno::ADDRINUSE => NetworkError::PortTaken { address, port },
        Errno::ACCESS => NetworkError::PortReserved { port, first: first_free_port() },
        Errno::ADDRNOTAVAIL => NetworkError::NoSuchAddress { address: at },
        errno => NetworkError::Kernel {
            operation: format!("{call} for published port {}/{protocol}", SocketAddr::new(at, port)),
            source: errno.into(),
        },
    };
    let open = |at: IpAddr| listener(SocketAddr::new(at, port), kind, mark).map_err(|(call, e)| failed(at, call, e));
    match address {
        Some(address) => Ok(vec![open(address)?]),
        None => {
            let mut all = vec![open(Ipv4Addr::UNSPECIFIED.into())?];
            match listener(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port), kind, mark) {
                Ok(listener) => all.push(listener),
                // A host without IPv6.
                Err((_, Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)) => {}
                Err((call, errno)) => return Err(failed(Ipv6Addr::UNSPECIFIED.into(), call, errno)),
            }
            Ok(all)
        }
    }
}

type Failed = (&'static str, Errno);

fn listener(address: SocketAddr, kind: SocketType, mark: Option<u32>) -> Result<OwnedFd, Failed> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, None).map_err(|errno| ("socket", errno))?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true).map_err(|errno| ("IPV6_V6ONLY", errno))?;
    }
    if let Some(mark) = mark {
        linux::socket::set_mark(&socket, mark).map_err(|error| ("SO_MARK", error.errno))?;
    }
    if kind == SocketType::DGRAM {
        linux::socket::report_local_address(&socket, address.is_ipv6()).map_err(|error| (error.call, error.errno))?;
    } else {
        // Connections of an earlier listener in TIME_WAIT don't keep the port; for UDP the option would allow a second listener.
        sockopt::set_socket_reuseaddr(&socket, true).map_err(|errno| ("SO_REUSEADDR", errno))?;
    }
    rustix::net::bind(&socket, &address).map_err(|errno| ("bind", errno))?;
    if kind == SocketType::STREAM {
        rustix::net::listen(&socket, BACKLOG).map_err(|errno| ("listen", errno))?;
    }
    Ok(socket)
}
