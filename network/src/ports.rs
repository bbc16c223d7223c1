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

/// The longest text worth quoting in an error.
const MAX_QUOTED: usize = 200;

impl PortRange {
    fn single(port: u16) -> PortRange {
        PortRange { first: port, last: port }
    }

    /// How many ports, less one: never overflows.
    fn span(self) -> u16 {
        self.last - self.first
    }

    /// The ports, in order.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }
}

/// Parses one `-p` value: `[ip:][hostPort[-hostPort]:]containerPort[-containerPort][/protocol]`, `[v6]:h:c`, or
/// `published=,target=,protocol=,host_ip=`. A range gives one request for each container port.
pub fn parse_publish(text: &str) -> Result<Vec<PortRequest>, PortError> {
    let parsed = if text.contains('=') { parse_fields(text) } else { parse_short(text) };
    parsed.map_err(|reason| PortError { text: text.chars().take(MAX_QUOTED).collect(), reason })
}

/// Parses `--expose` and EXPOSE: `port[-port][/protocol]`, as a list of ports.
pub fn parse_expose(text: &str) -> Result<Vec<(u16, Protocol)>, PortError> {
    let parse = || {
        let (ports, protocol) = split_protocol(text)?;
        let ports = container_ports(ports)?;
        Ok(ports.iter().map(|port| (port, protocol)).collect())
    };
    parse().map_err(|reason| PortError { text: text.chars().take(MAX_QUOTED).collect(), reason })
}

fn parse_short(text: &str) -> Result<Vec<PortRequest>, String> {
    let (addressed, protocol) = split_protocol(text)?;
    let (rest, container) = match addressed.rsplit_once(':') {
        Some((rest, container)) => (Some(rest), container),
        None => (None, addressed),
    };
    let (address, host) = match rest {
        None => ("", ""),
        // The address's own colons are all before the last one.
        Some(rest) => rest.rsplit_once(':').unwrap_or(("", rest)),
    };
    requests(host_address(address)?, host_ports(host)?, container_ports(container)?, protocol)
}

/// The long form: the keys of docker's, in any order.
fn parse_fields(text: &str) -> Result<Vec<PortRequest>, String> {
    let (mut address, mut host, mut container, mut protocol) = (None, None, None, Protocol::Tcp);
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("expected key=value, not {field:?}"))?;
        match key.trim().to_ascii_lowercase().as_str() {
            "published" => host = host_ports(value)?,
            "target" => container = Some(container_ports(value)?),
            "protocol" => protocol = parse_protocol(value)?,
            "host_ip" => address = host_address(value)?,
            // Swarm's: a container engine without one publishes on its host in any case.
            "mode" if matches!(value, "host" | "ingress") => {}
            key => return Err(format!("unknown field {key:?}: expected published, target, protocol or host_ip")),
        }
    }
    requests(address, host, container.ok_or("target= (the container's port) is missing")?, protocol)
}

fn requests(
    host_ip: Option<IpAddr>,
    host: Option<PortRange>,
    container: PortRange,
    protocol: Protocol,
) -> Result<Vec<PortRequest>, String> {
    let request = |host_ports, container_port| PortRequest { host_ip, host_ports, container_port, protocol };
    match host {
        None => Ok(container.iter().map(|port| request(None, port)).collect()),
        // A host range over one container port: the first that is free.
        Some(host) if container.span() == 0 => Ok(vec![request(Some(host), container.first)]),
        Some(host) if container.span() == host.span() => {
            Ok(host.iter().zip(container.iter()).map(|(h, c)| request(Some(PortRange::single(h)), c)).collect())
        }
        Some(_) => Err("invalid ranges specified for container and host Ports: they differ in length".to_owned()),
    }
}

fn split_protocol(text: &str) -> Result<(&str, Protocol), String> {
    match text.split_once('/') {
        None => Ok((text, Protocol::Tcp)),
        Some((ports, protocol)) => Ok((ports, parse_protocol(protocol)?)),
    }
}

fn parse_protocol(text: &str) -> Result<Protocol, String> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Ok(Protocol::Sctp),
        _ => Err(format!("invalid proto: {text:?}: expected tcp, udp or sctp")),
    }
}

fn host_address(text: &str) -> Result<Option<IpAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').and_then(|v6| v6.parse().ok()).map(IpAddr::V6),
        None => text.parse().ok(),
    };
    bare.map(Some).ok_or_else(|| format!("invalid IP address: {text:?}"))
}

