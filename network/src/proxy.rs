//! Serves what reaches a listener: connections from the host itself, from our own containers, and over IPv6.

use std::net::Ipv4Addr;

use crate::error::Result;
use crate::publish::Published;

/// Serves the listeners towards the container. For a forked, single-threaded child of the process that published: it first
/// drops every privilege (uid and gid 65534, no capabilities, no_new_privs), and dies with its parent.
/// Returns when nothing has been connected for a minute, so that the child goes; the parent starts another when a
/// listener is readable again.
pub fn serve_proxy(published: Vec<Published>, container: Ipv4Addr) -> Result<()> {
    todo!("{published:?}{container}")
}
