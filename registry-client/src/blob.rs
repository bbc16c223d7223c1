//! Blobs coming in: downloads that survive a broken connection.

use crate::auth::Target;
use crate::http::{self, Answer, Call, Payload};
use crate::registry::Ask;
use crate::slots::{Held, Slot, Way};
use crate::url::Origin;
use crate::{Cause, Registry, RegistryError};
use oci::{Descriptor, Digest, Reference};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::time::Instant;
use ureq::http::{HeaderValue, Method, StatusCode, Uri, header};

/// However patient: after this many broken connections a download is given up.
const MAX_RESUMPTIONS: u32 = 100;
/// A download that brings less than this in the time of an idle timeout, in bytes, counts as stalled.
const MIN_PROGRESS_BYTES: u64 = 1024;

/// A blob's bytes from some offset on, ending exactly at the descriptor's size. A broken connection is resumed
/// inside; **whoever reads checks the digest**, as they hash the stream anyway. Its errors wrap a
/// [`RegistryError`].
pub struct BlobReader {
    registry: Registry,
    target: Target,
    /// Who else may have it.
    others: VecDeque<Target>,
    blob: Descriptor,
    what: String,
    /// Bytes given out so far, from the blob's start.
    position: u64,
    body: Option<Box<dyn Read + Send>>,
    /// Broken connections since the last byte, and altogether.
    failures: u32,
    resumptions: u32,
    pace: Pace,
}

/// Notices a connection that drips.
struct Pace {
    since: Instant,
    bytes: u64,
}

impl Registry {
    /// A blob's bytes from `offset` on.
    pub fn blob(&self, repository: &Reference, blob: &Descriptor, offset: u64) -> Result<BlobReader, RegistryError> {
        let what = format!("fetch blob {}", shown(&blob.digest));
        let mut others: VecDeque<Target> = self.inner.sources(repository, &what)?.into();
        let home = || self.inner.home(repository, &what);
        let target = others.pop_front().map_or_else(home, Ok)?;
        let mut reader = BlobReader {
            registry: self.clone(),
            target,
            others,
            blob: blob.clone(),
            what,
            position: offset,
            body: None,
            failures: 0,
            resumptions: 0,
            pace: Pace { since: Instant::now(), bytes: 0 },
        };
        if offset < blob.size {
            reader.body = Some(reader.open()?);
        }
        Ok(reader)
    }

    /// A small blob as a whole, at most `limit` bytes, digest checked.
    pub fn blob_bytes(&self, repository: &Reference, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let fail =
            |cause| RegistryError::new(repository.domain(), &format!("fetch blob {}", shown(&blob.digest)), cause);
        if blob.size > limit {
            return Err(fail(Cause::TooLarge(limit)));
        }
        let mut bytes = Vec::new();
        self.copy_blob(repository, blob, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes a blob of any size to `out` and checks its digest; what was written is worth nothing after an error.
    pub fn copy_blob(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        out: &mut dyn Write,
    ) -> Result<(), RegistryError> {
        let fail =
            |cause| RegistryError::new(repository.domain(), &format!("fetch blob {}", shown(&blob.digest)), cause);
        let mut reader = self.blob(repository, blob, 0)?;
        let (mut hasher, mut buffer) = (blob.digest.hasher(), vec![0; 128 << 10]);
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => {
                    return Err(match error.downcast::<RegistryError>() {
                        Ok(error) => error,
                        Err(error) => fail(Cause::Connection(error.to_string())),
                    });
                }
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            hasher.update(bytes);
            out.write_all(bytes).map_err(|error| fail(Cause::Sink(error)))?;
        }
        let actual = hasher.finish();
        let expected = blob.digest.clone();
        if actual == expected { Ok(()) } else { Err(fail(Cause::Digest { expected, actual })) }
    }

    /// Whether the repository has this blob.
    pub fn blob_exists(&self, repository: &Reference, digest: &Digest) -> Result<bool, RegistryError> {
        let target = self.inner.home(repository, &format!("look for blob {}", shown(digest)))?;
        self.has_blob(&target, digest, "pull")
    }

    pub(crate) fn has_blob(&self, target: &Target, digest: &Digest, actions: &str) -> Result<bool, RegistryError> {
        let what = format!("look for blob {}", shown(digest));
        let path = format!("/v2/{}/blobs/{digest}", target.repository);
        let mut ask = Ask::get(target, &what, &path);
        ask.method = Method::HEAD;
        ask.scopes = vec![target.scope(actions)];
        Ok(self.inner.expect(ask, &[200, 404])?.status == StatusCode::OK)
    }
}

impl BlobReader {
    /// Opens the stream at the current position, where it is to be had.
    fn open(&mut self) -> Result<Box<dyn Read + Send>, RegistryError> {
        loop {
            match self.open_here() {
                Err(error) => match self.others.pop_front() {
                    Some(other) => self.target = other,
                    None => return Err(error),
                },
                opened => return opened,
            }
        }
    }

    fn open_here(&self) -> Result<Box<dyn Read + Send>, RegistryError> {
        let slot = Slot::take(&self.target.domain, Way::Down);
        Ok(Box::new(Held { body: self.request()?, _slot: slot }))
    }

    fn request(&self) -> Result<Box<dyn Read + Send>, RegistryError> {
        let path = format!("/v2/{}/blobs/{}", self.target.repository, self.blob.digest);
        let mut ask = Ask::get(&self.target, &self.what, &path);
        if self.position > 0 {
            let range = format!("bytes={}-", self.position);
            ask.headers.push((header::RANGE, HeaderValue::from_str(&range).map_err(|_| self.error("no range"))?));
        }
        match self.registry.inner.expect(ask, &[200, 206]) {
            Ok(answer) => self.body_of(answer),
            Err(error) if error.is_not_found() && !self.blob.urls.is_empty() => self.open_foreign(error),
            Err(error) => Err(error),
        }
    }

