//! A bridge network of the host: the bridge with its address, forwarding, and our nftables table.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use linux::netlink::{Message, NetlinkError, Socket};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{NetworkError, Result, during};
use crate::link::{self, Route};
use crate::ports::PortSpec;
use crate::table::{FIREWALLD, ForeignDrop};
use crate::{endpoint, filter, namespace, table};

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
/// The longest interface name: IFNAMSIZ without its NUL.
const MAX_INTERFACE_NAME: usize = 15;
/// Far below NFT_NAME_MAXLEN (256); ours are short.
const MAX_TABLE_NAME: usize = 64;

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
        // "ctr" in the upper bytes keeps clear of the small numbers that policy routing is usually done with; the tag
        // sets roots apart (a collision of the lower bytes would only let a stale element of the one serve the other's port).
        let low = if tag.is_empty() { 0 } else { u32::from_str_radix(tag, 16).unwrap_or(0) & 0xff_ffff | 1 };
        let (bridge, table) = match tag {
            "" => ("ctr0".to_owned(), "ctr".to_owned()),
            tag => (format!("ctr-{tag}"), format!("ctr_{tag}")),
        };
        let gateway = first_host(subnet);
        BridgeNetwork { name: "bridge".to_owned(), bridge, table, subnet, gateway, mark: 0x6300_0000 | low }
    }

    fn check(&self) -> Result<()> {
        let invalid = |what, name: &str, reason| NetworkError::InvalidName { what, name: name.to_owned(), reason };
        let ok = |name: &str, max| {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            (1..=max).contains(&name.len()) && name.bytes().all(good) && !name.starts_with('.')
        };
        if !ok(&self.bridge, MAX_INTERFACE_NAME) {
            return Err(invalid("bridge name", &self.bridge, "expected 1 to 15 of a-z A-Z 0-9 - _ ."));
        }
        if !ok(&self.table, MAX_TABLE_NAME) {
            return Err(invalid("table name", &self.table, "expected 1 to 64 of a-z A-Z 0-9 - _ ."));
        }
        if !self.subnet.contains(&self.gateway) {
            return Err(invalid("gateway", &self.gateway.to_string(), "not an address of the network's subnet"));
        }
        Ok(())
    }
}

/// The first address of a subnet that a host may have: the gateway's.
fn first_host(subnet: Ipv4Net) -> Ipv4Addr {
    subnet.hosts().next().unwrap_or(subnet.network())
}

/// Makes sure that the network stands: bridge up with its address and the MTU of the default route's interface,
/// IPv4 forwarding, the table with its chains, maps and masquerading. Does nothing (in some 0.1 ms) where it
/// stands already; safe when any number of processes do it at once. Returns warnings, only where it set something up.
pub fn ensure(network: &BridgeNetwork) -> Result<Vec<String>> {
    let failed = || format!("set up network {} (bridge {})", network.name, network.bridge);
    let mut route = Socket::route().map_err(during(failed))?;
    if stands(&mut route, network).map_err(during(failed))? && forwarding_is_on() {
        return Ok(Vec::new());
    }
    network.check()?;
    make_bridge(&mut route, network)?;
    filter::with(|filter| {
        table::create(filter, &network.table, network.mark)?;
        table::add_bridge(filter, &network.table, &network.bridge)
    })
    .map_err(during(|| format!("set up nftables table {} (does the kernel have nf_tables with nft_socket, nft_fib_inet, nft_nat, nft_masq?)", network.table)))?;
    // Last, when the table protects what becomes reachable by it.
    if !forwarding_is_on() {
        namespace::write_setting(FORWARDING, "1")?;
    }
    forward_warnings(network)
}

fn stands(route: &mut Socket, network: &BridgeNetwork) -> Result<bool, NetlinkError> {
    // The MAC address tells the gateway's (and comes last but for "up"): a bridge left behind by another set-up of this root,
    // with another subnet, is not ready.
    let mac = endpoint::mac_address(network.gateway);
    let ready = link::find(route, &network.bridge)?.is_some_and(|bridge| bridge.up && bridge.mac == Some(mac));
    Ok(ready && filter::with(|filter| table::has_bridge(filter, &network.table, &network.bridge))?)
}

