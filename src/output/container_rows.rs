//! Containers as `ps` shows them.

use super::table::ellipsis;
use super::units;
use crate::options::filter::Filters;
use engine::{ContainerSummary, PortSpec, Protocol, Status};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

/// Characters of a command that a table shows, quotes not counted.
const COMMAND_WIDTH: usize = 20;

/// The fields that `--format` knows of a container.
pub(crate) fn row(c: &ContainerSummary, now: Timestamp, whole: bool) -> Value {
    let id = if whole { c.id.clone() } else { c.id.chars().take(12).collect() };
    let command = if whole { c.command.clone() } else { ellipsis(&c.command, COMMAND_WIDTH) };
    let labels: Vec<String> = c.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mounts = c.mounts.iter().map(|m| if whole { m.clone() } else { ellipsis(m, 15) });
    let named = c.mounts.iter().filter(|m| !m.starts_with('/')).count();
    let mut row = json!({
        "ID": id,
        "Image": image_name(&c.image, whole),
        "Command": format!("\"{command}\""),
        "CreatedAt": at(c.created),
        "RunningFor": format!("{} ago", units::duration(since(c.created, now))),
        "Status": status(c, now),
        "State": c.status.as_str(),
        "Health": c.health.clone().unwrap_or_default(),
        "Ports": ports(&c.ports, &c.exposed),
        "Names": c.name,
        "Labels": labels.join(","),
        "Mounts": mounts.collect::<Vec<_>>().join(","),
        "LocalVolumes": named.to_string(),
        "Networks": c.networks.join(","),
        "Size": "0B",
    });
    if let Some(bytes) = c.size_bytes {
        row["Size"] = units::size(bytes).into();
    }
    row
}

/// An image named by its whole digest is shown shortened.
fn image_name(name: &str, whole: bool) -> String {
    match name.strip_prefix("sha256:") {
        Some(hex) if !whole && hex.len() == 64 => hex[..12].to_owned(),
        _ => name.to_owned(),
    }
}

/// `2026-11-21 04:00:00 +0000 UTC`, in the user's zone.
pub(crate) fn at(time: Timestamp) -> String {
    time.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S %z UTC").to_string()
}

/// From `start` to `now`; none of it where the clock was set back.
pub(crate) fn since(start: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(start)).unwrap_or_default()
}

/// `Up 2 minutes (healthy)`, `Exited (0) 3 hours ago`.
fn status(c: &ContainerSummary, now: Timestamp) -> String {
    let ago = |time: Option<Timestamp>| units::duration(since(time.unwrap_or(now), now));
    match c.status {
        Status::Created => "Created".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Restarting => format!("Restarting ({}) {} ago", c.exit_code, ago(c.finished_at)),
        Status::Exited => format!("Exited ({}) {} ago", c.exit_code, ago(c.finished_at)),
        Status::Paused => format!("Up {} (Paused)", ago(c.started_at)),
        Status::Running => match c.health.as_deref() {
            None | Some("" | "none") => format!("Up {}", ago(c.started_at)),
            Some("starting") => format!("Up {} (health: starting)", ago(c.started_at)),
            Some(health) => format!("Up {} ({health})", ago(c.started_at)),
        },
    }
}

/// `0.0.0.0:80-81->80-81/tcp, [::]:80-81->80-81/tcp, 90/tcp`.
pub(crate) fn ports(published: &[PortSpec], exposed: &[(u16, Protocol)]) -> String {
    let mut words = Vec::new();
    for host in ["0.0.0.0", "[::]"] {
        words.extend(runs(published, host));
    }
    let mut others: Vec<String> = published.iter().filter_map(|p| p.host_ip).map(host_text).collect();
    others.sort();
    others.dedup();
    for host in others.iter().filter(|h| !matches!(h.as_str(), "0.0.0.0" | "[::]")) {
        words.extend(runs(published, host));
    }
    let is_published = |port: &(u16, Protocol)| published.iter().any(|p| (p.container_port, p.protocol) == *port);
    let mut bare: Vec<_> = exposed.iter().filter(|port| !is_published(port)).collect();
    bare.sort();
    bare.dedup();
    let mut at = 0;
    while at < bare.len() {
        let (first, protocol) = *bare[at];
        let mut last = first;
        while let Some((next, p)) = bare.get(at + 1).filter(|(n, p)| last.checked_add(1) == Some(*n) && *p == protocol)
        {
            (last, at) = (*next, at + 1);
            debug_assert_eq!(*p, protocol);
        }
        words.push(if first == last { format!("{first}/{protocol}") } else { format!("{first}-{last}/{protocol}") });
        at += 1;
    }
    words.join(", ")
}

