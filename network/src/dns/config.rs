//! /etc/resolv.conf and /etc/hosts, read as the C library reads them (resolv.conf(5), hosts(5)).

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The most servers asked, as MAXNS.
pub(crate) const MAX_SERVERS: usize = 3;
/// The most search domains: the historical limit is 6, today's none.
const MAX_SEARCH: usize = 32;
const MAX_NDOTS: usize = 15;
const MAX_TIMEOUT_S: u64 = 30;
const MAX_ATTEMPTS: usize = 5;

/// What resolv.conf says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    /// All servers, in order. One that is named with an interface (`fe80::1%eth0`) is left out.
    pub(crate) nameservers: Vec<IpAddr>,
    pub(crate) search: Vec<String>,
    /// The words of all options lines.
    pub(crate) options: Vec<String>,
    /// So many dots make a name be tried as it is before the search domains are.
    pub(crate) ndots: usize,
    pub(crate) timeout: Duration,
    pub(crate) attempts: usize,
}

impl ResolvConf {
    pub(crate) fn parse(text: &str) -> ResolvConf {
        let mut conf = ResolvConf {
            nameservers: Vec::new(),
            search: Vec::new(),
            options: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for line in text.lines() {
            // Comments stand on lines of their own only; what follows a server's address is ignored.
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    conf.nameservers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()))
                }
                Some("search") => conf.search = words.take(MAX_SEARCH).map(str::to_owned).collect(),
                Some("domain") => conf.search = words.take(1).map(str::to_owned).collect(),
                Some("options") => words.for_each(|word| conf.option(word)),
                _ => {}
            }
        }
        conf
    }

    fn option(&mut self, word: &str) {
        let (name, value) = word.split_once(':').unwrap_or((word, ""));
        match (name, value.parse::<usize>()) {
            ("ndots", Ok(number)) => self.ndots = number.min(MAX_NDOTS),
            ("attempts", Ok(number)) => self.attempts = number.clamp(1, MAX_ATTEMPTS),
            ("timeout", Ok(number)) => {
                let seconds = u64::try_from(number).unwrap_or(MAX_TIMEOUT_S);
                self.timeout = Duration::from_secs(seconds.clamp(1, MAX_TIMEOUT_S));
            }
            _ => {}
        }
        self.options.push(word.to_owned());
    }

    /// The servers to ask: where none is named, the one of this host.
    pub(crate) fn servers(&self) -> Vec<IpAddr> {
        match self.nameservers.is_empty() {
            true => vec![Ipv4Addr::LOCALHOST.into()],
            false => self.nameservers.iter().copied().take(MAX_SERVERS).collect(),
        }
    }

    /// The full names to ask for, in order.
    pub(crate) fn candidates(&self, host: &str) -> Vec<String> {
        if let Some(absolute) = host.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let searched = self.search.iter().filter_map(|domain| {
            let domain = domain.trim_matches('.');
            (!domain.is_empty()).then(|| format!("{host}.{domain}"))
        });
        let own = std::iter::once(host.to_owned());
        match host.bytes().filter(|byte| *byte == b'.').count() >= self.ndots {
            true => own.chain(searched).collect(),
            false => searched.chain(own).collect(),
        }
    }
}

/// The addresses that a hosts file has for a name.
pub(crate) fn hosts_entries(text: &str, host: &str) -> Vec<IpAddr> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let of_line = |line: &str| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let address = words.next()?.parse::<IpAddr>().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    };
    text.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_as_the_c_library_reads_it() {
        let conf = ResolvConf::parse(
            "# comment\n; another\ndomain old.example\nsearch a.example b.example.\nnameserver 10.0.0.1 # first\n\
             nameserver fe80::1%eth0\nnameserver ::1\nnameserver x\noptions ndots:2 timeout:99 attempts:0 edns0\noptions rotate\n",
        );
        assert_eq!(conf.nameservers, [IpAddr::from([10, 0, 0, 1]), "::1".parse().unwrap_or([0; 4].into())]);
        assert_eq!((conf.ndots, conf.timeout.as_secs(), conf.attempts), (2, 30, 1));
        assert_eq!(conf.options, ["ndots:2", "timeout:99", "attempts:0", "edns0", "rotate"]);
        assert_eq!(conf.candidates("web"), ["web.a.example", "web.b.example", "web"]);
        assert_eq!(conf.candidates("web.x.y"), ["web.x.y", "web.x.y.a.example", "web.x.y.b.example"]);
        assert_eq!(conf.candidates("web."), ["web"]);
        assert_eq!(ResolvConf::parse("").servers(), [IpAddr::from([127, 0, 0, 1])]);
    }

    #[test]
    fn hosts_entries_of_all_lines_and_spellings() {
        let text = "127.0.0.1 localhost\n# 1.1.1.1 web\n10.0.0.1\tdb.example DB # db2\n::5 db\nx db\n";
        assert_eq!(hosts_entries(text, "db"), [IpAddr::from([10, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 5])]);
        assert!(hosts_entries(text, "web").is_empty() && hosts_entries(text, "db2").is_empty());
    }
}
