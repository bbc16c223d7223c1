//! `-p`: docker's whole grammar of published ports, as typed requests.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A transport protocol that ports belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP: by DNAT only, so not from the host itself.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

/// Ports first..=last, never empty, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

/// One container port to publish, as asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    /// The host's address; None means all, 0.0.0.0 and \[::\].
    pub host_ip: Option<IpAddr>,
    /// The host's port: the first free one of the range; None: any free one of ip_local_port_range.
    pub host_ports: Option<PortRange>,
    /// The port in the container.
    pub container_port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// One published port, as it came to be: what state files and `ps` hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortSpec {
    /// The host's address; None means all, 0.0.0.0 and \[::\].
    pub host_ip: Option<IpAddr>,
    /// The host's port.
    pub host_port: u16,
    /// The port in the container.
    pub container_port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// Why a text is no published port.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid published port {text:?}: {reason}")]
pub struct PortError {
    text: String,
    reason: String,
}

/// Parses one `-p` value: `[ip:][hostPort[-hostPort]:]containerPort[-containerPort][/protocol]`, `[v6]:h:c`, or
/// `published=,target=,protocol=,host_ip=`. A range gives one request for each container port.
pub fn parse_publish(text: &str) -> Result<Vec<PortRequest>, PortError> {
    todo!("{text}")
}

/// Parses `--expose` and EXPOSE: `port[-port][/protocol]`, as a list of ports.
pub fn parse_expose(text: &str) -> Result<Vec<(u16, Protocol)>, PortError> {
    todo!("{text}")
}
