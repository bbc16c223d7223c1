//! Connection tracking: forgetting UDP flows.
//!
//! A UDP flow's first packet decides where all later ones go, for as long as they keep coming. So a flow that began before
//! a port was published (or that goes to a container that is gone) must be forgotten, or it never reaches the new one.

use std::net::Ipv4Addr;

use linux::netlink::{DUMP, Message, NetlinkError, Socket, attribute};
use rustix::io::Errno;

use crate::ports::Protocol;
use crate::table::protocol_number;

const DELETE: u16 = (1 << 8) | 2;
const GET: u16 = (1 << 8) | 1;
/// `struct nfgenmsg` of IPv4.
const HEADER: [u8; 4] = [2, 0, 0, 0];
/// So many flows of one port are looked at; a flood of forged ones must not hold up a start.
const MAX_FORGOTTEN: usize = 4096;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

const FLAG_IP_SRC: u32 = 1;
const FLAG_PROTO_NUM: u32 = 1 << 3;
const FLAG_PROTO_SRC_PORT: u32 = 1 << 4;
const FLAG_PROTO_DST_PORT: u32 = 1 << 5;

fn delete() -> Message {
    Message::new(DELETE, 0, &HEADER)
}

/// Forgets the UDP flows to a port of the host, by any of these addresses of its. One walk over the kernel's table, which is
/// large, finds them; flows to the same port of somebody else (a name server's) live on.
pub(crate) fn forget_to(socket: &mut Socket, addresses: &[Ipv4Addr], port: u16) -> Result<(), NetlinkError> {
    let mut message = Message::new(GET, DUMP, &HEADER);
    message.nest(CTA_TUPLE_ORIG, |tuple| {
        tuple.nest(CTA_TUPLE_PROTO, |proto| {
            proto.put(CTA_PROTO_NUM, &[protocol_number(Protocol::Udp)]).put(CTA_PROTO_DST_PORT, &port.to_be_bytes());
        });
    });
    message.nest(CTA_FILTER, |filter| {
        filter.put_u32(CTA_FILTER_ORIG_FLAGS, FLAG_PROTO_NUM | FLAG_PROTO_DST_PORT);
        filter.put_u32(CTA_FILTER_REPLY_FLAGS, 0);
    });
    let mut tuples = Vec::new();
    forgiven(socket.get(message, |answer| {
        let Some(tuple) = attribute(answer.payload.get(HEADER.len()..).unwrap_or_default(), CTA_TUPLE_ORIG) else {
            return;
        };
        let target = attribute(tuple, CTA_TUPLE_IP).and_then(|ip| attribute(ip, CTA_IP_V4_DST));
        let ours = addresses.iter().any(|address| target == Some(&address.octets()));
        if ours && tuples.len() < MAX_FORGOTTEN {
            tuples.push(tuple.to_vec());
        }
    }))?;
    for tuple in tuples {
        let mut message = delete();
        message.nest(CTA_TUPLE_ORIG, |whole| {
            whole.append(&tuple);
        });
        request(socket, message)?;
    }
    Ok(())
}

/// Forgets the UDP flows that a container's port answers.
pub(crate) fn forget_from(socket: &mut Socket, container: Ipv4Addr, port: u16) -> Result<(), NetlinkError> {
    let mut message = delete();
    message.nest(CTA_TUPLE_REPLY, |tuple| {
        tuple.nest(CTA_TUPLE_IP, |ip| {
            ip.put(CTA_IP_V4_SRC, &container.octets());
        });
        tuple.nest(CTA_TUPLE_PROTO, |proto| {
            proto.put(CTA_PROTO_NUM, &[protocol_number(Protocol::Udp)]).put(CTA_PROTO_SRC_PORT, &port.to_be_bytes());
        });
    });
    message.nest(CTA_FILTER, |filter| {
        filter.put_u32(CTA_FILTER_ORIG_FLAGS, 0);
        filter.put_u32(CTA_FILTER_REPLY_FLAGS, FLAG_IP_SRC | FLAG_PROTO_NUM | FLAG_PROTO_SRC_PORT);
    });
    request(socket, message)
}

fn request(socket: &mut Socket, message: Message) -> Result<(), NetlinkError> {
    forgiven(socket.request(&mut [message]))
}

/// No such flow is fine. So is a kernel without this interface (nf_conntrack_netlink): a port is worth publishing even where old
/// flows to it cannot be forgotten.
fn forgiven(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(NetlinkError::Refused { errno: Errno::NOENT | Errno::INVAL | Errno::OPNOTSUPP, .. }) => Ok(()),
        other => other,
    }
}
