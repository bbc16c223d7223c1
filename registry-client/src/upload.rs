//! Blobs going out: skipped, mounted or sent. A broken upload goes on where the registry says it stands, else it starts
//! over from the file; a body that is too large for what stands in front of the registry goes in chunks.

use crate::auth::Target;
use crate::blob::shown;
use crate::http::{self, Answer, Payload, Upload};
use crate::registry::{Address, Ask};
use crate::url::{self, Origin};
use crate::{Cause, Registry, RegistryError};
use oci::{Descriptor, Digest, Reference};
use std::io::{self, Read};
use ureq::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};

/// What a registry that refuses a whole blob as too large gets at a time, in bytes: proxies like to end at 100 MB.
const FIRST_CHUNK_BYTES: u64 = 64 << 20;
/// The smallest chunk tried after that, in bytes. (nginx's own limit is 1 MiB.)
const LEAST_CHUNK_BYTES: u64 = 512 << 10;
/// However patient: after this many broken connections an upload is given up.
const MAX_RESUMPTIONS: u32 = 100;

/// How a blob came to be in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobPush {
    /// It was there.
    Existing,
    /// The registry took it over from another of its repositories.
    Mounted(String),
    /// We sent it.
    Uploaded,
}

/// Begins reading content at an offset.
type Open<'a> = &'a mut dyn FnMut(u64) -> io::Result<Box<dyn Read>>;

/// A blob on its way.
struct Sending<'a> {
    registry: &'a Registry,
    target: &'a Target,
    what: &'a str,
    blob: &'a Descriptor,
    open: Open<'a>,
    progress: &'a dyn Fn(u64),
    /// Sent at a time; none: all at once.
    chunk_bytes: Option<u64>,
}

/// An upload as the registry knows it.
#[derive(Clone)]
struct Session {
    /// Its `Location`, as it is.
    url: Uri,
    /// Bytes that the registry has.
    offset: u64,
    /// `OCI-Chunk-Min-Length`.
    least_bytes: u64,
}

impl Registry {
    /// Brings a blob into a repository: skipped if it is there, mounted from one of `mount_from` (repository
    /// paths of the same registry) if the registry does that, else sent. `open` gives the content from an offset on, and
    /// is called again for each attempt; `progress` is told the bytes sent so far.
    pub fn push_blob(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        mount_from: &[String],
        open: &mut dyn FnMut(u64) -> io::Result<Box<dyn Read>>,
        progress: &dyn Fn(u64),
    ) -> Result<BlobPush, RegistryError> {
        let what = format!("upload blob {}", shown(&blob.digest));
        let target = self.inner.home(repository, &what)?;
        if self.has_blob(&target, &blob.digest, "pull,push")? {
            return Ok(BlobPush::Existing);
        }
        let source = mount_from.iter().find(|source| **source != target.repository);
        let session = self.start_upload(&target, &what, source, &blob.digest)?;
        if session.status == StatusCode::CREATED {
            return Ok(BlobPush::Mounted(source.cloned().unwrap_or_default()));
        }
        let sending = Sending { registry: self, target: &target, what: &what, blob, open, progress, chunk_bytes: None };
        sending.run(&session)?;
        Ok(BlobPush::Uploaded)
    }

    fn start_upload(
        &self,
        target: &Target,
        what: &str,
        mount_from: Option<&String>,
        digest: &Digest,
    ) -> Result<Answer, RegistryError> {
        let mut path = format!("/v2/{}/blobs/uploads/", target.repository);
        let mut scopes = vec![target.scope("pull,push")];
        if let Some(source) = mount_from {
            path = format!("{path}?{}", url::encode_pairs([("mount", digest.as_str()), ("from", source)]));
            scopes.push(format!("repository:{source}:pull"));
        }
        let ask = Ask { method: Method::POST, payload: Payload::Bytes(&[]), scopes, ..Ask::get(target, what, &path) };
        let answer = self.inner.expect(ask, &[201, 202]);
        match answer {
            // Not being allowed to mount is no reason not to upload.
            Err(error) if mount_from.is_some() && error.status().is_some() => {
                self.start_upload(target, what, None, digest)
            }
            other => other,
        }
    }
}