fn host_text(ip: std::net::IpAddr) -> String {
    match ip {
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        ip => ip.to_string(),
    }
}

/// The ports on one address, neighbours joined.
fn runs(published: &[PortSpec], host: &str) -> Vec<String> {
    let on_host = |p: &&PortSpec| match p.host_ip {
        None => matches!(host, "0.0.0.0" | "[::]"),
        Some(ip) => host_text(ip) == host,
    };
    let mut ports: Vec<&PortSpec> = published.iter().filter(on_host).collect();
    ports.sort_by_key(|p| (p.protocol, p.container_port, p.host_port));
    let mut words = Vec::new();
    let mut rest = &ports[..];
    while let Some((first, others)) = rest.split_first() {
        let follows = |(at, p): &(usize, &&PortSpec)| {
            let step = u16::try_from(at + 1).unwrap_or(u16::MAX);
            p.protocol == first.protocol
                && Some(p.container_port) == first.container_port.checked_add(step)
                && Some(p.host_port) == first.host_port.checked_add(step)
        };
        let count = others.iter().enumerate().take_while(follows).count();
        let range = |from: u16| match u16::try_from(count) {
            Ok(0) | Err(_) => from.to_string(),
            Ok(n) => format!("{from}-{}", from.saturating_add(n)),
        };
        let (outside, inside) = (range(first.host_port), range(first.container_port));
        words.push(format!("{host}:{outside}->{inside}/{}", first.protocol));
        rest = &others[count..];
    }
    words
}

/// Whether a container passes the filters that need no look-up.
pub(crate) fn matches_filters(c: &ContainerSummary, filters: &Filters) -> bool {
    let port = |text: &str| {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (from, to) = ports.split_once('-').unwrap_or((ports, ports));
        let range = from.parse::<u16>().ok().zip(to.parse::<u16>().ok());
        (range.unwrap_or((0, 0)), protocol.to_owned())
    };
    let publishes = |text: &str| {
        let ((from, to), protocol) = port(text);
        c.ports.iter().any(|p| (from..=to).contains(&p.host_port) && p.protocol.to_string() == protocol)
    };
    let exposes = |text: &str| {
        let ((from, to), protocol) = port(text);
        let published = c.ports.iter().map(|p| (p.container_port, p.protocol));
        let mut all = published.chain(c.exposed.iter().copied());
        all.any(|(p, proto)| (from..=to).contains(&p) && proto.to_string() == protocol)
    };
    filters.any("id", |id| c.id.starts_with(id))
        && filters.any("name", |name| name_matches(&c.name, name))
        && filters.any("status", |status| c.status.as_str() == status)
        && filters.any("health", |health| c.health.as_deref().unwrap_or("none") == health)
        && filters.any("network", |network| c.networks.iter().any(|n| n == network))
        && filters.any("volume", |volume| c.mounts.iter().any(|m| m == volume))
        && filters.any("publish", publishes)
        && filters.any("expose", exposes)
        && filters.any("exited", |code| c.status == Status::Exited && code.parse() == Ok(c.exit_code))
        && filters.labels(&c.labels)
}

