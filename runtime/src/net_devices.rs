//! `linux.netDevices`: interfaces of the maker's network that become the container's, with their addresses.

use crate::RuntimeError;
use linux::netlink::{CREATE, DUMP, EXCLUSIVE, Message, NetlinkError, Socket, attribute, attributes, text};
use linux::process::{Namespaces, join_namespace};
use linux::resolve;
use oci_spec::runtime::LinuxNetDevice;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
/// Given by somebody, not found out by the kernel.
const IFA_F_PERMANENT: u32 = 0x80;
/// What of an address's flags is a wish, not a state: no duplicate detection, no route of its own.
const WISHES: u32 = 0x02 | 0x200;
const RT_SCOPE_UNIVERSE: u8 = 0;
const IFF_UP: u32 = 1;
/// The lengths of the families' headers before the attributes.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
/// The most addresses of an interface.
const MAX_ADDRESSES: usize = 4096;

type Devices = HashMap<String, LinuxNetDevice>;

fn wrong(name: &str, why: &str) -> RuntimeError {
    RuntimeError::Spec(format!("linux.netDevices: {name}: {why}"))
}

/// The name inside.
fn new_name<'a>(name: &'a str, device: &'a LinuxNetDevice) -> &'a str {
    device.name().as_deref().filter(|name| !name.is_empty()).unwrap_or(name)
}