impl Sending<'_> {
    /// Sends all of it, whatever breaks on the way, while there is hope.
    fn run(mut self, opened: &Answer) -> Result<(), RegistryError> {
        let mut session = self.beginning(opened)?;
        let (mut failures, mut resumptions) = (0, 0);
        loop {
            let begun_at = session.offset;
            let error = match self.send(&mut session) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if error.status() == Some(413) && self.take_smaller_chunks(session.least_bytes) {
                session = self.fresh()?;
                continue;
            }
            if session.offset > begun_at {
                failures = 0;
            }
            let http = &self.registry.inner.http;
            if !may_pass(&error) || failures >= http.retries || resumptions >= MAX_RESUMPTIONS {
                return Err(error);
            }
            std::thread::sleep(http.pause(failures));
            failures += 1;
            resumptions += 1;
            // A session may be spoilt by what broke it: then there is a new one.
            session = match self.standing(&session) {
                Some(standing) => standing,
                None => self.fresh()?,
            };
        }
    }

    fn fresh(&self) -> Result<Session, RegistryError> {
        let answer = self.registry.start_upload(self.target, self.what, None, &self.blob.digest)?;
        self.beginning(&answer)
    }

    /// A session that was just opened; `Range: 0-0` is what some say of nothing.
    fn beginning(&self, answer: &Answer) -> Result<Session, RegistryError> {
        Ok(Session { offset: 0, ..self.session(answer, 0)? })
    }

    /// After a 413; false if there is nothing smaller to try.
    fn take_smaller_chunks(&mut self, least_bytes: u64) -> bool {
        let next = self.chunk_bytes.map_or(FIRST_CHUNK_BYTES.min(self.blob.size / 2), |bytes| bytes / 4);
        let next = next.max(LEAST_CHUNK_BYTES).max(least_bytes);
        let smaller = next < self.chunk_bytes.unwrap_or(self.blob.size);
        self.chunk_bytes = Some(next);
        smaller
    }

    /// The rest of the content. What the session has by now stays in it, also after an error.
    fn send(&mut self, session: &mut Session) -> Result<(), RegistryError> {
        let size = self.blob.size;
        if session.offset == 0 && self.chunk_bytes.is_none() {
            return self.commit(session, size);
        }
        while session.offset < size {
            let most = self.chunk_bytes.unwrap_or(size).max(session.least_bytes);
            let end = size.min(session.offset.saturating_add(most));
            *session = self.send_chunk(session, end)?;
        }
        self.commit(session, 0)
    }

    /// PUT: closes the session, with the last `size` bytes of the content.
    fn commit(&mut self, session: &Session, size: u64) -> Result<(), RegistryError> {
        let url = url::with_query(&session.url, "digest", self.blob.digest.as_str());
        let url = url.ok_or_else(|| self.error(Cause::Protocol("an unusable upload URL".to_owned())))?;
        self.put(Method::PUT, url, self.blob.size.saturating_sub(size), size, None, &[201, 200, 204])?;
        Ok(())
    }

    /// PATCH: the bytes up to `end`. Returns where the session stands after it.
    fn send_chunk(&mut self, session: &Session, end: u64) -> Result<Session, RegistryError> {
        let range = format!("{}-{}", session.offset, end.saturating_sub(1));
        let range = HeaderValue::from_str(&range).ok().map(|range| (header::CONTENT_RANGE, range));
        let size = end.saturating_sub(session.offset);
        let answer =
            self.put(Method::PATCH, session.url.clone(), session.offset, size, range, &[202, 201, 204, 416])?;
        if answer.status == StatusCode::RANGE_NOT_SATISFIABLE {
            // It stands elsewhere than we thought; if it says where, we go there.
            return match self.session(&answer, 0) {
                Ok(stands) if stands.offset != session.offset && stands.offset > 0 => Ok(stands),
                _ => Err(self.error(http_cause(&answer))),
            };
        }
        let stands = self.session(&answer, end)?;
        if stands.offset <= session.offset || stands.offset > end {
            let text = format!("bytes up to {end} were sent, the registry says it has {}", stands.offset);
            return Err(self.error(Cause::Protocol(text)));
        }
        Ok(Session { least_bytes: stands.least_bytes.max(session.least_bytes), ..stands })
    }

    fn put(
        &mut self,
        method: Method,
        url: Uri,
        offset: u64,
        size: u64,
        range: Option<(HeaderName, HeaderValue)>,
        fine: &[u16],
    ) -> Result<Answer, RegistryError> {
        let from = self.registry.inner.origin(self.target);
        let url = keep_https(&from, url);
        let refused = self.registry.inner.http.check_downgrade(Some(&from), &url);
        refused.map_err(|failure: http::Failure| self.error(failure.cause))?;
        let octets = HeaderValue::from_static("application/octet-stream");
        let progress = |sent: u64| (self.progress)(offset + sent);
        let mut open = || (self.open)(offset);
        let ask = Ask {
            method,
            to: Address::Url(url),
            headers: range.into_iter().chain([(header::CONTENT_TYPE, octets)]).collect(),
            payload: Payload::Stream(Upload { open: &mut open, size, progress: &progress }),
            scopes: vec![self.target.scope("pull,push")],
            patient: true,
            ..Ask::get(self.target, self.what, "")
        };
        self.registry.inner.expect(ask, fine)
    }

    /// Asks how far a session has come; none if it has nothing that could be gone on with.
    fn standing(&self, session: &Session) -> Option<Session> {
        let home = self.registry.inner.origin(self.target);
        if Origin::of(&session.url).as_ref() != Some(&home) {
            return None;
        }
        let ask = Ask {
            to: Address::Url(session.url.clone()),
            scopes: vec![self.target.scope("pull,push")],
            ..Ask::get(self.target, self.what, "")
        };
        let answer = self.registry.inner.expect(ask, &[204, 202, 200]).ok()?;
        let stands = match answer.headers.contains_key(header::LOCATION) {
            true => self.session(&answer, 0).ok()?,
            false => Session { offset: received(&answer).unwrap_or(0), ..session.clone() },
        };
        (stands.offset > 1 && stands.offset <= self.blob.size)
            .then(|| Session { least_bytes: session.least_bytes.max(stands.least_bytes), ..stands })
    }

    /// What an answer says of its session; `offset` counts where it does not say how much it has.
    fn session(&self, answer: &Answer, offset: u64) -> Result<Session, RegistryError> {
        let text = |name: &str| answer.headers.get(name).and_then(|v| v.to_str().ok());
        let url = text("location").and_then(|l| url::resolve(&answer.url, l));
        let url = url.ok_or_else(|| {
            self.error(Cause::Protocol("the registry opened an upload without saying where".to_owned()))
        })?;
        let offset = received(answer).unwrap_or(offset);
        let least_bytes = text("oci-chunk-min-length").and_then(|l| l.parse().ok()).unwrap_or(0);
        Ok(Session { url, offset, least_bytes })
    }

    fn error(&self, cause: Cause) -> RegistryError {
        RegistryError::new(&self.target.domain, self.what, cause)
    }
}

