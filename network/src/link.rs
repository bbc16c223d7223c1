//! rtnetlink: interfaces, addresses and routes, as far as containers need them.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use linux::netlink::{CREATE, DUMP, EXCLUSIVE, Message, NetlinkError, Socket, attribute};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_MULTIPATH: u16 = 9;

const AF_INET: u8 = 2;
const AF_INET6: u16 = 10;
const IFF_UP: u32 = 1;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;

/// The lengths of the family headers before the attributes.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ROUTE_HEADER: usize = 12;

/// The index of the loopback interface: always the namespace's first.
pub(crate) const LOOPBACK: u32 = 1;

/// An interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) up: bool,
    pub(crate) mtu: u32,
    pub(crate) mac: Option<[u8; 6]>,
}

/// A route of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) destination: Ipv4Net,
    pub(crate) interface: Option<u32>,
    pub(crate) priority: u32,
    pub(crate) main: bool,
}

fn link_header(index: u32, up: bool) -> [u8; LINK_HEADER] {
    let mut header = [0; LINK_HEADER];
    let flags = if up { IFF_UP } else { 0 };
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

fn u32_of(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
}

fn address_of(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}

fn parse_link(payload: &[u8]) -> Option<Link> {
    let flags = u32_of(payload.get(8..)?)?;
    let attributes = payload.get(LINK_HEADER..)?;
    let mtu = attribute(attributes, IFLA_MTU).and_then(u32_of)?;
    let mac = attribute(attributes, IFLA_ADDRESS).and_then(|mac| mac.try_into().ok());
    Some(Link { index: u32_of(payload.get(4..)?)?, up: flags & IFF_UP != 0, mtu, mac })
}

/// The interface of a name, or None.
pub(crate) fn find(socket: &mut Socket, name: &str) -> Result<Option<Link>, NetlinkError> {
    let mut message = Message::new(RTM_GETLINK, 0, &link_header(0, false));
    message.put_str(IFLA_IFNAME, name);
    get_link(socket, message)
}

/// The interface of an index, or None.
pub(crate) fn find_index(socket: &mut Socket, index: u32) -> Result<Option<Link>, NetlinkError> {
    get_link(socket, Message::new(RTM_GETLINK, 0, &link_header(index, false)))
}

fn get_link(socket: &mut Socket, message: Message) -> Result<Option<Link>, NetlinkError> {
    let mut link = None;
    match socket.get(message, |answer| link = parse_link(answer.payload)) {
        Err(error) if error.errno() == Some(rustix::io::Errno::NODEV) => Ok(None),
        other => other.map(|()| link),
    }
}

/// Creates a bridge, down.
pub(crate) fn new_bridge(name: &str, mac: [u8; 6], mtu: Option<u32>) -> Message {
    let mut message = Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE, &link_header(0, false));
    message.put_str(IFLA_IFNAME, name).put(IFLA_ADDRESS, &mac);
    if let Some(mtu) = mtu {
        message.put_u32(IFLA_MTU, mtu);
    }
    message.nest(IFLA_LINKINFO, |info| {
        info.put_str(IFLA_INFO_KIND, "bridge");
    });
    message
}

/// A veth pair: one end here, the other, `inside_name`, in the namespace; both down (an end cannot come up before
/// the pair is complete: ENOTCONN).
pub(crate) struct Veth<'a> {
    pub(crate) name: &'a str,
    pub(crate) master: u32,
    pub(crate) mtu: u32,
    pub(crate) inside_name: &'a str,
    pub(crate) inside_mac: [u8; 6],
    /// The descriptor's number of the other end's namespace.
    pub(crate) namespace: u32,
}

/// Creates a veth pair. One queue each: the default is one for every processor, at some microseconds apiece, and a veth sends
/// without a queue's lock.
pub(crate) fn new_veth(veth: &Veth<'_>) -> Message {
    let mut message = Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE, &link_header(0, false));
    message
        .put_u32(IFLA_NUM_TX_QUEUES, 1)
        .put_u32(IFLA_NUM_RX_QUEUES, 1)
        .put_str(IFLA_IFNAME, veth.name)
        .put_u32(IFLA_MTU, veth.mtu)
        .put_u32(IFLA_MASTER, veth.master);
    message.nest(IFLA_LINKINFO, |info| {
        info.put_str(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |data| {
            data.nest(VETH_INFO_PEER, |peer| {
                peer.append(&link_header(0, false))
                    .put_str(IFLA_IFNAME, veth.inside_name)
                    .put(IFLA_ADDRESS, &veth.inside_mac)
                    .put_u32(IFLA_NUM_TX_QUEUES, 1)
                    .put_u32(IFLA_NUM_RX_QUEUES, 1)
                    .put_u32(IFLA_MTU, veth.mtu)
                    .put_u32(IFLA_NET_NS_FD, veth.namespace);
            });
        });
    });
    message
}

