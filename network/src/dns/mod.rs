//! Name resolution of our own: the C library's would load modules into a static binary.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use crate::error::Result;

/// Where names are looked up.
#[derive(Clone, Debug)]
pub struct Resolver {
    /// The hosts file, asked first.
    pub hosts: PathBuf,
    /// The file that names the servers.
    pub resolv_conf: PathBuf,
}

impl Default for Resolver {
    fn default() -> Self {
        Resolver { hosts: "/etc/hosts".into(), resolv_conf: "/etc/resolv.conf".into() }
    }
}

impl Resolver {
    /// The addresses of a host, IPv4 first. A literal address and `localhost` need no file. The error's text names the host.
    pub fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        todo!("{host}")
    }
}

/// [`Resolver::resolve`] with the usual files.
pub fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    Resolver::default().resolve(host)
}

/// A resolver at 127.0.0.11:53 of a container's namespace that forwards to the host's servers from the host's namespace.
#[derive(Debug)]
pub struct Forwarder(());

impl Forwarder {
    /// Opens the sockets in the namespace and adds the two DNAT rules there.
    pub fn bind(namespace: BorrowedFd<'_>) -> Result<Forwarder> {
        todo!("{namespace:?}")
    }

    /// Serves until the process is killed. For a forked, single-threaded child: drops every privilege first, dies with its parent.
    pub fn serve(self, resolver: &Resolver) -> Result<()> {
        todo!("{resolver:?}")
    }
}