/// A part of the name; `^` and `$` tie it to the beginning and the end.
fn name_matches(name: &str, pattern: &str) -> bool {
    let pattern = pattern.strip_prefix('/').unwrap_or(pattern);
    let (start, pattern) = pattern.strip_prefix('^').map_or((false, pattern), |p| (true, p));
    let (end, pattern) = pattern.strip_suffix('$').map_or((false, pattern), |p| (true, p));
    let pattern = pattern.strip_prefix('/').unwrap_or(pattern);
    match (start, end) {
        (true, true) => name == pattern,
        (true, false) => name.starts_with(pattern),
        (false, true) => name.ends_with(pattern),
        (false, false) => name.contains(pattern),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(host: Option<&str>, host_port: u16, container_port: u16) -> PortSpec {
        PortSpec { host_ip: host.and_then(|h| h.parse().ok()), host_port, container_port, protocol: Protocol::Tcp }
    }

    #[test]
    fn neighbouring_ports_are_joined() {
        let tcp = Protocol::Tcp;
        for (published, exposed, expected) in [
            (vec![port(None, 80, 80)], vec![(80, tcp)], "0.0.0.0:80->80/tcp, [::]:80->80/tcp"),
            (
                vec![port(Some("127.0.0.1"), 80, 80), port(Some("127.0.0.1"), 81, 81)],
                vec![],
                "127.0.0.1:80-81->80-81/tcp",
            ),
            (
                vec![port(Some("127.0.0.1"), 80, 80), port(Some("127.0.0.1"), 90, 81)],
                vec![],
                "127.0.0.1:80->80/tcp, 127.0.0.1:90->81/tcp",
            ),
            (vec![port(Some("::1"), 80, 80)], vec![(90, tcp)], "[::1]:80->80/tcp, 90/tcp"),
            (vec![], vec![(82, tcp), (80, tcp), (81, tcp), (90, Protocol::Udp)], "80-82/tcp, 90/udp"),
        ] {
            assert_eq!(ports(&published, &exposed), expected);
        }
    }

    fn summary(status: Status) -> ContainerSummary {
        ContainerSummary {
            id: "ab".repeat(32),
            name: "web".into(),
            image: "busybox".into(),
            image_id: String::new(),
            command: "sh -c 'sleep 10000; echo'".into(),
            created: Timestamp::UNIX_EPOCH,
            status,
            exit_code: 3,
            started_at: Some(Timestamp::UNIX_EPOCH),
            finished_at: Some(Timestamp::UNIX_EPOCH),
            health: None,
            ports: vec![],
            exposed: vec![],
            labels: [("a".to_owned(), "1".to_owned())].into(),
            mounts: vec![],
            networks: vec!["bridge".into()],
            size_bytes: None,
        }
    }

    #[test]
    fn states_are_dockers_words() -> Result<(), jiff::Error> {
        let now = Timestamp::from_second(7200)?;
        for (state, health, expected) in [
            (Status::Created, None, "Created"),
            (Status::Running, None, "Up 2 hours"),
            (Status::Running, Some("healthy"), "Up 2 hours (healthy)"),
            (Status::Running, Some("starting"), "Up 2 hours (health: starting)"),
            (Status::Paused, None, "Up 2 hours (Paused)"),
            (Status::Exited, None, "Exited (3) 2 hours ago"),
            (Status::Restarting, None, "Restarting (3) 2 hours ago"),
        ] {
            let summary = ContainerSummary { health: health.map(str::to_owned), ..summary(state) };
            let row = row(&summary, now, false);
            assert_eq!(row["Status"], expected);
            assert_eq!(row["ID"], "abababababab");
            assert_eq!(row["Command"], "\"sh -c 'sleep 10000;…\"");
        }
        Ok(())
    }

    #[test]
    fn filters_choose() -> Result<(), crate::error::CliError> {
        let c = summary(Status::Exited);
        for (filter, expected) in [
            ("name=we", true),
            ("name=^web$", true),
            ("name=^eb", false),
            ("id=abab", true),
            ("status=exited", true),
            ("exited=3", true),
            ("exited=0", false),
            ("label=a=1", true),
            ("label=b", false),
            ("network=bridge", true),
            ("health=none", true),
        ] {
            let key = filter.split('=').next().unwrap_or_default();
            let filters = Filters::parse(&[filter.to_owned()], &[key])?;
            assert_eq!(matches_filters(&c, &filters), expected, "{filter}");
        }
        Ok(())
    }
}