fn forwarding_is_on() -> bool {
    std::fs::read(FORWARDING).is_ok_and(|text| text.first() == Some(&b'1'))
}

/// Creates the bridge, gives it its address, brings it up: each step finds that another process has done it, or does it.
fn make_bridge(socket: &mut Socket, network: &BridgeNetwork) -> Result<()> {
    let name = &network.bridge;
    let mac = endpoint::mac_address(network.gateway);
    let failed = |what: &str| format!("{what} bridge {name} (network {}, {})", network.name, network.subnet);
    let bridge = match link::find(socket, name).map_err(during(|| failed("look for")))? {
        Some(bridge) => bridge,
        None => {
            let mtu = uplink_mtu(socket).map_err(during(|| failed("find the MTU for")))?;
            let create = link::new_bridge(name, mac, mtu);
            fine_if_exists(socket.request(&mut [create])).map_err(during(|| failed("create")))?;
            link::find(socket, name)
                .and_then(|found| found.ok_or(NetlinkError::Refused { index: 0, errno: Errno::NODEV }))
                .map_err(during(|| failed("create")))?
        }
    };
    // The address goes first: a bridge that is up counts as ready.
    let request = |socket: &mut Socket, message: Message| fine_if_exists(socket.request(&mut [message]));
    request(socket, link::new_address(bridge.index, network.gateway, network.subnet))
        .map_err(during(|| failed("give its address to")))?;
    request(socket, link::set_mac_and_up(bridge.index, mac)).map_err(during(|| failed("bring up")))
}

