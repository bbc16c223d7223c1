//! Our nftables table: what it holds, how it comes to be, and the elements that come and go.
//!
//! One table (family inet) for an engine root, whatever the number of its networks and containers: the rules are written
//! once and read everything that varies out of sets and maps. Adding the table is one transaction that fails where it
//! exists, so however many processes race, exactly one succeeds and no rule is ever there twice. Elements are added
//! so that adding one again is no error.
//!
//! ```text
//! set bridges    { type ifname; }                  our bridges
//! set pairs      { type ifname . ifname; }         each of them with itself
//! map published     { type inet_proto . inet_service : ipv4_addr . inet_service; }              -p 80:80
//! map published_on  { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }  -p 192.0.2.1:80:80
//!
//! chain prerouting  { type nat hook prerouting priority dstnat;
//!     meta nfproto != ipv4 return
//!     iifname @bridges return                       # a container's own: the listener serves it (hairpin)
//!     fib daddr type != local return
//!     meta l4proto sctp jump dnat_any / dnat_on     # no listeners for these
//!     socket mark MARK socket wildcard 1 jump dnat_any
//!     socket mark MARK socket wildcard 0 jump dnat_on }
//! chain postrouting { type nat hook postrouting priority srcnat;
//!     meta nfproto ipv4 iifname @bridges oifname != @bridges masquerade }
//! chain forward     { type filter hook forward priority filter;
//!     oifname != @bridges return
//!     iifname . oifname @pairs accept
//!     ct state established,related accept
//!     ct status dnat accept
//!     drop }                                        # unpublished ports, and other networks' containers
//! ```
//!
//! `socket` looks for the listener that the packet would reach if it were not rewritten. So an element that a lost monitor left
//! behind is inert: without its listener nothing matches, and a foreign socket on that port does not carry our
//! mark. `wildcard` says whether the listener is bound to all addresses, which decides between the two maps; that way
//! a stale element of the one map cannot shadow a live one of the other.

use std::net::{IpAddr, Ipv4Addr};

use linux::netlink::{Message, NetlinkError, Socket, attribute, text};
use rustix::io::Errno;

use crate::nft::{self, Element, Expressions, Hook, IFNAME_LEN, Meta, R1, R1_1, R1_2, R2, Set, Verdict};
use crate::ports::{PortSpec, Protocol};

const BRIDGES: &str = "bridges";
const PAIRS: &str = "pairs";
const PUBLISHED: &str = "published";
const PUBLISHED_ON: &str = "published_on";

/// nft's numbers of data types: what `nft list ruleset` shows keys by.
const TYPE_IPV4: u32 = 7;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;
const TYPE_IFNAME: u32 = 41;
const TYPE_BITS: u32 = 6;

const TARGET: (u32, u32) = ((TYPE_IPV4 << TYPE_BITS) | TYPE_PORT, 8);

/// The sets; one's position + 1 is its id within the transaction.
const SETS: [Set; 4] = [
    Set { name: BRIDGES, key_type: TYPE_IFNAME, key_len: 16, host_order: true, data: None },
    Set { name: PAIRS, key_type: (TYPE_IFNAME << TYPE_BITS) | TYPE_IFNAME, key_len: 32, host_order: false, data: None },
    Set {
        name: PUBLISHED,
        key_type: (TYPE_PROTOCOL << TYPE_BITS) | TYPE_PORT,
        key_len: 8,
        host_order: false,
        data: Some(TARGET),
    },
    Set {
        name: PUBLISHED_ON,
        key_type: (TYPE_IPV4 << (2 * TYPE_BITS)) | (TYPE_PROTOCOL << TYPE_BITS) | TYPE_PORT,
        key_len: 12,
        host_order: false,
        data: Some(TARGET),
    },
];
const BRIDGES_ID: u32 = 1;
const PAIRS_ID: u32 = 2;
const PUBLISHED_ID: u32 = 3;
const PUBLISHED_ON_ID: u32 = 4;

const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const FAMILY_IPV4: [u8; 1] = [2];
const ADDRESS_LOCAL: [u8; 4] = 2_u32.to_ne_bytes();
const SOCKET_MARK: u32 = 1;
const SOCKET_WILDCARD: u32 = 2;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const STATE_ESTABLISHED: u32 = 2;
const STATE_RELATED: u32 = 4;
const STATUS_DNAT: u32 = 32;

/// The number of a protocol in an IP header.
pub(crate) fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

/// Is the bridge in the table? False where there is no table either.
pub(crate) fn has_bridge(socket: &mut Socket, table: &str, bridge: &str) -> Result<bool, NetlinkError> {
    let mut found = false;
    match socket.get(nft::get_element(table, BRIDGES, &nft::interface_key(bridge)), |answer| {
        found |= !nft::elements(answer.payload).is_empty();
    }) {
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(false),
        other => other.map(|()| found),
    }
}

