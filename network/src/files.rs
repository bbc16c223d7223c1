//! The texts of a container's /etc/hosts, /etc/hostname and /etc/resolv.conf, as docker makes them.

use std::net::{IpAddr, Ipv4Addr};

use crate::error::Result;

/// What the three files depend on. Texts of the host's files are given, not read.
#[derive(Clone, Debug, Default)]
pub struct FilesRequest<'a> {
    /// The container's hostname, without domain.
    pub hostname: &'a str,
    /// `--domainname`.
    pub domainname: Option<&'a str>,
    /// The container's own address; None for `--network none` and `host`.
    pub address: Option<Ipv4Addr>,
    /// `--network host`: the host's /etc/hosts and resolv.conf are taken over as they are (with additions).
    pub host_network: bool,
    /// What `host-gateway` in --add-host stands for: the bridge's address.
    pub gateway: Option<Ipv4Addr>,
    /// `--add-host`: `NAME:IP` or `NAME=IP`, IP may be `host-gateway` and an IPv6 address may stand in brackets.
    pub add_hosts: &'a [String],
    /// `--dns`.
    pub dns: &'a [IpAddr],
    /// `--dns-search` (`.` alone: no search domains).
    pub dns_search: &'a [String],
    /// `--dns-option`.
    pub dns_options: &'a [String],
    /// The text of the host's /etc/hosts.
    pub host_hosts: &'a str,
    /// The text of the host's /etc/resolv.conf.
    pub host_resolv_conf: &'a str,
    /// The text of /run/systemd/resolve/resolv.conf where it exists: the real servers behind 127.0.0.53.
    pub systemd_resolv_conf: Option<&'a str>,
}

/// The three texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerFiles {
    /// /etc/hosts
    pub hosts: String,
    /// /etc/hostname
    pub hostname: String,
    /// /etc/resolv.conf
    pub resolv_conf: String,
    /// The host has loopback nameservers only: resolv.conf names 127.0.0.11, and a [`crate::dns::Forwarder`] must run for this container.
    pub needs_forwarder: bool,
}

/// Composes the files.
pub fn container_files(request: &FilesRequest<'_>) -> Result<ContainerFiles> {
    todo!("{request:?}")
}
