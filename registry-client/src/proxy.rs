//! Which proxy a request goes through, by the rules of HTTP_PROXY, HTTPS_PROXY and NO_PROXY.

use crate::Proxies;
use crate::url;
use std::net::IpAddr;
use ureq::Proxy;
use ureq::http::Uri;

/// The proxy variables, taken apart once.
pub(crate) struct ProxyTable {
    http: Option<Result<Proxy, String>>,
    https: Option<Result<Proxy, String>>,
    exceptions: Vec<Exception>,
}

enum Exception {
    All,
    Network(ipnet::IpNet),
    /// A domain with all under it, and a port if one is given.
    Domain(String, Option<u16>),
}

impl ProxyTable {
    pub(crate) fn new(proxies: &Proxies) -> ProxyTable {
        let parse = |text: &Option<String>| {
            let text = text.as_deref().map(str::trim).filter(|t| !t.is_empty())?;
            let proxy = Proxy::new(text).map_err(|e| e.to_string()).and_then(|proxy| match proxy.protocol() {
                ureq::ProxyProtocol::Http | ureq::ProxyProtocol::Https => Ok(proxy),
                _ => Err("only http and https proxies are supported".to_owned()),
            });
            Some(proxy.map_err(|e| format!("the proxy {:?} cannot be used: {e}", without_password(text))))
        };
        ProxyTable {
            http: parse(&proxies.http),
            https: parse(&proxies.https),
            exceptions: proxies.no_proxy.as_deref().unwrap_or("").split(',').filter_map(Exception::parse).collect(),
        }
    }

    pub(crate) fn for_url(&self, target: &Uri) -> Result<Option<Proxy>, String> {
        let authority = target.authority().map_or("", |a| a.as_str());
        let https = target.scheme_str() == Some("https");
        // Loopback is never behind a proxy, whatever the variables say (as in Go).
        if crate::tls::is_loopback(authority) || self.exceptions.iter().any(|e| e.matches(authority, https)) {
            return Ok(None);
        }
        (if https { &self.https } else { &self.http }).clone().transpose()
    }
}

fn without_password(text: &str) -> &str {
    text.rsplit_once('@').map_or(text, |(_, host)| host)
}

impl Exception {
    fn parse(text: &str) -> Option<Exception> {
        let text = text.trim().to_ascii_lowercase();
        if text.is_empty() {
            return None;
        }
        if text == "*" {
            return Some(Exception::All);
        }
        if let Ok(network) = text.parse::<ipnet::IpNet>() {
            return Some(Exception::Network(network));
        }
        if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Some(Exception::Network(address.into()));
        }
        let port = url::port_of(&text);
        let host = if port.is_some() { url::host_of(&text) } else { &text };
        let domain = host.trim_start_matches('*').trim_start_matches('.');
        Some(Exception::Domain(domain.to_owned(), port))
    }

    fn matches(&self, authority: &str, https: bool) -> bool {
        let host = url::host_of(authority);
        match self {
            Exception::All => true,
            Exception::Network(network) => host.parse::<IpAddr>().is_ok_and(|ip| network.contains(&ip)),
            Exception::Domain(domain, port) => {
                let actual = url::port_of(authority).unwrap_or(if https { 443 } else { 80 });
                let under =
                    host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
                under && port.is_none_or(|p| p == actual)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_knows_domains_addresses_ranges_and_ports() {
        let proxies = Proxies {
            http: Some("http://proxy:3128".to_owned()),
            https: Some("http://user:secret@proxy:3128".to_owned()),
            no_proxy: Some("example.org, .corp.io,10.0.0.0/8,192.0.2.7,r.net:5000".to_owned()),
        };
        let table = ProxyTable::new(&proxies);
        let direct = |url: &str| table.for_url(&url.parse().unwrap()).unwrap().is_none();
        for url in [
            "https://example.org/",
            "https://a.example.org/",
            "http://x.corp.io/",
            "http://10.1.2.3/",
            "http://192.0.2.7:80/",
            "https://r.net:5000/",
            "http://localhost:5000/",
            "http://127.0.0.1/",
        ] {
            assert!(direct(url), "{url}");
        }
        for url in ["https://badexample.org/", "https://r.net/", "http://11.0.0.1/", "https://docker.io/"] {
            assert!(!direct(url), "{url}");
        }
    }

    #[test]
    fn a_proxy_that_is_none_is_named_without_its_password() {
        let table = ProxyTable::new(&Proxies { http: Some("gopher://u:pw@x".to_owned()), ..Proxies::default() });
        let error = table.for_url(&"http://r.io/".parse().unwrap()).unwrap_err();
        assert!(error.contains("\"x\"") && !error.contains("pw"), "{error}");
    }
}
