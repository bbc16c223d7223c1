//! Requests as the rest of the crate sees them: sent with limits on every wait, again after a
//! transient failure, and along redirects – which are followed here and not by the HTTP library, so that
//! credentials stay with their origin and https never turns into http.

use crate::challenge;
use crate::slots::{Slot, Way};
use crate::tls::{TlsConnector, TlsError, Trust};
use crate::url::{self, Origin};
use crate::{Cause, ClientConfig, Resolve};
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, NextTimeout, TcpConnector};
use ureq::{Agent, Proxy, SendBody};

/// Redirects of one request.
const MAX_REDIRECTS: usize = 10;
/// A registry that asks for more patience than this is told to the user instead.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);
/// The longest pause of our own choosing between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// Answers other than blobs, in bytes, unless the caller knows better.
pub(crate) const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// Addresses of one host that are tried.
const MAX_ADDRESSES: usize = 16;
/// A body of more bytes than this is sent when the server has said that it wants it: a refusal, or a redirect, costs a round
/// trip then and not the whole upload – after which the connection would be closed before its reason is read.
const ASK_FIRST_BYTES: u64 = 256 << 10;
/// Warnings kept for the user.
const MAX_WARNINGS: usize = 20;

/// What is sent.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) url: Uri,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) payload: Payload<'a>,
    /// For the origin of `url` alone.
    pub(crate) authorization: Option<HeaderValue>,
    /// Whether the answer may take long to come.
    pub(crate) patient: bool,
    /// Plain http was asked for, and may go on as plain http, whoever speaks it.
    pub(crate) may_be_http: bool,
}

/// The body that is sent.
pub(crate) enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    /// Holds a secret: never sent to another origin.
    Secret(&'a [u8]),
    Stream(Upload<'a>),
}

/// Content that is opened anew for each attempt.
pub(crate) struct Upload<'a> {
    pub(crate) open: &'a mut dyn FnMut() -> io::Result<Box<dyn Read>>,
    /// In bytes.
    pub(crate) size: u64,
    pub(crate) progress: &'a dyn Fn(u64),
}

/// What came back: any status, the body unread.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: ureq::Body,
    /// Where it came from, after redirects.
    pub(crate) url: Uri,
    /// True if redirects led away from the origin that was asked.
    pub(crate) foreign: bool,
}

/// A request that got no answer.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    /// Worth another attempt.
    transient: bool,
    /// The server may be speaking plain http.
    pub(crate) not_tls: bool,
    /// Nobody listens at that address.
    pub(crate) refused: bool,
}

impl From<Cause> for Failure {
    fn from(cause: Cause) -> Failure {
        Failure { cause, transient: false, not_tls: false, refused: false }
    }
}

/// The connection pool, and what is common to all requests.
pub(crate) struct Http {
    agent: Agent,
    pub(crate) trust: Arc<Trust>,
    proxies: crate::proxy::ProxyTable,
    pub(crate) retries: u32,
    backoff: Duration,
    pub(crate) idle_timeout: Duration,
    commit_timeout: Duration,
    warnings: Mutex<Vec<String>>,
    /// By authority: not before this time, as the host asked one of our requests. Several threads share a client, and a
    /// registry that limits its callers counts them all.
    throttled: Mutex<HashMap<String, Instant>>,
}

impl Http {
    pub(crate) fn new(config: &ClientConfig) -> Http {
        let insecure = config.insecure.iter().cloned().chain(config.rules.insecure_hosts()).collect();
        let trust = Trust::new(config.tls.clone(), config.tls_verify, insecure);
        let settings = Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(&config.user_agent)
            .accept("")
            .timeout_resolve(Some(config.connect_timeout))
            .timeout_connect(Some(config.connect_timeout))
            .timeout_per_read(Some(config.idle_timeout))
            .timeout_per_write(Some(config.idle_timeout))
            .max_idle_connections(32)
            .max_idle_connections_per_host(16)
            .build();
        let connector =
            ().chain(ConnectProxyConnector::default())
                .chain(TcpConnector::default())
                .chain(TlsConnector(trust.clone()));
        Http {
            agent: Agent::with_parts(settings, connector, Names(config.resolver.clone())),
            trust,
            proxies: crate::proxy::ProxyTable::new(&config.proxies),
            retries: config.retries,
            backoff: config.backoff,
            idle_timeout: config.idle_timeout,
            commit_timeout: config.commit_timeout,
            warnings: Mutex::default(),
            throttled: Mutex::default(),
        }
    }