    /// A foreign layer: from the places its descriptor names, never with credentials.
    fn open_foreign(&self, mut error: RegistryError) -> Result<Box<dyn Read + Send>, RegistryError> {
        let http = &self.registry.inner.http;
        for place in self.blob.urls.iter().take(8) {
            let url = place
                .parse::<Uri>()
                .ok()
                .filter(|u| Origin::of(u).is_some_and(|o| o.https || http.trust.allows_http(&o.authority)));
            let Some(url) = url else { continue };
            let range = (self.position > 0).then(|| HeaderValue::from_str(&format!("bytes={}-", self.position)).ok());
            let mut call = Call {
                method: Method::GET,
                url,
                headers: range.flatten().map(|range| (header::RANGE, range)).into_iter().collect(),
                payload: Payload::None,
                authorization: None,
                patient: false,
                may_be_http: false,
            };
            match http.send(&mut call) {
                Ok(answer) if matches!(answer.status.as_u16(), 200 | 206) => return self.body_of(answer),
                Ok(answer) => error = self.error(&format!("{place} answered {}", answer.status)),
                Err(failure) => error = RegistryError::new(&self.target.domain, &self.what, failure.cause),
            }
        }
        Err(error)
    }

    /// Checks that an answer holds the blob's bytes from the current position, and skips to it if it holds all.
    fn body_of(&self, answer: Answer) -> Result<Box<dyn Read + Send>, RegistryError> {
        let length = answer.body.content_length();
        let size = self.blob.size;
        if answer.status == StatusCode::PARTIAL_CONTENT {
            let range = answer.headers.get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or("");
            if content_range(range)
                .is_none_or(|(start, total)| start != self.position || total.is_some_and(|t| t != size))
            {
                return Err(self.error(&format!("asked for bytes from {}, got {range:?}", self.position)));
            }
            return Ok(Box::new(answer.body.into_reader()));
        }
        if length.is_some_and(|length| length != size) {
            let length = length.unwrap_or(0);
            return Err(self.error(&format!("it has {length} bytes, its descriptor says {size}")));
        }
        let mut reader = answer.body.into_reader();
        let mut skip = (&mut reader).take(self.position);
        io::copy(&mut skip, &mut io::sink())
            .map_err(|e| RegistryError::new(&self.target.domain, &self.what, http::failure(e.into()).cause))?;
        Ok(Box::new(reader))
    }

    fn error(&self, text: &str) -> RegistryError {
        RegistryError::new(&self.target.domain, &self.what, Cause::Protocol(text.to_owned()))
    }

    /// After a break: waits, and opens again where it broke. Gives the error back once patience is at its end.
    fn resume(&mut self, error: RegistryError) -> io::Result<()> {
        self.body = None;
        let http = &self.registry.inner.http;
        if self.failures >= http.retries || self.resumptions >= MAX_RESUMPTIONS {
            return Err(io::Error::other(error));
        }
        std::thread::sleep(http.pause(self.failures));
        self.failures += 1;
        self.resumptions += 1;
        self.pace = Pace { since: Instant::now(), bytes: 0 };
        self.body = Some(self.open().map_err(io::Error::other)?);
        Ok(())
    }

    /// An error if the connection drips.
    fn check_pace(&mut self, count: u64) -> Result<(), RegistryError> {
        self.pace.bytes += count;
        if self.pace.since.elapsed() < self.registry.inner.http.idle_timeout {
            return Ok(());
        }
        let bytes = std::mem::replace(&mut self.pace, Pace { since: Instant::now(), bytes: 0 }).bytes;
        if bytes >= MIN_PROGRESS_BYTES {
            return Ok(());
        }
        let cause = Cause::Timeout(format!("only {bytes} bytes came"));
        Err(RegistryError::new(&self.target.domain, &self.what, cause))
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.blob.size.saturating_sub(self.position);
            if left == 0 || buffer.is_empty() {
                self.body = None;
                return Ok(0);
            }
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let Some(body) = &mut self.body else {
                self.body = Some(self.open().map_err(io::Error::other)?);
                continue;
            };
            let outcome = match body.read(buffer.get_mut(..most).unwrap_or_default()) {
                Ok(0) => Err(Cause::Connection(format!("the connection ended {left} bytes early"))),
                Ok(count) => Ok(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(http::failure(error.into()).cause),
            };
            let error = match outcome {
                Ok(count) => {
                    let bytes = u64::try_from(count).unwrap_or(0);
                    self.position += bytes;
                    match self.check_pace(bytes) {
                        Ok(()) => {
                            self.failures = 0;
                            return Ok(count);
                        }
                        Err(error) => {
                            self.resume(error)?;
                            return Ok(count);
                        }
                    }
                }
                Err(cause) => RegistryError::new(&self.target.domain, &self.what, cause),
            };
            self.resume(error)?;
        }
    }
}

/// `bytes 5-9/10` → (5, Some(10)).
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-')?.0.trim().parse().ok()?;
    match total.trim() {
        "*" => Some((start, None)),
        total => Some((start, Some(total.parse().ok()?))),
    }
}

pub(crate) fn shown(digest: &Digest) -> String {
    format!("{}:{}", digest.algorithm(), digest.short())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["", "bytes */10", "bytes 5/10", "5-9/10", "bytes x-9/10", "bytes 1-2/x"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
