//! Publishing: listeners on the host, elements in the nftables maps.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use crate::bridge::BridgeNetwork;
use crate::error::Result;
use crate::ports::{PortRequest, PortSpec};

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
    todo!("{network:?}{container}{requests:?}")
}

/// Removes the map elements and the connection tracking of what was published; the listeners are freed by dropping
/// [`Published`]. Only needs the specs, so a later command can clear up for a monitor that was lost.
pub fn unpublish(network: &BridgeNetwork, container: Ipv4Addr, specs: &[PortSpec]) -> Result<Lingering> {
    todo!("{network:?}{container}{specs:?}")
}