/// What can be known to be wrong beforehand.
pub(crate) fn check(devices: &Devices, own_network: bool) -> Result<(), RuntimeError> {
    if !devices.is_empty() && !own_network {
        return Err(RuntimeError::Spec("linux.netDevices needs a network namespace of the container's own".to_owned()));
    }
    let mut inside = BTreeSet::new();
    for (name, device) in devices {
        let new = new_name(name, device);
        // The kernel makes a free name of a template.
        let stem = new.strip_suffix("%d").unwrap_or(new);
        if !is_name(name) || !is_name(stem) || new.len() > 15 {
            return Err(wrong(name, &format!("{new:?} is no name for a network interface")));
        }
        if new == stem && !inside.insert(new) {
            return Err(wrong(name, &format!("{new} is another's new name, too")));
        }
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_graphic() && !b"/:%".contains(&b);
    !matches!(name, "" | "." | "..") && name.len() <= 15 && name.bytes().all(plain)
}

/// Moves them into a process's network, where they are up.
pub(crate) fn move_all(devices: &Devices, pid: rustix::process::Pid) -> Result<(), RuntimeError> {
    let path = format!("/proc/{}/ns/net", pid.as_raw_nonzero());
    let namespace = resolve::open_host(Path::new(&path), OFlags::RDONLY)?;
    let mut here = Socket::route().map_err(|e| RuntimeError::Init(e.to_string()))?;
    let mut there = socket_in(namespace.as_fd())?;
    let mut found = Vec::new();
    // All, before the first is moved: one that is moved may not come back.
    for (name, device) in devices {
        let index = find(&mut here, name)?.ok_or_else(|| wrong(name, "there is no such network interface"))?;
        found.push((index, name.as_str(), new_name(name, device)));
    }
    found.sort_unstable();
    for (index, name, new) in found {
        let refused = |operation: &str, error: NetlinkError| match error.errno() {
            Some(Errno::EXIST) => wrong(name, &format!("the container has a network interface {new} already")),
            _ => wrong(name, &format!("{operation}: {error}")),
        };
        let addresses = addresses(&mut here, index).map_err(|e| refused("list its addresses", e))?;
        let before = links(&mut there).map_err(|e| refused("list the container's", e))?;
        let mut moved = Message::new(RTM_SETLINK, 0, &link_header(index, 0));
        moved.put_u32(IFLA_NET_NS_FD, namespace.as_raw_fd().cast_unsigned()).put_str(IFLA_IFNAME, new);
        here.request(&mut [moved]).map_err(|e| refused("move it", e))?;
        // Its number may be another now, and the kernel may have made its name.
        let after = links(&mut there).map_err(|e| refused("list the container's", e))?;
        let index = after.difference(&before).next().ok_or_else(|| wrong(name, "it did not come to the container"))?;
        let mut set_up: Vec<_> = addresses.iter().map(|address| address.added_to(*index)).collect();
        set_up.push(Message::new(RTM_SETLINK, 0, &link_header(*index, IFF_UP)));
        there.request(&mut set_up).map_err(|e| refused("set it up", e))?;
    }
    Ok(())
}

/// A socket belongs to the network it was made in, wherever its maker goes.
fn socket_in(namespace: BorrowedFd<'_>) -> Result<Socket, RuntimeError> {
    let own = resolve::open_host(Path::new("/proc/self/ns/net"), OFlags::RDONLY)?;
    join_namespace(namespace, Namespaces::NETWORK)?;
    let socket = Socket::route();
    join_namespace(own.as_fd(), Namespaces::NETWORK)?;
    socket.map_err(|e| RuntimeError::Init(e.to_string()))
}

fn link_header(index: u32, up: u32) -> [u8; LINK_HEADER] {
    let mut header = [0; LINK_HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&up.to_ne_bytes());
    header[12..16].copy_from_slice(&up.to_ne_bytes());
    header
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// An interface's number, by its name.
fn find(socket: &mut Socket, name: &str) -> Result<Option<u32>, RuntimeError> {
    let mut message = Message::new(RTM_GETLINK, 0, &link_header(0, 0));
    message.put_str(IFLA_IFNAME, name);
    let mut found = None;
    let asked = socket.get(message, |answer| {
        let named = answer.payload.get(LINK_HEADER..).and_then(|rest| attribute(rest, IFLA_IFNAME));
        // It may be known by another name.
        found = number(answer.payload, 4).filter(|_| named.and_then(text) == Some(name));
    });
    match asked {
        Err(error) if error.errno() != Some(Errno::NODEV) => Err(wrong(name, &format!("look for it: {error}"))),
        _ => Ok(found),
    }
}

fn links(socket: &mut Socket) -> Result<BTreeSet<u32>, NetlinkError> {
    let mut found = BTreeSet::new();
    let message = Message::new(RTM_GETLINK, DUMP, &link_header(0, 0));
    socket.get(message, |answer| found.extend(number(answer.payload, 4)))?;
    Ok(found)
}

/// An address of an interface, as it is to be given again.
struct Address {
    family: u8,
    prefix: u8,
    flags: u32,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Address {
    /// Of an answer about any interface: one that lasts and that others see.
    fn of(payload: &[u8], index: u32) -> Option<Address> {
        let &[family, prefix, flags, scope] = payload.first_chunk()?;
        let rest = payload.get(ADDRESS_HEADER..)?;
        let flags = attribute(rest, IFA_FLAGS).and_then(|bytes| number(bytes, 0)).unwrap_or(flags.into());
        let is_kept = flags & IFA_F_PERMANENT != 0 && scope == RT_SCOPE_UNIVERSE;
        if number(payload, 4)? != index || !is_kept {
            return None;
        }
        let kept = [IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_RT_PRIORITY];
        let attributes = attributes(rest).filter(|(kind, _)| kept.contains(kind));
        let attributes = attributes.map(|(kind, content)| (kind, content.to_vec())).collect();
        Some(Address { family, prefix, flags: flags & WISHES, attributes })
    }

    fn added_to(&self, index: u32) -> Message {
        let mut header = [self.family, self.prefix, 0, RT_SCOPE_UNIVERSE, 0, 0, 0, 0];
        header[4..].copy_from_slice(&index.to_ne_bytes());
        let mut message = Message::new(RTM_NEWADDR, CREATE | EXCLUSIVE, &header);
        for (kind, content) in &self.attributes {
            message.put(*kind, content);
        }
        message.put_u32(IFA_FLAGS, self.flags);
        message
    }
}

fn addresses(socket: &mut Socket, index: u32) -> Result<Vec<Address>, NetlinkError> {
    let mut found = Vec::new();
    let message = Message::new(RTM_GETADDR, DUMP, &[0; ADDRESS_HEADER]);
    socket.get(message, |answer| {
        if found.len() < MAX_ADDRESSES {
            found.extend(Address::of(answer.payload, index));
        }
    })?;
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_interfaces() {
        let devices = |pairs: &[(&str, &str)]| -> Devices {
            let device = |new: &str| serde_json::from_value(serde_json::json!({"name": new})).unwrap();
            pairs.iter().map(|(name, new)| ((*name).to_owned(), device(new))).collect()
        };
        assert!(check(&devices(&[("eth0", ""), ("eth1", "net%d"), ("eth2", "net%d")]), true).is_ok());
        for bad in [
            &[("eth0", "a/b")][..],
            &[("", "")],
            &[("eth0", "sixteen-letters!")],
            &[("eth0", "%dx")],
            &[("eth0", "%s")],
            &[("eth%d", "a")],
            &[("eth0", "%d")],
            &[("eth0", "same"), ("eth1", "same")],
        ] {
            assert!(check(&devices(bad), true).is_err(), "{bad:?}");
        }
        assert!(check(&devices(&[("eth0", "")]), false).is_err());
        assert!(check(&devices(&[]), false).is_ok());
    }
}
