//! The texts of a container's /etc/hosts, /etc/hostname and /etc/resolv.conf, as docker makes them.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use crate::dns::Forwarder;
use crate::dns::config::{MAX_SERVERS, ResolvConf};
use crate::error::{NetworkError, Result};

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
    /// Only the host itself reaches its name servers: resolv.conf names 127.0.0.11 (and .12, .13 for further ones), and a
    /// [`Forwarder`] must be bound in the container's namespace.
    pub needs_forwarder: bool,
}

/// systemd-resolved's own server.
const SYSTEMD_STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));

const LOCAL_NAMES: &str = "127.0.0.1\tlocalhost\n\
                           ::1\tlocalhost ip6-localhost ip6-loopback\n\
                           fe00::\tip6-localnet\n\
                           ff00::\tip6-mcastprefix\n\
                           ff02::1\tip6-allnodes\n\
                           ff02::2\tip6-allrouters\n";

/// Composes the files.
pub fn container_files(request: &FilesRequest<'_>) -> Result<ContainerFiles> {
    let (resolv_conf, needs_forwarder) = resolv_conf(request);
    Ok(ContainerFiles {
        hosts: hosts(request)?,
        hostname: format!("{}\n", request.hostname),
        resolv_conf,
        needs_forwarder,
    })
}

fn hosts(request: &FilesRequest<'_>) -> Result<String> {
    let mut text = if request.host_network { request.host_hosts.to_owned() } else { LOCAL_NAMES.to_owned() };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for entry in request.add_hosts {
        let (name, address) = add_host(entry, request.gateway)?;
        text.push_str(&format!("{address}\t{name}\n"));
    }
    if let Some(address) = request.address.filter(|_| !request.host_network) {
        let name = request.hostname;
        let line = match request.domainname.filter(|domain| !domain.is_empty()) {
            Some(domain) => format!("{address}\t{name}.{domain} {name}\n"),
            None => format!("{address}\t{name}\n"),
        };
        text.push_str(&line);
    }
    Ok(text)
}

/// Parses one `--add-host`.
fn add_host(text: &str, gateway: Option<Ipv4Addr>) -> Result<(&str, IpAddr)> {
    let error = |reason| NetworkError::AddHost { text: text.chars().take(200).collect(), reason };
    let at = text.find([':', '=']).ok_or_else(|| error("expected NAME:IP"))?;
    let (name, address) = (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default());
    // A blank or a newline would be further names, or lines.
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') {
        return Err(error("the name is empty or has blanks"));
    }
    if address == "host-gateway" {
        let gateway = gateway.ok_or_else(|| error("host-gateway needs a bridge network"))?;
        return Ok((name, gateway.into()));
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    bare.parse().map(|address| (name, address)).map_err(|_| error("the address is no IP address"))
}

/// The text, and whether it needs a forwarder.
fn resolv_conf(request: &FilesRequest<'_>) -> (String, bool) {
    let untouched = request.dns.is_empty() && request.dns_search.is_empty() && request.dns_options.is_empty();
    if request.host_network && untouched {
        return (request.host_resolv_conf.to_owned(), false);
    }
    let mut conf = ResolvConf::parse(request.host_resolv_conf);
    if !request.host_network && conf.nameservers == [SYSTEMD_STUB] {
        // The servers behind the stub, where they can be known; what else it does (local names) is lost.
        let behind = request.systemd_resolv_conf.map(ResolvConf::parse);
        conf = behind.filter(|behind| !reachable(&behind.nameservers).is_empty()).unwrap_or(conf);
    }
    let mut needs_forwarder = false;
    if !request.dns.is_empty() {
        conf.nameservers = request.dns.to_vec();
    } else if !request.host_network {
        let usable = reachable(&conf.nameservers);
        if usable.is_empty() && request.address.is_some() {
            needs_forwarder = true;
            conf.nameservers = (0..conf.servers().len()).map(|index| Forwarder::address(index).into()).collect();
        } else {
            conf.nameservers = usable;
        }
    }
    if !request.dns_search.is_empty() {
        conf.search = request.dns_search.iter().filter(|domain| *domain != ".").cloned().collect();
    }
    if !request.dns_options.is_empty() {
        conf.options = request.dns_options.to_vec();
    }
    (compose(&conf), needs_forwarder)
}

/// The servers that a container with IPv4 alone reaches: not the host's loopback, not IPv6.
fn reachable(servers: &[IpAddr]) -> Vec<IpAddr> {
    servers
        .iter()
        .copied()
        .filter(|server| server.is_ipv4() && !server.is_loopback() && !server.is_unspecified())
        .collect()
}

