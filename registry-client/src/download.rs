//! Any file at an http or https address: what ADD and contexts fetch. The registry's rules hold – limits on every wait,
//! https never turns into http, a redirect leads to http and https alone – but no credential is ever sent.

use crate::http::{self, Answer, Call, Payload};
use crate::url::{self, Origin};
use crate::{Cause, Registry, RegistryError};
use std::fmt;
use std::io::{self, Read};
use ureq::http::{HeaderName, HeaderValue, Method, Uri, header};

/// What an earlier download of the same address said about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    /// Its `ETag`.
    pub etag: Option<String>,
    /// Its `Last-Modified`, as the server wrote it.
    pub last_modified: Option<String>,
}

/// A file on its way.
pub struct Download {
    /// Where it is, after redirects.
    pub url: String,
    /// In bytes, where the server says so. The body then ends there or in an error.
    pub size: Option<u64>,
    /// The name `Content-Disposition` gives it.
    pub file_name: Option<String>,
    /// `Last-Modified` in seconds since 1970.
    pub modified_s: Option<i64>,
    /// For the next time.
    pub validators: Validators,
    /// The bytes; an error of theirs is for the user as it is.
    pub body: Box<dyn Read + Send>,
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download").field("url", &self.url).field("size", &self.size).finish_non_exhaustive()
    }
}

impl Registry {
    /// Begins to fetch the file at `address`; None: it is still what `known` describes.
    pub fn download(&self, address: &str, known: Option<&Validators>) -> Result<Option<Download>, RegistryError> {
        let fail = |host: &str, cause| RegistryError::new(host, &format!("fetch {address}"), cause);
        let wrong = |text: &str| fail("", Cause::Protocol(text.to_owned()));
        let bare = address.split_once('#').map_or(address, |(before, _)| before);
        let url: Uri = bare.parse().map_err(|_| wrong("that is no URL"))?;
        let origin = Origin::of(&url).ok_or_else(|| wrong("neither an http nor an https URL"))?;
        if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(wrong("a URL with a user name in it is not fetched: use a RUN step with a secret"));
        }
        let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
        let conditions = known
            .map(|known| [(header::IF_NONE_MATCH, &known.etag), (header::IF_MODIFIED_SINCE, &known.last_modified)]);
        for (name, value) in conditions.into_iter().flatten() {
            headers.extend(value.as_ref().and_then(|text| HeaderValue::from_str(text).ok()).map(|value| (name, value)));
        }
        let mut call = Call {
            method: Method::GET,
            url,
            headers,
            payload: Payload::None,
            authorization: None,
            patient: false,
            may_be_http: true,
        };
        let answer = self.inner.http.send(&mut call).map_err(|failure| fail(&origin.authority, failure.cause))?;
        match answer.status.as_u16() {
            200 => Ok(Some(download(answer))),
            304 if known.is_some() => Ok(None),
            status => Err(fail(&origin.authority, crate::error::status_cause(status, b""))),
        }
    }
}

fn download(answer: Answer) -> Download {
    let text = |name: HeaderName| answer.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let last_modified = text(header::LAST_MODIFIED);
    let modified_s = last_modified.as_deref().and_then(|text| {
        jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok().map(jiff::Timestamp::as_second)
    });
    Download {
        url: answer.url.to_string(),
        size: answer.body.content_length(),
        file_name: text(header::CONTENT_DISPOSITION).as_deref().and_then(file_name),
        modified_s,
        validators: Validators { etag: text(header::ETAG), last_modified },
        body: Box::new(Body(answer.body.into_reader())),
    }
}

/// The name of a file in `Content-Disposition: attachment; filename="x"`, without folders.
fn file_name(text: &str) -> Option<String> {
    let value = |rest: &str| crate::challenge::parameter_value(rest).0;
    let parameters = text.split(';').skip(1).filter_map(|parameter| parameter.trim().split_once('='));
    let name =
        parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("filename")).map(|(_, text)| value(text.trim()));
    let name = name.last()?;
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    (!matches!(name, "" | "." | "..") && !name.contains(char::is_control)).then(|| name.to_owned())
}

/// The body with the HTTP library's errors in our words.
struct Body<R>(R);

impl<R: Read> Read for Body<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            kind => io::Error::new(kind, http::failure(ureq::Error::from(error)).cause.to_string()),
        })
    }
}

/// The name a URL's file has: the last part of its path, percent-decoded. None where it ends in a slash.
pub fn file_name_of(address: &str) -> Option<String> {
    let address = address.split(['#', '?']).next().unwrap_or(address);
    let (_, rest) = address.split_once("://")?;
    let (_, path) = rest.split_once('/')?;
    let name = url::decode(path.rsplit('/').next().unwrap_or_default());
    (!matches!(name.as_str(), "" | "." | "..") && !name.contains(['/', '\0'])).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_of_files() {
        for (text, name) in [
            ("attachment; filename=\"a b.tgz\"", Some("a b.tgz")),
            ("attachment; filename=../../etc/passwd", Some("passwd")),
            ("attachment; FileName=x", Some("x")),
            ("inline", None),
            ("attachment; filename=\"..\"", None),
        ] {
            assert_eq!(file_name(text).as_deref(), name, "{text}");
        }
        for (address, name) in [
            ("https://h/a/b.tgz?x=1#y", Some("b.tgz")),
            ("https://h/a%20b", Some("a b")),
            ("https://h/a/", None),
            ("https://h", None),
            ("https://h/%2e%2e", None),
            ("https://h/..%2fx", None),
        ] {
            assert_eq!(file_name_of(address).as_deref(), name, "{address}");
        }
    }
}