    /// Sends a request until there is an answer that is not transient, or patience ends. A streamed upload is sent
    /// once: where its session stands after a break is for the caller to find out.
    pub(crate) fn send(&self, call: &mut Call<'_>) -> Result<Answer, Failure> {
        let retries = if matches!(call.payload, Payload::Stream(_)) { 0 } else { self.retries };
        let mut attempt = 0;
        loop {
            self.wait_for_turn(&call.url);
            let outcome = self.follow(call);
            let asked_for = match &outcome {
                Ok(answer) if is_transient_status(answer.status) => retry_after(&answer.headers),
                Err(failure) if failure.transient => None,
                _ => return outcome,
            };
            let pause = self.pause(attempt).max(asked_for.unwrap_or_default());
            let too_long = asked_for.is_some_and(|wait| wait > MAX_RETRY_AFTER);
            if let (Some(_), Some(authority), false) = (asked_for, call.url.authority(), too_long) {
                let mut throttled = self.throttled.lock().unwrap_or_else(PoisonError::into_inner);
                throttled.insert(authority.as_str().to_owned(), Instant::now() + pause);
            }
            if attempt >= retries || too_long {
                return outcome;
            }
            if let Ok(answer) = outcome {
                // Read to its end, the connection can be used again.
                let _ = read_bounded(answer.body, MAX_ANSWER_BYTES, self.idle_timeout);
            }
            if asked_for.is_none() {
                std::thread::sleep(pause);
            }
            attempt += 1;
        }
    }

    /// Where a host has said when it wants to be asked again: waits until then.
    fn wait_for_turn(&self, url: &Uri) {
        let authority = url.authority().map_or("", |a| a.as_str());
        let turn = self.throttled.lock().unwrap_or_else(PoisonError::into_inner).get(authority).copied();
        if let Some(wait) = turn.and_then(|turn| turn.checked_duration_since(Instant::now())) {
            std::thread::sleep(wait);
        }
    }

    /// How long to wait after the given number of failures: doubling, plus or minus half.
    pub(crate) fn pause(&self, attempt: u32) -> Duration {
        let doubled = self.backoff.saturating_mul(1 << attempt.min(10)).min(MAX_BACKOFF);
        // A fresh RandomState is seeded by the kernel: jitter without a crate for it.
        let random = std::collections::hash_map::RandomState::new().build_hasher().finish() % 1000;
        doubled / 2 + doubled.mul_f64(f64::from(u32::try_from(random).unwrap_or(0)) / 1000.0)
    }

