//! Name resolution of our own: the C library's would load modules into a static binary.
//!
//! [`Resolver`] answers what the C library's resolver would: literals, `localhost`, the hosts file, then the servers of
//! resolv.conf with its search list. [`Forwarder`] lends a container the servers that only the host can reach.

mod client;
pub(crate) mod config;
mod forward;
mod message;

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use config::ResolvConf;

pub use forward::Forwarder;

/// The most bytes of a file that are read.
const MAX_FILE: u64 = 4 << 20;
/// The longest name, with a final dot.
const MAX_HOST: usize = 254;

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
        let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = literal.parse::<IpAddr>() {
            return Ok(vec![address]);
        }
        if host.is_empty() || host.len() > MAX_HOST {
            return Err(no_such_host(host, "not a host name"));
        }
        // Never asked of a server: it must lead nowhere else (RFC 6761).
        let lower = host.to_ascii_lowercase();
        let bare = lower.strip_suffix('.').unwrap_or(&lower);
        if bare == "localhost" || bare.ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let mut addresses = config::hosts_entries(&read(&self.hosts)?, &lower);
        if addresses.is_empty() {
            addresses = client::lookup(&ResolvConf::parse(&read(&self.resolv_conf)?), &lower)?;
        }
        let mut seen = std::collections::HashSet::new();
        addresses.retain(|address| seen.insert(*address));
        addresses.sort_by_key(IpAddr::is_ipv6);
        Ok(addresses)
    }
}

/// [`Resolver::resolve`] with the usual files.
pub fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    Resolver::default().resolve(host)
}

fn no_such_host(host: &str, why: &str) -> io::Error {
    let shown: String = host.chars().take(MAX_HOST).collect();
    io::Error::new(ErrorKind::NotFound, format!("cannot resolve {shown:?}: no such host ({why})"))
}

/// The text of a file; one that is missing is empty.
fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => Err(error),
        Ok(file) => file.take(MAX_FILE).read_to_end(&mut bytes),
    }
    .map_err(|error| io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display())))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
