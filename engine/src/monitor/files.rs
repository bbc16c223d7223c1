//! /etc/hosts, /etc/hostname and /etc/resolv.conf of a container, written before each start.

use super::request::NetworkRequest;
use crate::config::ContainerConfig;
use crate::{EngineError, NetworkMode, Result};
use network::{ContainerFiles, FilesRequest, container_files, usermode};
use std::net::Ipv4Addr;
use std::path::Path;

/// Addresses that go into the files.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Addresses {
    pub(crate) own: Option<Ipv4Addr>,
    pub(crate) gateway: Option<Ipv4Addr>,
    /// A name server of the network's own, for a host whose servers the container cannot reach.
    pub(crate) name_server: Option<Ipv4Addr>,
}

impl Addresses {
    /// On the bridge, in an ordinary user's network, or without one.
    pub(crate) fn of(bridge: Option<&NetworkRequest>, is_users: bool) -> Addresses {
        Addresses {
            own: bridge.map(|bridge| bridge.address).or(is_users.then_some(usermode::ADDRESS)),
            gateway: bridge.map(|bridge| bridge.network.gateway),
            name_server: is_users.then_some(usermode::NAME_SERVER),
        }
    }
}

/// Whether the container can't reach the host's name servers by itself.
pub(crate) fn needs_name_server(config: &ContainerConfig, addresses: Addresses) -> Result<bool> {
    Ok(compose(config, Addresses { name_server: None, ..addresses })?.needs_forwarder)
}

/// Composes and writes the files. Says whether the container needs a resolver of ours.
pub(crate) fn write(folder: &Path, config: &ContainerConfig, addresses: Addresses) -> Result<bool> {
    let ContainerFiles { hosts, hostname, resolv_conf, needs_forwarder } = compose(config, addresses)?;
    for (name, text) in [("hosts", hosts), ("hostname", hostname), ("resolv.conf", resolv_conf)] {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|e| EngineError::io("write", &path, e))?;
    }
    Ok(needs_forwarder)
}

fn compose(config: &ContainerConfig, addresses: Addresses) -> Result<ContainerFiles> {
    let host = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let own_name = host("/proc/sys/kernel/hostname");
    let hostname = if config.hostname.is_empty() { own_name.trim() } else { &config.hostname };
    let systemd = std::fs::read_to_string("/run/systemd/resolve/resolv.conf").ok();
    let request = FilesRequest {
        hostname,
        domainname: config.spec.domainname.as_deref(),
        address: addresses.own,
        host_network: config.spec.network == NetworkMode::Host,
        gateway: addresses.gateway,
        add_hosts: &config.spec.add_hosts,
        dns: &config.spec.dns,
        dns_search: &config.spec.dns_search,
        dns_options: &config.spec.dns_options,
        host_hosts: &host("/etc/hosts"),
        host_resolv_conf: &host("/etc/resolv.conf"),
        systemd_resolv_conf: systemd.as_deref(),
    };
    let mut files = container_files(&request)?;
    if let Some(server) = addresses.name_server.filter(|_| files.needs_forwarder) {
        files = container_files(&FilesRequest { dns: &[server.into()], ..request })?;
    }
    Ok(files)
}
