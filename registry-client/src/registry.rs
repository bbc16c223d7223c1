//! The operations of the distribution API, and the way each request takes: scheme, authorization,
//! limits, and errors that say what was wanted.

use crate::auth::{Auth, Denied, Target};
use crate::error::status_cause;
use crate::http::{Answer, Call, Failure, Http, MAX_ANSWER_BYTES, Payload, read_bounded};
use crate::rules::Way;
use crate::url::{self, Origin};
use crate::{Cause, ClientConfig, Credential, Credentials, RegistryError, Rules};
use oci::{Descriptor, Digest, Document, Index, MAX_MANIFEST_BYTES, Manifest, MediaType, Platform, Reference};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use ureq::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};

/// Authorization is negotiated this often: unknown host, refused token, wider scope.
const MAX_AUTH_ROUNDS: u32 = 3;
/// Indexes may name indexes; more than this is a joke at our expense.
const MAX_INDEX_DEPTH: usize = 3;
/// Tags listed.
const MAX_TAGS: usize = 10_000;

/// A client of any number of registries. Cheap to clone, shared between threads.
#[derive(Clone)]
pub struct Registry {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) http: Http,
    auth: Auth,
    /// By host: the scheme that worked.
    https: Mutex<HashMap<String, bool>>,
    rules: Rules,
    /// By repository: the mirror that had it.
    served: Mutex<HashMap<String, Target>>,
}

/// A manifest or index as the registry holds it.
#[derive(Clone, Debug)]
pub struct ManifestResponse {
    /// The raw bytes: what the digest is of, never to be serialised anew.
    pub bytes: Vec<u8>,
    /// The `Content-Type`, which equals the document's own `mediaType` if it has one.
    pub media_type: String,
    /// The digest of `bytes`, checked against the one asked for.
    pub digest: Digest,
    /// The bytes, read.
    pub document: Document,
}

/// One request to a registry.
pub(crate) struct Ask<'a> {
    pub(crate) target: &'a Target,
    /// For error messages: "fetch manifest x:latest".
    pub(crate) what: &'a str,
    pub(crate) method: Method,
    pub(crate) to: Address<'a>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) payload: Payload<'a>,
    pub(crate) scopes: Vec<String>,
    /// The answer may take long to come.
    pub(crate) patient: bool,
}

/// Where a request goes.
pub(crate) enum Address<'a> {
    /// Below the registry's own URL: `/v2/…`.
    Path(&'a str),
    /// Where the registry said. Authorized only if that is the registry itself.
    Url(Uri),
}

impl Target {
    /// A repository of a registry by the names that `registries.conf` led to.
    fn new(domain: &str, repository: &str) -> Target {
        let host = if domain == "docker.io" { "registry-1.docker.io".to_owned() } else { domain.to_ascii_lowercase() };
        Target { domain: domain.to_owned(), host, repository: repository.to_owned() }
    }

    pub(crate) fn scope(&self, actions: &str) -> String {
        format!("repository:{}:{actions}", self.repository)
    }
}

impl<'a> Ask<'a> {
    pub(crate) fn get(target: &'a Target, what: &'a str, path: &'a str) -> Ask<'a> {
        Ask {
            target,
            what,
            method: Method::GET,
            to: Address::Path(path),
            headers: Vec::new(),
            payload: Payload::None,
            scopes: vec![target.scope("pull")],
            patient: false,
        }
    }
}

impl Registry {
    /// A client; no connection is made and no file read yet.
    pub fn new(config: ClientConfig) -> Registry {
        let http = Http::new(&config);
        let auth = Auth::new(config.credentials);
        let (https, served) = Default::default();
        Registry { inner: Arc::new(Inner { http, auth, https, rules: config.rules, served }) }
    }

    /// The manifest or index a reference names (its digest if it has one, else its tag).
    pub fn manifest(&self, reference: &Reference) -> Result<ManifestResponse, RegistryError> {
        let what = format!("fetch the manifest of {}", reference.familiar());
        self.inner.ask_each(reference, &what, |target| self.manifest_at(target, reference, &what))
    }