fn compose(conf: &ResolvConf) -> String {
    let mut text = String::new();
    for server in &conf.nameservers {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "nameserver {server}");
    }
    for (word, values) in [("search", &conf.search), ("options", &conf.options)] {
        let values: Vec<String> =
            values.iter().map(|value| one_word(value)).filter(|value| !value.is_empty()).collect();
        if !values.is_empty() {
            let _ = writeln!(text, "{word} {}", values.join(" "));
        }
    }
    text
}

/// A value from the command line cannot begin a line of its own.
fn one_word(value: &str) -> String {
    value.chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect()
}

const _: () = assert!(MAX_SERVERS <= 3, "the addresses from 127.0.0.11 on that Forwarder documents");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn base() -> FilesRequest<'static> {
        FilesRequest {
            hostname: "web",
            address: Some(Ipv4Addr::new(172, 17, 0, 2)),
            gateway: Some(Ipv4Addr::new(172, 17, 0, 1)),
            host_hosts: "127.0.0.1 localhost myhost",
            host_resolv_conf: "# host's\nsearch a.example\nnameserver 127.0.0.1\nnameserver 10.0.0.2\nnameserver ::1\noptions edns0\n",
            ..FilesRequest::default()
        }
    }

    #[test]
    fn loopback_servers_are_dropped() {
        let files = container_files(&base()).unwrap();
        assert_eq!(files.resolv_conf, "nameserver 10.0.0.2\nsearch a.example\noptions edns0\n");
        assert_eq!(files.hostname, "web\n");
        assert!(files.hosts.starts_with("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost"));
        assert!(files.hosts.ends_with("\n172.17.0.2\tweb\n"));
        assert!(!files.needs_forwarder);
    }

    #[test]
    fn where_none_is_left_the_hosts_are_lent() {
        let host_resolv_conf = "nameserver 127.0.0.1\nnameserver ::1\n";
        let files = container_files(&FilesRequest { host_resolv_conf, ..base() }).unwrap();
        assert_eq!(files.resolv_conf, "nameserver 127.0.0.11\nnameserver 127.0.0.12\n");
        assert!(files.needs_forwarder);
        let none = FilesRequest { host_resolv_conf, address: None, ..base() };
        assert!(!container_files(&none).unwrap().needs_forwarder);
    }

    #[test]
    fn systemds_stub_is_looked_behind() {
        let host_resolv_conf = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n";
        let behind = "nameserver 10.0.0.9\nsearch lan\n";
        let request = FilesRequest { host_resolv_conf, systemd_resolv_conf: Some(behind), ..base() };
        assert_eq!(container_files(&request).unwrap().resolv_conf, "nameserver 10.0.0.9\nsearch lan\n");
        let request = FilesRequest { host_resolv_conf, ..base() };
        assert!(container_files(&request).unwrap().needs_forwarder);
    }

    #[test]
    fn flags_replace_what_they_name() {
        let (search, options) = (vec![".".to_owned()], vec!["ndots:3\nnameserver 6.6.6.6".to_owned()]);
        let dns = [IpAddr::from([1, 1, 1, 1])];
        let request = FilesRequest { dns: &dns, dns_search: &search, dns_options: &options, ..base() };
        let text = container_files(&request).unwrap().resolv_conf;
        assert_eq!(text, "nameserver 1.1.1.1\noptions ndots:3nameserver6.6.6.6\n");
    }

    #[test]
    fn added_hosts() {
        let entries = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let good = entries(&["db:10.0.0.5", "gw=host-gateway", "six:[::5]", "seven:::7"]);
        let hosts =
            container_files(&FilesRequest { add_hosts: &good, domainname: Some("x.y"), ..base() }).unwrap().hosts;
        let end = "10.0.0.5\tdb\n172.17.0.1\tgw\n::5\tsix\n::7\tseven\n172.17.0.2\tweb.x.y web\n";
        assert!(hosts.ends_with(end), "{hosts}");
        for bad in ["db", "db:", "db:x", ":1.2.3.4", "a b:1.2.3.4", "a\nb:1.2.3.4"] {
            let error = container_files(&FilesRequest { add_hosts: &entries(&[bad]), ..base() }).unwrap_err();
            assert!(error.to_string().starts_with("invalid --add-host"), "{error}");
        }
        let nowhere = FilesRequest { add_hosts: &good, gateway: None, ..base() };
        assert!(container_files(&nowhere).is_err());
    }

    #[test]
    fn the_hosts_own_network_has_the_hosts_files() {
        let added = vec!["db:10.0.0.5".to_owned()];
        let request = FilesRequest { host_network: true, address: None, add_hosts: &added, ..base() };
        let files = container_files(&request).unwrap();
        assert_eq!(files.hosts, "127.0.0.1 localhost myhost\n10.0.0.5\tdb\n");
        assert_eq!(files.resolv_conf, request.host_resolv_conf);
    }
}