/// None for an empty text or 0: any free port.
fn host_ports(text: &str) -> Result<Option<PortRange>, String> {
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    range(text).map(Some).map_err(|reason| format!("invalid hostPort: {text:?}: {reason}"))
}

fn container_ports(text: &str) -> Result<PortRange, String> {
    if text.is_empty() {
        return Err("no port specified".to_owned());
    }
    range(text).map_err(|reason| format!("invalid containerPort: {text:?}: {reason}"))
}

fn range(text: &str) -> Result<PortRange, &'static str> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = PortRange { first: port(first)?, last: port(last)? };
    if range.first > range.last {
        return Err("the range is reversed");
    }
    Ok(range)
}

fn port(text: &str) -> Result<u16, &'static str> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse().unwrap_or(0) } else { 0 };
    if number == 0 { Err("expected a port of 1-65535") } else { Ok(number) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shown(text: &str) -> String {
        let all = match parse_publish(text) {
            Ok(all) => all,
            Err(error) => return error.to_string(),
        };
        let one = |r: &PortRequest| {
            let ip = r.host_ip.map_or("*".to_owned(), |ip| ip.to_string());
            let host = r.host_ports.map_or("?".to_owned(), |p| format!("{}-{}", p.first, p.last));
            format!("{ip} {host} {}/{}", r.container_port, r.protocol)
        };
        all.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn the_whole_grammar() {
        for (text, expected) in [
            ("80", "* ? 80/tcp"),
            ("8080:80", "* 8080-8080 80/tcp"),
            ("8080:80/udp", "* 8080-8080 80/udp"),
            ("8080:80/SCTP", "* 8080-8080 80/sctp"),
            ("127.0.0.1:8080:80", "127.0.0.1 8080-8080 80/tcp"),
            ("127.0.0.1::80", "127.0.0.1 ? 80/tcp"),
            ("0.0.0.0:80:80", "0.0.0.0 80-80 80/tcp"),
            ("[::1]:8080:80", "::1 8080-8080 80/tcp"),
            ("[::]::80", ":: ? 80/tcp"),
            ("::1:8080:80", "::1 8080-8080 80/tcp"),
            (":80", "* ? 80/tcp"),
            ("0:80", "* ? 80/tcp"),
            ("80-81", "* ? 80/tcp, * ? 81/tcp"),
            ("8080-8081:80-81/udp", "* 8080-8080 80/udp, * 8081-8081 81/udp"),
            ("8000-9000:80", "* 8000-9000 80/tcp"),
            ("127.0.0.1:1-2:3-4", "127.0.0.1 1-1 3/tcp, 127.0.0.1 2-2 4/tcp"),
            ("65535:1", "* 65535-65535 1/tcp"),
            ("published=8080,target=80", "* 8080-8080 80/tcp"),
            ("target=80", "* ? 80/tcp"),
            ("published=53,target=53,protocol=udp,host_ip=127.0.0.1,mode=host", "127.0.0.1 53-53 53/udp"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn errors_name_the_text_and_the_rule() {
        for (text, part) in [
            ("", "no port specified"),
            ("80:", "no port specified"),
            ("/tcp", "no port specified"),
            ("65536", "invalid containerPort: \"65536\""),
            ("80:0", "invalid containerPort: \"0\""),
            ("99999:80", "invalid hostPort: \"99999\""),
            ("-1:80", "invalid hostPort"),
            ("+80", "invalid containerPort"),
            (" 80", "invalid containerPort"),
            ("90-80", "reversed"),
            ("8080-8082:80-81", "invalid ranges"),
            ("80/", "invalid proto"),
            ("80/icmp", "invalid proto"),
            ("80/tcp/udp", "invalid proto"),
            ("a:80:80", "invalid IP address: \"a\""),
            ("256.0.0.1:80:80", "invalid IP address"),
            ("[::1:80:80", "invalid IP address"),
            ("[1.2.3.4]:80:80", "invalid IP address"),
            ("published=80", "target="),
            ("target=80,colour=red", "unknown field \"colour\""),
        ] {
            let error = parse_publish(text).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains(&format!("{text:?}")), "{text}: {error}");
        }
    }

    #[test]
    fn expose_takes_ranges() {
        assert_eq!(parse_expose("80-81/udp"), Ok(vec![(80, Protocol::Udp), (81, Protocol::Udp)]));
        assert!(parse_expose("1.2.3.4:80").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "[0-9:./\\[\\]a-z=,-]{0,40}") {
            let _ = parse_publish(&text);
        }
    }
}