    fn manifest_at(&self, at: &Target, reference: &Reference, what: &str) -> Result<ManifestResponse, RegistryError> {
        let path = manifest_path(at, reference);
        let mut ask = Ask::get(at, what, &path);
        ask.headers = accept_manifests();
        let answer = self.inner.expect(ask, &[200])?;
        let media_type = media_type_of(&answer);
        let fail = |cause| RegistryError::new(&at.domain, what, cause);
        let bytes =
            read_bounded(answer.body, MAX_MANIFEST_BYTES, self.inner.http.idle_timeout).map_err(|f| fail(f.cause))?;
        let digest = match reference.digest() {
            Some(expected) => check_digest(expected, &bytes).map_err(fail)?,
            None => Digest::sha256(&bytes),
        };
        let document = Document::parse(&bytes, media_type.as_deref()).map_err(|e| fail(e.into()))?;
        let media_type = media_type.unwrap_or_else(|| default_media_type(&document).to_owned());
        Ok(ManifestResponse { bytes, media_type, digest, document })
    }

    /// Follows what a reference names down to the one manifest for a platform: an index's entry, or a nested index's.
    pub fn manifest_for(
        &self,
        reference: &Reference,
        mut found: ManifestResponse,
        wanted: &Platform,
    ) -> Result<(ManifestResponse, Manifest), RegistryError> {
        let what = format!("fetch the manifest of {}", reference.familiar());
        let fail = |cause| RegistryError::new(reference.domain(), &what, cause);
        for _ in 0..MAX_INDEX_DEPTH {
            let index = match found.document {
                Document::Manifest(ref manifest) => {
                    let manifest = manifest.clone();
                    return Ok((found, manifest));
                }
                Document::Index(index) => index,
            };
            let nested = || index.manifests.iter().find(|m| MediaType::is_index(&m.media_type) && m.platform.is_none());
            let chosen = index
                .select(wanted)
                .or_else(nested)
                .ok_or_else(|| fail(Cause::Platform { wanted: Box::new(wanted.clone()), has: platforms(&index) }))?;
            found = self.manifest(&reference.at_digest(chosen.digest.clone()))?;
        }
        Err(fail(Cause::Protocol(format!("indexes within indexes, more than {MAX_INDEX_DEPTH} deep"))))
    }

    /// The descriptor of what a reference names, by HEAD; none if the registry has no such thing, or
    /// does not say enough in its answer.
    pub fn head_manifest(&self, reference: &Reference) -> Result<Option<Descriptor>, RegistryError> {
        let what = format!("look up {}", reference.familiar());
        let answer = self.inner.ask_each(reference, &what, |target| {
            let path = manifest_path(target, reference);
            let mut ask = Ask::get(target, &what, &path);
            ask.method = Method::HEAD;
            ask.headers = accept_manifests();
            self.inner.expect(ask, &[200, 404])
        })?;
        let text = |name: &str| answer.headers.get(name).and_then(|v| v.to_str().ok());
        let digest = text("docker-content-digest").and_then(|d| d.parse().ok());
        let size = text("content-length").and_then(|s| s.parse().ok());
        let found = answer.status == StatusCode::OK;
        Ok(match (found, media_type_of(&answer), digest, size) {
            (true, Some(media_type), Some(digest), Some(size)) => Some(Descriptor::new(&media_type, digest, size)),
            _ => None,
        })
    }

    /// Stores a manifest or index under the reference's tag (or digest). One that refers to an image is entered into the list
    /// of those that do, where the registry does not keep it.
    pub fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        let what = format!("store the manifest of {}", reference.familiar());
        let target = self.inner.home(reference, &what)?;
        let path = manifest_path(&target, reference);
        let fail = |cause| RegistryError::new(&target.domain, &what, cause);
        let content_type = HeaderValue::from_str(media_type)
            .map_err(|_| fail(Cause::Protocol(format!("{media_type:?} is no media type"))))?;
        let answer = self.inner.expect(
            Ask {
                method: Method::PUT,
                headers: vec![(header::CONTENT_TYPE, content_type)],
                payload: Payload::Bytes(bytes),
                scopes: vec![target.scope("pull,push")],
                patient: true,
                ..Ask::get(&target, &what, &path)
            },
            &[201, 200, 202],
        )?;
        let digest = reference.digest().map_or_else(|| Ok(Digest::sha256(bytes)), |d| check_digest(d, bytes));
        let digest = digest.map_err(fail)?;
        let stored = answer.headers.get("docker-content-digest").and_then(|v| v.to_str().ok()?.parse().ok());
        if let Some(actual) = stored.filter(|actual| *actual != digest) {
            return Err(fail(Cause::Digest { expected: digest, actual }));
        }
        if let (false, Ok(Document::Manifest(manifest))) =
            (answer.headers.contains_key("oci-subject"), Document::parse(bytes, Some(media_type)))
        {
            let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            self.note_referrer(reference, &manifest, Descriptor::new(media_type, digest.clone(), size))?;
        }
        Ok(digest)
    }