/// Brings an interface up, by name.
pub(crate) fn set_up(name: &str) -> Message {
    let mut message = Message::new(RTM_SETLINK, 0, &link_header(0, true));
    message.put_str(IFLA_IFNAME, name);
    message
}

/// Brings a bridge's port up, without an IPv6 address of its own: its duplicate address detection would be heard by every
/// container of the bridge.
pub(crate) fn set_up_port(name: &str) -> Message {
    let mut message = set_up(name);
    message.nest(IFLA_AF_SPEC, |families| {
        families.nest(AF_INET6, |inet6| {
            inet6.put(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
        });
    });
    message
}

/// Brings the interface of an index up.
pub(crate) fn set_index_up(index: u32) -> Message {
    Message::new(RTM_SETLINK, 0, &link_header(index, true))
}

/// Gives an interface its MAC address and brings it up.
pub(crate) fn set_mac_and_up(index: u32, mac: [u8; 6]) -> Message {
    let mut message = set_index_up(index);
    message.put(IFLA_ADDRESS, &mac);
    message
}

/// Deletes an interface.
pub(crate) fn delete(name: &str) -> Message {
    let mut message = Message::new(RTM_DELLINK, 0, &link_header(0, false));
    message.put_str(IFLA_IFNAME, name);
    message
}

/// Gives an interface an address in a subnet.
pub(crate) fn new_address(index: u32, address: Ipv4Addr, subnet: Ipv4Net) -> Message {
    let mut header = [0; ADDRESS_HEADER];
    header[0] = AF_INET;
    header[1] = subnet.prefix_len();
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(RTM_NEWADDR, CREATE | EXCLUSIVE, &header);
    message
        .put(IFA_LOCAL, &address.octets())
        .put(IFA_ADDRESS, &address.octets())
        .put(IFA_BROADCAST, &subnet.broadcast().octets());
    message
}

/// The default route over a gateway.
pub(crate) fn default_route(index: u32, gateway: Ipv4Addr) -> Message {
    let mut header = [0; ROUTE_HEADER];
    header[0] = AF_INET;
    header[4] = RT_TABLE_MAIN;
    header[5] = RTPROT_BOOT;
    header[7] = RTN_UNICAST;
    let mut message = Message::new(RTM_NEWROUTE, CREATE | EXCLUSIVE, &header);
    message.put(RTA_GATEWAY, &gateway.octets()).put_u32(RTA_OIF, index);
    message
}

/// The host's unicast IPv4 routes, of all tables.
pub(crate) fn routes(socket: &mut Socket) -> Result<Vec<Route>, NetlinkError> {
    let mut header = [0; ROUTE_HEADER];
    header[0] = AF_INET;
    let mut found = Vec::new();
    socket.get(Message::new(RTM_GETROUTE, DUMP, &header), |answer| found.extend(parse_route(answer.payload)))?;
    Ok(found)
}

fn parse_route(payload: &[u8]) -> Option<Route> {
    let (header, attributes) = payload.split_at_checked(ROUTE_HEADER)?;
    if header[0] != AF_INET || header[7] != RTN_UNICAST {
        return None;
    }
    let destination = match attribute(attributes, RTA_DST) {
        Some(bytes) => address_of(bytes)?,
        None => Ipv4Addr::UNSPECIFIED,
    };
    // Of several next hops the first one's interface: struct rtnexthop has its index at byte 4.
    let first_hop = || attribute(attributes, RTA_MULTIPATH).and_then(|hops| u32_of(hops.get(4..)?));
    Some(Route {
        destination: Ipv4Net::new(destination, header[1]).ok()?,
        interface: attribute(attributes, RTA_OIF).and_then(u32_of).or_else(first_hop),
        priority: attribute(attributes, RTA_PRIORITY).and_then(u32_of).unwrap_or(0),
        main: header[4] == RT_TABLE_MAIN,
    })
}

/// The host's own IPv4 addresses.
pub(crate) fn addresses(socket: &mut Socket) -> Result<Vec<Ipv4Addr>, NetlinkError> {
    let mut header = [0; ADDRESS_HEADER];
    header[0] = AF_INET;
    let mut found = Vec::new();
    socket.get(Message::new(RTM_GETADDR, DUMP, &header), |answer| {
        let attributes = answer.payload.get(ADDRESS_HEADER..).unwrap_or_default();
        found.extend(attribute(attributes, IFA_LOCAL).and_then(address_of));
    })?;
    Ok(found)
}