fn fine_if_exists(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(error) if error.errno() == Some(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// The MTU of the interface that the default route leaves by: a container's larger packets would need to be split, or
/// – where the way back of "too big" messages is filtered – would vanish. None without a default route.
fn uplink_mtu(socket: &mut Socket) -> Result<Option<u32>, NetlinkError> {
    let routes = link::routes(socket)?;
    let is_default = |route: &&Route| route.main && route.destination.prefix_len() == 0;
    let best = routes.iter().filter(is_default).min_by_key(|route| route.priority);
    match best.and_then(|route| route.interface) {
        Some(index) => Ok(link::find_index(socket, index)?.map(|link| link.mtu)),
        None => Ok(None),
    }
}

/// The first subnet of docker's pool (172.17/16 – 172.31/16, then 192.168.0/20 – 192.168.240/20) that collides neither with
/// `taken` (the subnets of our other networks) nor with a route of this host.
pub fn choose_subnet(taken: &[Ipv4Net]) -> Result<Ipv4Net> {
    let routes = Socket::route()
        .and_then(|mut socket| link::routes(&mut socket))
        .map_err(during(|| "list the host's routes".to_owned()))?;
    // Half-internet routes (0.0.0.0/1, as VPNs set them) are defaults, not somebody's subnet.
    let routed = routes.into_iter().map(|route| route.destination).filter(|destination| destination.prefix_len() > 4);
    let taken: Vec<Ipv4Net> = taken.iter().copied().chain(routed).collect();
    first_free(&taken).ok_or(NetworkError::NoSubnet)
}

fn first_free(taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    let large = (17..=31).map(|second| (Ipv4Addr::new(172, second, 0, 0), 16));
    let small = (0..16).map(|block| (Ipv4Addr::new(192, 168, block * 16, 0), 20));
    let overlap = |a: &Ipv4Net, b: &Ipv4Net| a.contains(&b.network()) || b.contains(&a.network());
    large
        .chain(small)
        .filter_map(|(address, len)| Ipv4Net::new(address, len).ok())
        .find(|candidate| !taken.iter().any(|other| overlap(candidate, other)))
}

/// What in somebody else's firewall keeps our containers from being reached: a forward chain that drops.
/// Our own accept cannot override it (every table's chain must let a packet pass), so users are told.
pub fn forward_warnings(network: &BridgeNetwork) -> Result<Vec<String>> {
    let drops = filter::with(|filter| table::foreign_drops(filter, &network.table))
        .map_err(during(|| "list the firewall's chains".to_owned()))?;
    Ok(drops.into_iter().map(|drop| advice(&drop, &network.bridge)).collect())
}

fn advice(drop: &ForeignDrop, bridge: &str) -> String {
    let ForeignDrop { family, table, chain } = drop;
    let command = match (*family, table.as_str()) {
        (_, FIREWALLD) => {
            format!("firewall-cmd --permanent --zone=trusted --add-interface={bridge} && firewall-cmd --reload")
        }
        ("ip", "filter") => {
            format!("iptables -I {chain} -i {bridge} -j ACCEPT && iptables -I {chain} -o {bridge} -j ACCEPT")
        }
        _ => format!(
            "nft insert rule {family} {table} {chain} iifname {bridge} accept && \
             nft insert rule {family} {table} {chain} oifname {bridge} accept"
        ),
    };
    format!(
        "the host's firewall (chain {chain} of table {family} {table}) stops forwarded packets, so containers may be cut off \
         the network: allow the bridge with `{command}`"
    )
}

/// Writes the root's table anew, in one transaction: after somebody flushed the firewall, or for what a new version of ours has
/// in it. `networks` are all of the root's, `ports` what is published now. Running containers notice nothing.
pub fn reload(networks: &[BridgeNetwork], ports: &[(Ipv4Addr, &[PortSpec])]) -> Result<()> {
    let Some(BridgeNetwork { table, mark, .. }) = networks.first() else { return Ok(()) };
    let bridges: Vec<&str> = networks.iter().map(|network| network.bridge.as_str()).collect();
    filter::with(|filter| table::rewrite(filter, table, *mark, &bridges, ports))
        .map_err(during(|| format!("rewrite nftables table {table}")))
}

/// Removes the bridge, and – when `table` says so: the root's last network goes – the nftables table. What is gone already is fine.
pub fn remove(network: &BridgeNetwork, table: bool) -> Result<()> {
    let failed = || format!("remove network {} (bridge {})", network.name, network.bridge);
    let mut route = Socket::route().map_err(during(failed))?;
    match route.request(&mut [link::delete(&network.bridge)]) {
        Err(error) if error.errno() == Some(Errno::NODEV) => {}
        other => other.map_err(during(failed))?,
    }
    filter::with(|filter| match table {
        true => table::delete(filter, &network.table),
        false => table::delete_bridge(filter, &network.table, &network.bridge),
    })
    .map_err(during(failed))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn subnets_of_the_pool_are_taken_in_order_and_never_overlap() {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Ipv4Net>>();
        let free = |texts: &[&str]| first_free(&nets(texts)).map(|net| net.to_string());
        assert_eq!(free(&[]).unwrap(), "172.17.0.0/16");
        assert_eq!(free(&["172.17.0.0/16", "172.18.3.4/32"]).unwrap(), "172.19.0.0/16");
        assert_eq!(free(&["172.16.0.0/12"]).unwrap(), "192.168.0.0/20");
        assert_eq!(free(&["172.16.0.0/12", "192.168.1.0/24"]).unwrap(), "192.168.16.0/20");
        assert_eq!(free(&["172.0.0.0/8", "192.168.0.0/16"]), None);
    }

    #[test]
    fn roots_have_their_own_names() {
        let subnet = "172.17.0.0/16".parse().unwrap();
        let default = BridgeNetwork::default_for("", subnet);
        assert_eq!((&default.bridge[..], &default.table[..], default.mark), ("ctr0", "ctr", 0x6300_0000));
        assert_eq!(default.gateway, Ipv4Addr::new(172, 17, 0, 1));
        let other = BridgeNetwork::default_for("ab12cd", subnet);
        assert_eq!((&other.bridge[..], &other.table[..]), ("ctr-ab12cd", "ctr_ab12cd"));
        assert_ne!(other.mark, default.mark);
        other.check().unwrap();
    }

    #[test]
    fn names_that_the_kernel_would_take_for_something_else_are_refused() {
        let good = BridgeNetwork::default_for("", "172.17.0.0/16".parse().unwrap());
        for bridge in ["", "a/b", "0123456789abcdef", "..", "a b", "a%d", "a\n"] {
            assert!(BridgeNetwork { bridge: bridge.to_owned(), ..good.clone() }.check().is_err(), "{bridge:?}");
        }
        assert!(BridgeNetwork { gateway: Ipv4Addr::new(10, 0, 0, 1), ..good.clone() }.check().is_err());
    }
}