    /// The repository's tags, at most 10,000.
    pub fn tags(&self, repository: &Reference) -> Result<Vec<String>, RegistryError> {
        #[derive(serde::Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let what = format!("list the tags of {}", repository.familiar_name());
        let target = self.inner.home(repository, &what)?;
        let fail = |cause| RegistryError::new(&target.domain, &what, cause);
        let first = format!("/v2/{}/tags/list?n=1000", target.repository);
        let mut ask = Ask::get(&target, &what, &first);
        let mut tags: Vec<String> = Vec::new();
        loop {
            let answer = self.inner.expect(ask, &[200])?;
            let next = next_page(&answer);
            let body = read_bounded(answer.body, MAX_MANIFEST_BYTES, self.inner.http.idle_timeout);
            let page: Page = serde_json::from_slice(&body.map_err(|f| fail(f.cause))?)
                .map_err(|e| fail(Cause::Protocol(format!("an unusable list of tags: {e}"))))?;
            let count = tags.len();
            tags.extend(page.tags.unwrap_or_default());
            match next {
                Some(url) if tags.len() > count && tags.len() < MAX_TAGS => {
                    ask = Ask { to: Address::Url(url), ..Ask::get(&target, &what, "") };
                }
                _ => break,
            }
        }
        tags.truncate(MAX_TAGS);
        Ok(tags)
    }

    /// Asks a registry (a domain such as `docker.io` or `localhost:5000`) whether it accepts a credential.
    pub fn verify_login(&self, domain: &str, credential: &Credential) -> Result<(), RegistryError> {
        struct One(Credential);
        impl Credentials for One {
            fn get(&self, _: &str, _: &str) -> Result<Option<Credential>, crate::CredentialError> {
                Ok(Some(self.0.clone()))
            }
        }
        let target = Target::new(domain, "");
        let auth = Auth::new(Arc::new(One(credential.clone())));
        let ask = Ask { scopes: Vec::new(), ..Ask::get(&target, "log in", "/v2/") };
        let advise = |error: RegistryError| match error.is_denied() {
            true => error.with_hint("check the user name and the password".to_owned()),
            false => error,
        };
        let answer = self.inner.authorized(ask, &auth).map_err(advise)?;
        let status = answer.status.as_u16();
        if status == 200 {
            return Ok(());
        }
        let body = read_bounded(answer.body, MAX_ANSWER_BYTES, self.inner.http.idle_timeout).unwrap_or_default();
        Err(advise(RegistryError::new(domain, "log in", status_cause(status, &body))))
    }

    /// What registries warned about (`Warning: 299`) since the last call.
    pub fn take_warnings(&self) -> Vec<String> {
        self.inner.http.take_warnings()
    }
}

impl Inner {
    /// The registry that a reference is of; where it is written to.
    pub(crate) fn home(&self, reference: &Reference, what: &str) -> Result<Target, RegistryError> {
        let mut all = self.targets(reference, what, false)?;
        Ok(all.pop().unwrap_or_else(|| Target::new(reference.domain(), reference.path())))
    }

    /// Where to ask for what a reference names, in this order: its mirrors, the one that served the repository before first,
    /// and the registry itself.
    pub(crate) fn sources(&self, reference: &Reference, what: &str) -> Result<Vec<Target>, RegistryError> {
        let mut all = self.targets(reference, what, true)?;
        if all.len() > 1 {
            let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(first) = served.get(&reference.repository()) {
                all.sort_by_key(|target| target != first);
            }
        }
        Ok(all)
    }

    fn targets(&self, reference: &Reference, what: &str, reading: bool) -> Result<Vec<Target>, RegistryError> {
        match self.rules.way(reference, reading) {
            Way::Blocked(file) => Err(RegistryError::new(reference.domain(), what, Cause::Blocked(file))),
            Way::To(names) => Ok(names
                .iter()
                .map(|name| name.split_once('/').unwrap_or((name, "")))
                .map(|(domain, path)| Target::new(domain, path))
                .collect()),
        }
    }

