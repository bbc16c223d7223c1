//! A bridge network of the host: the bridge with its address, forwarding, and our nftables table.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// A bridge network: one bridge, one subnet, one place in the root's nftables table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeNetwork {
    /// The network's name as users know it (`bridge` for the default one).
    pub name: String,
    /// The bridge's interface name, at most 15 bytes (`ctr0`).
    pub bridge: String,
    /// The nftables table (family inet), shared by all networks of one engine root (`ctr`).
    pub table: String,
    /// The containers' addresses.
    pub subnet: Ipv4Net,
    /// The bridge's own address, the containers' default route.
    pub gateway: Ipv4Addr,
    /// The SO_MARK of our listeners: the same for all networks of one root, another for each root.
    pub mark: u32,
}

impl BridgeNetwork {
    /// The default network of a root. `tag` is empty for the default root, else six hex digits of its hash.
    pub fn default_for(tag: &str, subnet: Ipv4Net) -> BridgeNetwork {
        todo!("{tag}{subnet}")
    }
}

/// Makes sure that the network stands: bridge up with its address and the MTU of the default route's interface,
/// IPv4 forwarding, the table with its chains, maps and masquerading. Does nothing (in some 0.1 ms) where it
/// stands already; safe when any number of processes do it at once. Returns warnings, only where it set something up.
pub fn ensure(network: &BridgeNetwork) -> Result<Vec<String>> {
    todo!("{network:?}")
}

/// The first subnet of docker's pool (172.17/16 – 172.31/16, then 192.168.0/20 – 192.168.240/20) that collides neither with
/// `taken` (the subnets of our other networks) nor with a route of this host.
pub fn choose_subnet(taken: &[Ipv4Net]) -> Result<Ipv4Net> {
    todo!("{taken:?}")
}

/// What in somebody else's firewall keeps our containers from being reached: a forward chain that drops.
/// Our own accept cannot override it (every table's chain must let a packet pass), so users are told.
pub fn forward_warnings(network: &BridgeNetwork) -> Result<Vec<String>> {
    todo!("{network:?}")
}

/// Removes the bridge, and – when `table` says so: the root's last network goes – the nftables table. What is gone already is fine.
pub fn remove(network: &BridgeNetwork, table: bool) -> Result<()> {
    todo!("{network:?}{table}")
}