/// Writes the table anew, whatever is there, with these bridges and ports: one transaction, so no packet meets a gap.
pub(crate) fn rewrite(
    socket: &mut Socket,
    table: &str,
    mark: u32,
    bridges: &[&str],
    ports: &[(Ipv4Addr, &[PortSpec])],
) -> Result<(), NetlinkError> {
    let mut all = vec![nft::any_table(table), nft::delete_table(table)];
    all.extend(definition(table, mark));
    let bridges = bridges.iter().flat_map(|bridge| bridge_elements(bridge));
    let ports = ports.iter().flat_map(|(address, specs)| specs.iter().filter_map(|spec| port_element(spec, *address)));
    all.extend(bridges.chain(ports).map(|(set, element)| nft::add_element(table, set, &element)));
    socket.transaction(nft::begin(), all, nft::end())
}

/// Creates the table where there is none.
pub(crate) fn create(socket: &mut Socket, table: &str, mark: u32) -> Result<(), NetlinkError> {
    match socket.transaction(nft::begin(), definition(table, mark), nft::end()) {
        // Another process was faster. Its transaction was whole, as ours would have been.
        Err(error) if error.errno() == Some(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// Deletes the table.
pub(crate) fn delete(socket: &mut Socket, table: &str) -> Result<(), NetlinkError> {
    ignore_missing(socket.transaction(nft::begin(), vec![nft::delete_table(table)], nft::end()))
}

fn definition(table: &str, mark: u32) -> Vec<Message> {
    let nat = |number, priority| Hook { kind: "nat", number, priority };
    let filter = Hook { kind: "filter", number: 2, priority: 0 };
    let mut all = vec![nft::new_table(table)];
    all.extend(SETS.iter().zip(1..).map(|(set, id)| nft::new_set(table, set, id)));
    all.push(nft::new_chain(table, "dnat_any", None));
    all.push(nft::new_chain(table, "dnat_on", None));
    all.push(nft::new_chain(table, "prerouting", Some(&nat(0, -100))));
    all.push(nft::new_chain(table, "postrouting", Some(&nat(4, 100))));
    all.push(nft::new_chain(table, "forward", Some(&filter)));
    all.extend(dnat_rules(table));
    all.extend(prerouting_rules(table, mark));
    all.push(
        nft::new_rule(table, "postrouting", |rule| {
            rule.meta(Meta::Family, R1).equal(R1, &FAMILY_IPV4);
            rule.meta(Meta::InputName, R1).lookup(BRIDGES, BRIDGES_ID, R1, false);
            rule.meta(Meta::OutputName, R1).lookup(BRIDGES, BRIDGES_ID, R1, true).masquerade();
        })
        .into(),
    );
    all.extend(forward_rules(table));
    all
}

fn rules(table: &str, chain: &str, rules: &[&dyn Fn(&mut Expressions<'_>)]) -> Vec<Message> {
    rules.iter().map(|rule| nft::new_rule(table, chain, rule).into()).collect()
}

fn dnat_rules(table: &str) -> Vec<Message> {
    let mut all = rules(
        table,
        "dnat_any",
        &[&|rule| {
            rule.meta(Meta::Protocol, R1).payload(TRANSPORT_HEADER, 2, 2, R1_1);
            rule.map(PUBLISHED, PUBLISHED_ID, R1).dnat(R1, R1_1);
        }],
    );
    all.extend(rules(
        table,
        "dnat_on",
        &[&|rule| {
            rule.meta(Meta::Family, R1).equal(R1, &FAMILY_IPV4);
            rule.payload(NETWORK_HEADER, 16, 4, R1).meta(Meta::Protocol, R1_1).payload(TRANSPORT_HEADER, 2, 2, R1_2);
            rule.map(PUBLISHED_ON, PUBLISHED_ON_ID, R1).dnat(R1, R1_1);
        }],
    ));
    all
}

fn prerouting_rules(table: &str, mark: u32) -> Vec<Message> {
    let sctp = [protocol_number(Protocol::Sctp)];
    let listener = |rule: &mut Expressions<'_>, wildcard: u8, chain| {
        rule.socket(SOCKET_MARK, R1).equal(R1, &mark.to_ne_bytes());
        rule.socket(SOCKET_WILDCARD, R1).equal(R1, &[wildcard]).verdict(Verdict::Jump(chain));
    };
    rules(
        table,
        "prerouting",
        &[
            &|rule| {
                rule.meta(Meta::Family, R1).not_equal(R1, &FAMILY_IPV4).verdict(Verdict::Return);
            },
            &|rule| {
                rule.meta(Meta::InputName, R1).lookup(BRIDGES, BRIDGES_ID, R1, false).verdict(Verdict::Return);
            },
            &|rule| {
                rule.destination_type(R1).not_equal(R1, &ADDRESS_LOCAL).verdict(Verdict::Return);
            },
            &|rule| {
                rule.meta(Meta::Protocol, R1).equal(R1, &sctp).verdict(Verdict::Jump("dnat_on"));
            },
            &|rule| {
                rule.meta(Meta::Protocol, R1).equal(R1, &sctp).verdict(Verdict::Jump("dnat_any"));
            },
            &|rule| listener(rule, 1, "dnat_any"),
            &|rule| listener(rule, 0, "dnat_on"),
        ],
    )
}

fn forward_rules(table: &str) -> Vec<Message> {
    rules(
        table,
        "forward",
        &[
            &|rule| {
                rule.meta(Meta::OutputName, R1).lookup(BRIDGES, BRIDGES_ID, R1, true).verdict(Verdict::Return);
            },
            &|rule| {
                rule.meta(Meta::InputName, R1).meta(Meta::OutputName, R2);
                rule.lookup(PAIRS, PAIRS_ID, R1, false).verdict(Verdict::Accept);
            },
            &|rule| {
                rule.conntrack(CT_STATE, R1).any_bit(R1, STATE_ESTABLISHED | STATE_RELATED).verdict(Verdict::Accept);
            },
            &|rule| {
                rule.conntrack(CT_STATUS, R1).any_bit(R1, STATUS_DNAT).verdict(Verdict::Accept);
            },
            &|rule| {
                rule.verdict(Verdict::Drop);
            },
        ],
    )
}

fn bridge_elements(bridge: &str) -> [(&'static str, Element); 2] {
    let name = nft::interface_key(bridge);
    let pair = [&name[..], &name[..]].concat();
    [(BRIDGES, Element { key: name, data: None }), (PAIRS, Element { key: pair, data: None })]
}

/// Adds a bridge; one that is in is fine.
pub(crate) fn add_bridge(socket: &mut Socket, table: &str, bridge: &str) -> Result<(), NetlinkError> {
    let messages = bridge_elements(bridge).map(|(set, element)| nft::add_element(table, set, &element));
    socket.transaction(nft::begin(), messages.into(), nft::end())
}

/// Takes a bridge out; one that is out is fine.
pub(crate) fn delete_bridge(socket: &mut Socket, table: &str, bridge: &str) -> Result<(), NetlinkError> {
    let messages = bridge_elements(bridge).map(|(set, element)| nft::delete_element(table, set, &element.key));
    ignore_missing(socket.transaction(nft::begin(), messages.into(), nft::end()))
}

/// The map and the element of a published port. None where nothing can come from outside: IPv6 (the listener serves
/// it) and loopback addresses (the kernel drops packets for them that come from a wire).
fn port_element(spec: &PortSpec, container: Ipv4Addr) -> Option<(&'static str, Element)> {
    // Fields of a concatenation are padded to four bytes each.
    let service = |port: u16| {
        let [high, low] = port.to_be_bytes();
        [high, low, 0, 0]
    };
    let mut key = Vec::with_capacity(12);
    let map = match spec.host_ip {
        None => PUBLISHED,
        Some(IpAddr::V4(address)) if address.is_unspecified() => PUBLISHED,
        Some(IpAddr::V4(address)) if !address.is_loopback() => {
            key.extend(address.octets());
            PUBLISHED_ON
        }
        Some(_) => return None,
    };
    key.extend([protocol_number(spec.protocol), 0, 0, 0]);
    key.extend(service(spec.host_port));
    let data = [container.octets(), service(spec.container_port)].concat();
    Some((map, Element { key, data: Some(data) }))
}

/// Adds the elements of published ports, in one transaction. Stale ones of the same ports, left behind by a lost
/// monitor, are replaced: who holds the listener owns the element.
pub(crate) fn add_ports(
    socket: &mut Socket,
    table: &str,
    container: Ipv4Addr,
    specs: &[PortSpec],
) -> Result<(), NetlinkError> {
    let elements: Vec<_> = specs.iter().filter_map(|spec| port_element(spec, container)).collect();
    let add = |(map, element): &(&str, Element)| nft::add_element(table, map, element);
    match socket.transaction(nft::begin(), elements.iter().map(add).collect(), nft::end()) {
        Err(error) if matches!(error.errno(), Some(Errno::EXIST | Errno::BUSY)) => {}
        other => return other,
    }
    for (map, element) in &elements {
        delete_key(socket, table, map, &element.key)?;
    }
    socket.transaction(nft::begin(), elements.iter().map(add).collect(), nft::end())
}

/// Deletes the elements of published ports, those that still lead to this container. True where something was deleted.
pub(crate) fn delete_ports(
    socket: &mut Socket,
    table: &str,
    container: Ipv4Addr,
    specs: &[PortSpec],
) -> Result<bool, NetlinkError> {
    let mut ours = Vec::new();
    for (map, element) in specs.iter().filter_map(|spec| port_element(spec, container)) {
        let mut found = Vec::new();
        ignore_missing(socket.get(nft::get_element(table, map, &element.key), |answer| {
            found.extend(nft::elements(answer.payload));
        }))?;
        if found.contains(&element) {
            ours.push((map, element.key));
        }
    }
    if ours.is_empty() {
        return Ok(false);
    }
    let messages = ours.iter().map(|(map, key)| nft::delete_element(table, map, key)).collect();
    match socket.transaction(nft::begin(), messages, nft::end()) {
        // One was deleted by somebody else in between, so nothing was: one by one.
        Err(error) if error.errno() == Some(Errno::NOENT) => {
            ours.iter().try_for_each(|(map, key)| delete_key(socket, table, map, key))?;
        }
        other => other?,
    }
    Ok(true)
}

fn delete_key(socket: &mut Socket, table: &str, map: &str, key: &[u8]) -> Result<(), NetlinkError> {
    ignore_missing(socket.transaction(nft::begin(), vec![nft::delete_element(table, map, key)], nft::end()))
}

fn ignore_missing(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Something a namespace asks of itself that is to be answered at another port.
pub(crate) struct Redirect {
    pub(crate) protocol: Protocol,
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) to: u16,
}

/// The table with the redirects of a container's namespace.
const OWN_TABLE: &str = "ctr_dns";

/// Sets the redirects of the namespace that the socket was made in, in place of earlier ones.
pub(crate) fn redirect_own(socket: &mut Socket, redirects: &[Redirect]) -> Result<(), NetlinkError> {
    let hook = Hook { kind: "nat", number: 3, priority: -100 };
    let mut all = vec![nft::any_table(OWN_TABLE), nft::delete_table(OWN_TABLE), nft::new_table(OWN_TABLE)];
    all.push(nft::new_chain(OWN_TABLE, "output", Some(&hook)));
    all.extend(redirects.iter().map(|redirect| {
        nft::new_rule(OWN_TABLE, "output", |rule| {
            let address = redirect.address.octets();
            rule.meta(Meta::Family, R1).equal(R1, &FAMILY_IPV4);
            rule.payload(NETWORK_HEADER, 16, 4, R1).equal(R1, &address);
            rule.meta(Meta::Protocol, R1).equal(R1, &[protocol_number(redirect.protocol)]);
            rule.payload(TRANSPORT_HEADER, 2, 2, R1).equal(R1, &redirect.port.to_be_bytes());
            rule.immediate(R1, &address).immediate(R2, &redirect.to.to_be_bytes()).dnat(R1, R2);
        })
        .into()
    }));
    socket.transaction(nft::begin(), all, nft::end())
}

/// A chain of somebody else's that stops what is forwarded unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForeignDrop {
    pub(crate) family: &'static str,
    pub(crate) table: String,
    pub(crate) chain: String,
}

/// firewalld's table: its chain accepts by policy, and ends in a rule that rejects.
pub(crate) const FIREWALLD: &str = "firewalld";

/// The foreign base chains at the forward hook (IPv4 or both families) that stop what nobody allows.
pub(crate) fn foreign_drops(socket: &mut Socket, own: &str) -> Result<Vec<ForeignDrop>, NetlinkError> {
    let mut found = Vec::new();
    socket.get(nft::list_chains(), |answer| found.extend(parse_drop(answer.payload, own)))?;
    Ok(found)
}

fn parse_drop(payload: &[u8], own: &str) -> Option<ForeignDrop> {
    const FORWARD: [u8; 4] = 2_u32.to_be_bytes();
    const POLICY_DROP: [u8; 4] = 0_u32.to_be_bytes();
    let (header, attributes) = payload.split_at_checked(nft::HEADER)?;
    let family = match header[0] {
        1 => "inet",
        2 => "ip",
        _ => return None,
    };
    let hook = attribute(attribute(attributes, 4)?, 1)?;
    let drops = attribute(attributes, 5)? == POLICY_DROP;
    let table = text(attribute(attributes, 1)?)?.to_owned();
    let chain = text(attribute(attributes, 3)?)?.to_owned();
    let stops = drops || (table == FIREWALLD && chain == "filter_FORWARD");
    (hook == FORWARD && stops && table != own).then_some(ForeignDrop { family, table, chain })
}

const _: () = assert!(IFNAME_LEN == 16, "the sets' key lengths are made of it");