    /// Asks one source after the other. A mirror that fails is passed over; the user hears of it, unless it just does not
    /// have the image.
    fn ask_each<T>(
        &self,
        reference: &Reference,
        what: &str,
        mut ask: impl FnMut(&Target) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let sources = self.sources(reference, what)?;
        let last = sources.len().saturating_sub(1);
        for target in sources.iter().take(last) {
            match ask(target) {
                Ok(found) => {
                    let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
                    served.insert(reference.repository(), target.clone());
                    return Ok(found);
                }
                Err(error) => self.pass_over(&error),
            }
        }
        match sources.get(last) {
            Some(target) => ask(target),
            None => Err(RegistryError::new(reference.domain(), what, Cause::Protocol("nobody to ask".to_owned()))),
        }
    }

    /// Notes that a mirror was of no use.
    pub(crate) fn pass_over(&self, error: &RegistryError) {
        if !error.is_not_found() {
            self.http.warn(format!("the mirror {} was passed over: {}", error.host(), error.cause()));
        }
    }

    /// Sends a request and turns any status but the given ones into an error.
    pub(crate) fn expect(&self, ask: Ask<'_>, fine: &[u16]) -> Result<Answer, RegistryError> {
        let (domain, what) = (ask.target.domain.clone(), ask.what.to_owned());
        let logged_in = ask.target.clone();
        let answer = self.authorized(ask, &self.auth)?;
        let status = answer.status.as_u16();
        if fine.contains(&status) {
            return Ok(answer);
        }
        let foreign = answer.foreign;
        let body = read_bounded(answer.body, MAX_ANSWER_BYTES, self.http.idle_timeout).unwrap_or_default();
        let error = RegistryError::new(&domain, &what, status_cause(status, &body));
        if foreign {
            let place = answer.url.authority().map_or("", |a| a.as_str());
            return Err(error.with_hint(format!("the registry had redirected to {place}")));
        }
        let known = matches!(self.auth.credential(&logged_in), Ok(Some(_)));
        Err(match status {
            401 | 403 if known => error
                .with_hint(format!("the saved login may not do this; log in as someone who may: ctr login {domain}")),
            _ => error,
        })
    }

    /// Sends a request, negotiating scheme and authorization. The answer may have any status.
    pub(crate) fn authorized(&self, ask: Ask<'_>, auth: &Auth) -> Result<Answer, RegistryError> {
        let (target, what) = (ask.target, ask.what);
        let fail = |failure: Failure| RegistryError::new(&target.domain, what, failure.cause);
        let mut call = Call {
            method: ask.method,
            url: Uri::default(),
            headers: ask.headers,
            payload: ask.payload,
            authorization: None,
            patient: ask.patient,
            may_be_http: false,
        };
        let mut scopes = ask.scopes;
        let mut refused: Option<HeaderValue> = None;
        let mut round = 0;
        loop {
            let origin = self.origin(target);
            call.url = match &ask.to {
                Address::Path(path) => below(&origin, path).map_err(|cause| fail(cause.into()))?,
                Address::Url(url) => url.clone(),
            };
            let home = Origin::of(&call.url).as_ref() == Some(&origin);
            call.authorization = match home {
                true => auth
                    .authorization(&self.http, target, &origin, &scopes, refused.as_ref())
                    .map_err(|denied| denied_error(denied, target, what))?,
                false => None,
            };
            let answer = match self.http.send(&mut call) {
                Ok(answer) => answer,
                Err(failure) if self.may_be_http(target, &origin, &failure) => {
                    self.settle(target, false);
                    continue;
                }
                Err(failure) => return Err(fail(failure)),
            };
            self.settle(target, origin.https);
            round += 1;
            if answer.status != StatusCode::UNAUTHORIZED || answer.foreign || !home || round > MAX_AUTH_ROUNDS {
                return Ok(answer);
            }
            let Some(wanted) = auth.learn(target, &answer.headers) else { return Ok(answer) };
            let widened = widen(&mut scopes, wanted);
            let next = auth
                .authorization(&self.http, target, &origin, &scopes, call.authorization.as_ref())
                .map_err(|denied| denied_error(denied, target, what))?;
            if next.is_none() || (next == call.authorization && !widened) {
                return Ok(answer);
            }
            refused = call.authorization.take();
            // Read to its end, the connection can be used again.
            let _ = read_bounded(answer.body, MAX_ANSWER_BYTES, self.http.idle_timeout);
        }
    }

