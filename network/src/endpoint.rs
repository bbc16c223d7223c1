//! A container's end: its network namespace, the veth pair, address and default route.

use std::net::Ipv4Addr;
use std::os::fd::{BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::bridge::BridgeNetwork;
use crate::error::Result;

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
pub fn new_namespace() -> Result<OwnedFd> {
    todo!()
}

/// Joins a namespace (of [`new_namespace`]) to the network: veth pair, address, default route.
/// The pair dies with the namespace; nothing is to be undone.
pub fn connect(namespace: BorrowedFd<'_>, network: &BridgeNetwork, endpoint: &Endpoint) -> Result<()> {
    todo!("{namespace:?}{network:?}{endpoint:?}")
}