/// Worth another attempt.
fn may_pass(error: &RegistryError) -> bool {
    match error.cause() {
        // 404: the session is gone. 416: it is not where we thought.
        Cause::Status { status, .. } => matches!(status, 404 | 408 | 416 | 429 | 500..=599),
        Cause::Connection(_) | Cause::Timeout(_) => true,
        _ => false,
    }
}

fn http_cause(answer: &Answer) -> Cause {
    Cause::Status { status: answer.status.as_u16(), code: None, message: String::new() }
}

/// `Range: 0-9` → 10.
fn received(answer: &Answer) -> Option<u64> {
    let range = answer.headers.get(header::RANGE)?.to_str().ok()?;
    let (start, end) = range.trim().trim_start_matches("bytes=").split_once('-')?;
    (start == "0").then_some(())?;
    end.parse::<u64>().ok()?.checked_add(1)
}

/// A registry behind a proxy that ends TLS often names itself with http in `Location`: same host, so https goes on.
fn keep_https(from: &Origin, url: Uri) -> Uri {
    let to_http = Origin::of(&url).filter(|to| from.https && !to.https);
    match to_http {
        Some(to) if url::host_of(&to.authority) == url::host_of(&from.authority) => {
            let path = url.path_and_query().map_or("/", |p| p.as_str());
            format!("https://{}{path}", from.authority).parse().unwrap_or(url)
        }
        _ => url,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_at_the_same_host_stays_on_https() {
        let from = Origin { https: true, authority: "r.io:5000".to_owned() };
        let kept = |url: &str| keep_https(&from, url.parse().unwrap()).to_string();
        assert_eq!(kept("http://r.io/v2/u?x=1"), "https://r.io:5000/v2/u?x=1");
        assert_eq!(kept("http://evil.io/v2/u"), "http://evil.io/v2/u");
        assert_eq!(kept("https://cdn.io/u"), "https://cdn.io/u");
    }
}