    /// The registry's own origin: https, unless it is known to speak http and may.
    pub(crate) fn origin(&self, target: &Target) -> Origin {
        let known = self.https.lock().unwrap_or_else(PoisonError::into_inner).get(&target.host).copied();
        let https = known.unwrap_or(true);
        let url: Option<Uri> = format!("{}://{}/", if https { "https" } else { "http" }, target.host).parse().ok();
        url.as_ref().and_then(Origin::of).unwrap_or(Origin { https, authority: target.host.clone() })
    }

    fn settle(&self, target: &Target, https: bool) {
        self.https.lock().unwrap_or_else(PoisonError::into_inner).entry(target.host.clone()).or_insert(https);
    }

    /// Whether an https request failed in a way that plain http may mend, on a host where it is allowed.
    fn may_be_http(&self, target: &Target, origin: &Origin, failure: &Failure) -> bool {
        let no_port = url::port_of(&target.host).is_none();
        // Another thread may have found out in the meantime: then go with it.
        let known = self.https.lock().unwrap_or_else(PoisonError::into_inner).get(&target.host).copied();
        origin.https
            && known != Some(true)
            && (failure.not_tls || (failure.refused && no_port))
            && self.http.trust.allows_http(&origin.authority)
    }
}

/// Adds the scopes a challenge names to those already asked for; true if that changes anything.
fn widen(scopes: &mut Vec<String>, wanted: Vec<String>) -> bool {
    let before = scopes.len();
    for scope in wanted.into_iter().take(16) {
        if !scope.is_empty() && !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    scopes.len() > before
}

/// What an index has, in words.
fn platforms(index: &Index) -> String {
    let all = index.manifests.iter().filter_map(|m| m.platform.as_ref()).filter(|p| p.os != "unknown");
    let names: BTreeSet<String> = all.map(Platform::to_string).collect();
    match names.len() {
        0 => "none".to_owned(),
        _ => names.into_iter().take(20).collect::<Vec<_>>().join(", "),
    }
}

fn denied_error(denied: Denied, target: &Target, what: &str) -> RegistryError {
    match denied {
        Denied::Failure(failure) => RegistryError::new(&target.domain, what, failure.cause),
        Denied::Status(status, body) => RegistryError::new(&target.domain, what, status_cause(status.as_u16(), &body)),
    }
}

pub(crate) fn below(origin: &Origin, path: &str) -> Result<Uri, Cause> {
    let text = format!("{}://{}{path}", origin.scheme(), origin.authority);
    text.parse().map_err(|_| Cause::Protocol(format!("{text:?} is no usable URL")))
}

fn manifest_path(at: &Target, reference: &Reference) -> String {
    format!("/v2/{}/manifests/{}", at.repository, reference.tag_or_digest())
}

fn accept_manifests() -> Vec<(HeaderName, HeaderValue)> {
    MediaType::ACCEPT.iter().map(|t| (header::ACCEPT, HeaderValue::from_static(t))).collect()
}

/// The `Content-Type` without parameters, unless it says nothing (`text/plain` and the like are kept: they are wrong).
fn media_type_of(answer: &Answer) -> Option<String> {
    let text = answer.headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let bare = text.split(';').next().unwrap_or("").trim();
    let vague = matches!(bare, "" | "application/octet-stream" | "application/json");
    (!vague).then(|| bare.to_owned())
}

fn default_media_type(document: &Document) -> &str {
    let (own, default) = match document {
        Document::Manifest(manifest) => (manifest.media_type.as_deref(), MediaType::OCI_MANIFEST),
        Document::Index(index) => (index.media_type.as_deref(), MediaType::OCI_INDEX),
    };
    own.unwrap_or(default)
}

pub(crate) fn check_digest(expected: &Digest, bytes: &[u8]) -> Result<Digest, Cause> {
    let mut hasher = expected.hasher();
    hasher.update(bytes);
    let actual = hasher.finish();
    if actual == *expected { Ok(actual) } else { Err(Cause::Digest { expected: expected.clone(), actual }) }
}

/// `Link: </v2/…>; rel="next"`.
pub(crate) fn next_page(answer: &Answer) -> Option<Uri> {
    let link = answer.headers.get(header::LINK)?.to_str().ok()?;
    let (target, rest) = link.trim_start().strip_prefix('<')?.split_once('>')?;
    rest.contains("next").then(|| url::resolve(&answer.url, target)).flatten()
}
