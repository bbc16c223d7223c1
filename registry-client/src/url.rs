//! The little that is needed of URLs: origins, relative references, query parameters.

use ureq::http::Uri;

/// A `scheme://authority` pair: where credentials may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) https: bool,
    pub(crate) authority: String,
}

impl Origin {
    pub(crate) fn of(url: &Uri) -> Option<Origin> {
        let https = match url.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = url.authority()?.as_str();
        // user:password@ in a URL from a registry is nothing we want to send.
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        Some(Origin { https, authority: normal_authority(authority, https) })
    }

    pub(crate) fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }
}

/// Lower case, without the scheme's own port: equal texts are equal places.
fn normal_authority(authority: &str, https: bool) -> String {
    let default = if https { ":443" } else { ":80" };
    let lower = authority.to_ascii_lowercase();
    lower.strip_suffix(default).unwrap_or(&lower).to_owned()
}

/// The host of `host`, `host:port`, `[v6]` or `[v6]:port`, without brackets.
pub(crate) fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(host, _)| host);
    }
    authority.split_once(':').map_or(authority, |(host, _)| host)
}

/// The port that an authority names itself.
pub(crate) fn port_of(authority: &str) -> Option<u16> {
    let after = authority.rsplit_once(']').map_or(authority, |(_, rest)| rest);
    after.rsplit_once(':').and_then(|(_, port)| port.parse().ok())
}

/// Resolves a `Location` against the URL it came from (RFC 3986, without `..`: no registry sends that).
pub(crate) fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split_once('#').map_or(location, |(before, _)| before);
    let scheme = base.scheme_str()?;
    let authority = base.authority()?.as_str();
    let absolute = if location.starts_with("http://") || location.starts_with("https://") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", base.path())
    } else if location.split(['/', '?']).next().is_some_and(|first| first.contains(':')) {
        return None; // another scheme
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let url: Uri = absolute.parse().ok()?;
    // A `user:password@` would be sent as credentials.
    let clean = url.authority().is_some_and(|a| !a.as_str().contains('@'));
    Origin::of(&url).filter(|_| clean).map(|_| url)
}

/// `url` with one more query parameter.
pub(crate) fn with_query(url: &Uri, name: &str, value: &str) -> Option<Uri> {
    let text = url.to_string();
    let separator = if url.query().is_some() { '&' } else { '?' };
    format!("{text}{separator}{name}={}", encode(value)).parse().ok()
}

/// Percent-encodes all but RFC 3986's unreserved characters.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Undoes percent-encoding; what is no text then loses its meaning.
pub(crate) fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| byte == b'%').and_then(|pair| std::str::from_utf8(pair).ok());
        match hex.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(decoded) => {
                out.push(decoded);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// `a=b&c=d` for a query or a form.
pub(crate) fn encode_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let pairs: Vec<String> = pairs.into_iter().map(|(k, v)| format!("{}={}", encode(k), encode(v))).collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(base: &str, location: &str) -> String {
        resolve(&base.parse().unwrap(), location).map_or_else(|| "none".to_owned(), |u| u.to_string())
    }

    #[test]
    fn locations_of_every_shape_lead_somewhere() {
        let base = "https://r.io:5000/v2/a/blobs/uploads/?x=1";
        assert_eq!(resolved(base, "https://cdn.io/x"), "https://cdn.io/x");
        assert_eq!(resolved(base, "//cdn.io/x"), "https://cdn.io/x");
        assert_eq!(resolved(base, "/v2/u?s=1"), "https://r.io:5000/v2/u?s=1");
        assert_eq!(resolved(base, "abc?s=1"), "https://r.io:5000/v2/a/blobs/uploads/abc?s=1");
        assert_eq!(resolved(base, "?s=2"), "https://r.io:5000/v2/a/blobs/uploads/?s=2");
        assert_eq!(resolved(base, "file:///etc/passwd"), "none");
        assert_eq!(resolved(base, "ftp://x/y"), "none");
        assert_eq!(resolved(base, "https://user:pw@cdn.io/x"), "none");
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origin = |text: &str| Origin::of(&text.parse().unwrap()).unwrap();
        assert_eq!(origin("https://R.io/x"), origin("https://r.io:443/y"));
        assert_ne!(origin("https://r.io/x"), origin("http://r.io/x"));
        assert_ne!(origin("https://r.io/x"), origin("https://r.io:444/x"));
        assert_ne!(origin("https://r.io/x"), origin("https://r.io.evil/x"));
        assert_eq!(origin("https://a:b@r.io/x").authority, "r.io");
    }

    #[test]
    fn hosts_and_ports_come_apart() {
        for (authority, host, port) in
            [("a", "a", None), ("a:1", "a", Some(1)), ("[::1]", "::1", None), ("[::1]:5000", "::1", Some(5000))]
        {
            assert_eq!((host_of(authority), port_of(authority)), (host, port));
        }
    }

    #[test]
    fn queries_are_appended_and_escaped() {
        let url: Uri = "http://h/p?a=b".parse().unwrap();
        assert_eq!(with_query(&url, "digest", "sha256:1").unwrap().to_string(), "http://h/p?a=b&digest=sha256%3A1");
        let url: Uri = "http://h/p".parse().unwrap();
        assert_eq!(with_query(&url, "q", "a b").unwrap().to_string(), "http://h/p?q=a%20b");
    }
}
