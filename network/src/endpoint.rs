//! A container's end: its network namespace, the veth pair, address and default route.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use linux::netlink::Socket;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::bridge::BridgeNetwork;
use crate::error::{NetworkError, Result, during};
use crate::{link, namespace, random};

/// The interface's name in the container.
const INSIDE: &str = "eth0";
/// A name for the host's end is random; the chance that one of as many tries is free fails only with the machine.
const NAME_TRIES: usize = 8;

/// A container's place in a network. The interface in the container is `eth0`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The container's id, for messages.
    pub container: String,
    /// Its address, out of the network's subnet. Its MAC address derives from it.
    pub address: Ipv4Addr,
}

/// The MAC address that belongs to a container's address: `02:42:` and the four bytes, as docker has it. Locally
/// administered, unique in the subnet, and the same each time, so no neighbour's ARP cache goes stale.
pub fn mac_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// A new network namespace with its loopback interface up and docker's two sysctls set (unprivileged ports from 0,
/// ping for all groups). The calling thread is back in its own namespace when this returns; other threads never leave it.
///
/// It belongs to the user namespace `owner`, else to the caller's; with one it is for single-threaded callers only.
pub fn new_namespace(owner: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    namespace::create(owner, || {
        namespace::write_setting("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")?;
        let ping = "/proc/sys/net/ipv4/ping_group_range";
        if linux::userns::is_initial_now() {
            namespace::write_setting(ping, "0 2147483647")?;
        } else {
            // Groups of this user namespace alone; where they are in no order outside, it is root alone who can ping.
            let groups: u32 = linux::userns::group_map().iter().fold(0, |sum, range| sum.saturating_add(range.count));
            let _not_all = namespace::write_setting(ping, &format!("0 {}", groups.saturating_sub(1)));
        }
        Socket::route()
            .and_then(|mut socket| socket.request(&mut [link::set_index_up(link::LOOPBACK)]))
            .map_err(during(|| "bring up the loopback interface".to_owned()))
    })
}

/// Joins a namespace (of [`new_namespace`]) to the network: veth pair, address, default route.
/// The pair dies with the namespace; nothing is to be undone.
pub fn connect(namespace: BorrowedFd<'_>, network: &BridgeNetwork, endpoint: &Endpoint) -> Result<()> {
    // Bridge networks have no IPv6 (yet): without this each container would give itself a link-local address and
    // tell all others. A kernel without IPv6 has no such file.
    let mut inside = namespace::inside(namespace, || {
        if let Err(error) = namespace::write_setting("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1") {
            ignore_missing(error)?;
        }
        Socket::route().map_err(during(|| "open a netlink socket in the container's namespace".to_owned()))
    })?;
    plug(namespace, network, endpoint)?;
    let failed = |what: &str| format!("{what} {} to container {}", endpoint.address, endpoint.container);
    let index = link::find(&mut inside, INSIDE)
        .map_err(during(|| failed("give the address")))?
        .ok_or_else(|| during(|| failed("give the address"))(Errno::NODEV))?
        .index;
    inside
        .request(&mut [
            link::new_address(index, endpoint.address, network.subnet),
            link::set_index_up(index),
            link::default_route(index, network.gateway),
        ])
        .map_err(during(|| failed("give the address and default route")))
}

/// Creates the veth pair with its one end on the bridge, its other end in the namespace.
fn plug(namespace: BorrowedFd<'_>, network: &BridgeNetwork, endpoint: &Endpoint) -> Result<()> {
    let failed = || format!("connect container {} to bridge {}", endpoint.container, network.bridge);
    let mut socket = Socket::route().map_err(during(failed))?;
    let bridge = link::find(&mut socket, &network.bridge)
        .map_err(during(failed))?
        .ok_or_else(|| during(failed)(Errno::NODEV))?;
    let namespace = u32::try_from(namespace.as_raw_fd()).map_err(|_| during(failed)(Errno::BADF))?;
    for attempt in 1.. {
        let name = format!("veth{:08x}", random::u32()?);
        let veth = link::Veth {
            name: &name,
            master: bridge.index,
            mtu: bridge.mtu,
            inside_name: INSIDE,
            inside_mac: mac_address(endpoint.address),
            namespace,
        };
        match socket.request(&mut [link::new_veth(&veth), link::set_up_port(&name)]) {
            Err(error) if error.errno() == Some(Errno::EXIST) && attempt < NAME_TRIES => {}
            Err(error) if error.errno() == Some(Errno::XFULL) => {
                let source =
                    std::io::Error::other("it has the 1023 containers that a bridge can have: use another network");
                return Err(NetworkError::Kernel { operation: failed(), source });
            }
            other => return other.map_err(during(failed)),
        }
    }
    Ok(())
}

fn ignore_missing(error: NetworkError) -> Result<()> {
    match &error {
        NetworkError::Kernel { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}