    /// What registries warned about since the last call.
    pub(crate) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn follow(&self, call: &mut Call<'_>) -> Result<Answer, Failure> {
        let home = Origin::of(&call.url);
        let mut url = call.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let origin = Origin::of(&url);
            let foreign = origin != home;
            let mut answer = self.once(call, &url, foreign)?;
            answer.foreign = foreign;
            let Some(next) = redirect_target(&answer, &url, &call.method)? else { return Ok(answer) };
            let stays_http =
                call.may_be_http && origin.is_some_and(|origin| !origin.https) && Origin::of(&next).is_some();
            if !stays_http {
                self.check_downgrade(Origin::of(&url).as_ref(), &next)?;
            }
            url = next;
        }
        Err(Cause::Protocol(format!("more than {MAX_REDIRECTS} redirects, the last to {url}")).into())
    }

    /// https stays https, and http stays where it is allowed.
    pub(crate) fn check_downgrade(&self, from: Option<&Origin>, to: &Uri) -> Result<(), Failure> {
        let (Some(from), Some(to)) = (from, Origin::of(to)) else {
            return Err(Cause::Protocol("a URL that is neither http nor https".to_owned()).into());
        };
        if to.https || (!from.https && self.trust.allows_http(&to.authority)) || self.trust.is_insecure(&to.authority) {
            return Ok(());
        }
        Err(Cause::Protocol(format!("refused to go on to http://{}: that would leave https", to.authority)).into())
    }

    /// One exchange, without redirects. `foreign`: not the origin our credentials are for.
    fn once(&self, call: &mut Call<'_>, url: &Uri, foreign: bool) -> Result<Answer, Failure> {
        let mut source_error = None;
        let response = match &mut call.payload {
            Payload::Stream(upload) => {
                // Before the source is opened: see there.
                let _slot = Slot::take(url.authority().map_or("", |a| a.as_str()), Way::Up);
                let opened = (upload.open)().map_err(Cause::Source)?;
                let mut reader = Metered {
                    inner: opened,
                    left: upload.size,
                    sent: 0,
                    progress: upload.progress,
                    failed: &mut source_error,
                };
                let size = upload.size;
                let request = self.request(call, url, foreign, SendBody::from_reader(&mut reader), Some(size))?;
                self.agent.run(request)
            }
            Payload::Secret(_) if foreign => {
                let to = url.authority().map_or("", |a| a.as_str());
                return Err(Cause::Protocol(format!("refused to send credentials on to {to}")).into());
            }
            Payload::Bytes(bytes) | Payload::Secret(bytes) => {
                let bytes = *bytes;
                self.agent.run(self.request(call, url, foreign, bytes, None)?)
            }
            Payload::None => self.agent.run(self.request(call, url, foreign, (), None)?),
        };
        if let Some(error) = source_error {
            return Err(Cause::Source(error).into());
        }
        let (parts, body) = response.map_err(failure)?.into_parts();
        self.note_warnings(&parts.headers);
        Ok(Answer { status: parts.status, headers: parts.headers, body, url: url.clone(), foreign })
    }

    fn request<B: ureq::AsSendBody>(
        &self,
        call: &Call<'_>,
        url: &Uri,
        foreign: bool,
        body: B,
        size: Option<u64>,
    ) -> Result<Request<B>, Failure> {
        let mut request = Request::new(body);
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = url.clone();
        let headers = request.headers_mut();
        for (name, value) in &call.headers {
            headers.append(name, value.clone());
        }
        if let Some(size) = size {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
            if size > ASK_FIRST_BYTES {
                headers.insert(header::EXPECT, HeaderValue::from_static("100-continue"));
            }
        }
        if let Some(authorization) = call.authorization.as_ref().filter(|_| !foreign) {
            let mut value = authorization.clone();
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let proxy: Option<Proxy> = self.proxies.for_url(url).map_err(Cause::Connection)?;
        let answer_timeout = if call.patient { self.commit_timeout } else { self.idle_timeout };
        Ok(self.agent.configure_request(request).proxy(proxy).timeout_per_read(Some(answer_timeout)).build())
    }

    /// Something to be told to the user, once.
    pub(crate) fn warn(&self, text: String) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if warnings.len() < MAX_WARNINGS && !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    fn note_warnings(&self, headers: &HeaderMap) {
        for value in headers.get_all(header::WARNING) {
            let Some(rest) = value.to_str().ok().and_then(|v| v.strip_prefix("299 ")) else { continue };
            // `299 agent "text"`
            let quoted = rest.find('"').and_then(|at| rest.get(at..)).unwrap_or(rest);
            let text = crate::error::one_line(&challenge::parameter_value(quoted).0, 500);
            self.warn(text);
        }
    }
}

/// Where a redirect leads, if this is one that may be followed with this method.
fn redirect_target(answer: &Answer, url: &Uri, method: &Method) -> Result<Option<Uri>, Failure> {
    let reading = matches!(*method, Method::GET | Method::HEAD);
    let follow = match answer.status.as_u16() {
        301..=303 => reading,
        307 | 308 => true,
        _ => false,
    };
    if !follow {
        return Ok(None);
    }
    let location = answer.headers.get(header::LOCATION).and_then(|v| v.to_str().ok());
    let target = location.and_then(|l| url::resolve(url, l));
    match target {
        Some(target) => Ok(Some(target)),
        None => Err(Cause::Protocol(format!("a redirect ({}) without a usable Location", answer.status)).into()),
    }
}

pub(crate) fn is_transient_status(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502..=504)
}

/// `Retry-After`: seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Duration::try_from(date.duration_since(jiff::Timestamp::now())).ok()
}

/// Reads a whole body of at most `limit` bytes; `patience` bounds the whole of it, beyond the wait of each read.
pub(crate) fn read_bounded(body: ureq::Body, limit: u64, patience: Duration) -> Result<Vec<u8>, Failure> {
    if body.content_length().is_some_and(|length| length > limit) {
        return Err(Cause::TooLarge(limit).into());
    }
    let end = Instant::now() + patience.saturating_mul(2);
    let mut reader = body.into_reader().take(limit.saturating_add(1));
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failure(ureq::Error::from(error))),
        };
        bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
            return Err(Cause::TooLarge(limit).into());
        }
        if Instant::now() > end {
            return Err(Cause::Timeout("the answer comes too slowly".to_owned()).into());
        }
    }
    Ok(bytes)
}

/// Sorts the HTTP library's errors into ours.
pub(crate) fn failure(error: ureq::Error) -> Failure {
    let mut failure = Failure::from(Cause::Connection(String::new()));
    failure.cause = match error {
        ureq::Error::Timeout(ureq::Timeout::Resolve) => Cause::Timeout("looking up the host name".to_owned()),
        ureq::Error::Timeout(ureq::Timeout::Connect) => Cause::Timeout("connecting".to_owned()),
        ureq::Error::Timeout(ureq::Timeout::PerWrite | ureq::Timeout::SendBody) => {
            failure.transient = true;
            Cause::Timeout("sending".to_owned())
        }
        ureq::Error::Timeout(_) => {
            failure.transient = true;
            Cause::Timeout("waiting for the answer".to_owned())
        }
        ureq::Error::Io(error) => {
            failure.transient = is_transient_io(error.kind());
            failure.refused = error.kind() == io::ErrorKind::ConnectionRefused;
            Cause::Connection(plain(&error))
        }
        ureq::Error::HostNotFound => Cause::Connection("the host name is not known".to_owned()),
        ureq::Error::LargeResponseHeader(_, limit) => Cause::TooLarge(u64::try_from(limit).unwrap_or(u64::MAX)),
        ureq::Error::Other(error) => match error.downcast::<TlsError>() {
            Ok(error) => return tls_failure(*error),
            Err(error) => Cause::Connection(error.to_string()),
        },
        other => Cause::Protocol(other.to_string()),
    };
    failure
}

fn tls_failure(error: TlsError) -> Failure {
    let not_tls = matches!(error, TlsError::NotTls | TlsError::Closed);
    let cause = match error {
        TlsError::NotTls => Cause::PlainHttp,
        TlsError::Rustls(rustls::Error::InvalidCertificate(error)) => Cause::Certificate(error.to_string()),
        TlsError::Rustls(error) => Cause::Connection(format!("TLS: {error}")),
        other => Cause::Connection(other.to_string()),
    };
    Failure { cause, transient: false, not_tls, refused: false }
}

fn is_transient_io(kind: io::ErrorKind) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        kind,
        Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe | Kind::UnexpectedEof | Kind::TimedOut
    )
}

/// An I/O error in words, without "(os error 111)".
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" (os error").map_or(text.as_str(), |(before, _)| before);
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// Counts what is read for an upload, and holds it to its announced size.
struct Metered<'a> {
    inner: Box<dyn Read>,
    left: u64,
    sent: u64,
    progress: &'a dyn Fn(u64),
    failed: &'a mut Option<io::Error>,
}

impl Read for Metered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = match self.inner.read(buffer.get_mut(..most).unwrap_or_default()) {
            Ok(0) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("it ends {} bytes before its announced size", self.left),
            )),
            other => other,
        };
        match count {
            Ok(count) => {
                let bytes = u64::try_from(count).unwrap_or(0);
                self.left = self.left.saturating_sub(bytes);
                self.sent += bytes;
                (self.progress)(self.sent);
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.read(buffer),
            Err(error) => {
                let kind = error.kind();
                *self.failed = Some(error);
                Err(kind.into())
            }
        }
    }
}

/// Our resolver as ureq wants it.
struct Names(Arc<dyn Resolve>);

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, _: &ureq::config::Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let authority = uri.authority().map_or("", |a| a.as_str());
        let host = url::host_of(authority);
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let mut found = self.empty();
        if let Ok(ip) = host.parse() {
            found.push(std::net::SocketAddr::new(ip, port));
            return Ok(found);
        }
        let addresses = self.0.resolve(host, port).map_err(|e| {
            let why = plain(&e);
            let told = why.contains(host);
            ureq::Error::Other(if told { why } else { format!("cannot look up {host:?}: {why}") }.into())
        })?;
        for address in addresses.into_iter().take(MAX_ADDRESSES) {
            found.push(address);
        }
        if found.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(found) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, value.parse().unwrap());
        headers
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after(&headers("7")), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(&headers("soon")), None);
        let past = retry_after(&headers("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert_eq!(past, None, "a date in the past is no wait");
        let later = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(100);
        let text = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&later).unwrap();
        let wait = retry_after(&headers(&text)).unwrap();
        assert!((90..=100).contains(&wait.as_secs()), "{wait:?}");
    }

    #[test]
    fn a_reader_that_ends_early_is_the_sources_fault() {
        let mut failed = None;
        let mut metered =
            Metered { inner: Box::new(&b"abc"[..]), left: 5, sent: 0, progress: &|_| {}, failed: &mut failed };
        assert!(io::copy(&mut metered, &mut io::sink()).is_err());
        assert!(failed.unwrap().to_string().contains("ends 2 bytes before"));
    }
}
