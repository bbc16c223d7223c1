//! A registry in memory, by the distribution specification 1.1, that can be told to lack what registries lack and to
//! break where registries break.

use super::server::{Behaviour, Cut, Reply, Seen, Server, answer};
use oci::{Descriptor, Digest, Document, MediaType};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// What a registry does in its own way.
#[derive(Clone, Copy, Debug)]
pub struct Quirks {
    /// Knows the referrers API, and says so by `OCI-Subject`.
    pub referrers: bool,
    /// Takes blobs over from its other repositories.
    pub mounts: bool,
    /// Honours `Range`.
    pub ranges: bool,
    /// Answers with Locations that name no host.
    pub relative: bool,
    /// `OCI-Chunk-Min-Length`: a smaller chunk must be the last.
    pub chunk_min_bytes: usize,
    /// A larger body is refused with 413, unread, as by a proxy in front.
    pub body_max_bytes: usize,
}

impl Default for Quirks {
    fn default() -> Quirks {
        Quirks {
            referrers: true,
            mounts: true,
            ranges: true,
            relative: true,
            chunk_min_bytes: 0,
            body_max_bytes: usize::MAX,
        }
    }
}

type Fault = Box<dyn Fn(&Seen) -> Option<Reply> + Send + Sync>;

#[derive(Default)]
struct State {
    repositories: BTreeMap<String, Repository>,
    sessions: BTreeMap<String, Session>,
}

#[derive(Default)]
struct Repository {
    blobs: BTreeMap<String, Vec<u8>>,
    manifests: BTreeMap<String, (String, Vec<u8>)>,
    tags: BTreeMap<String, String>,
}

#[derive(Default)]
struct Session {
    content: Vec<u8>,
    /// Part of its Location: one of an answer before the last is no good any more.
    state: usize,
    /// The last chunk was smaller than allowed.
    ended: bool,
}

struct Inner {
    quirks: Quirks,
    state: Mutex<State>,
    fault: Mutex<Option<Fault>>,
    cut: Mutex<Option<Cut>>,
}

/// The registry; it ends with the test's process.
pub struct MemoryRegistry {
    server: Server,
    inner: Arc<Inner>,
}

impl Default for MemoryRegistry {
    fn default() -> MemoryRegistry {
        MemoryRegistry::start(Quirks::default())
    }
}

impl MemoryRegistry {
    /// An empty one.
    pub fn start(quirks: Quirks) -> MemoryRegistry {
        let (state, fault, cut) = Default::default();
        let inner = Arc::new(Inner { quirks, state, fault, cut });
        let (to_cut, to_reply) = (inner.clone(), inner.clone());
        let server = Server::run(Behaviour {
            cut: Box::new(move |seen| locked(&to_cut.cut).as_ref().and_then(|cut| cut(seen))),
            refuse: Box::new(move |seen| {
                let length = seen.header("content-length").parse().unwrap_or(0_usize);
                (length > quirks.body_max_bytes).then(|| answer(413, "Connection: close", "too large"))
            }),
            reply: Box::new(move |seen, _| {
                let fault = locked(&to_reply.fault).as_ref().and_then(|fault| fault(seen));
                fault.unwrap_or_else(|| to_reply.reply(seen))
            }),
        });
        MemoryRegistry { server, inner }
    }

    /// From now on requests that `fault` has an answer to get that one.
    pub fn fault(&self, fault: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static) {
        *locked(&self.inner.fault) = Some(Box::new(fault));
    }

    /// From now on the connection breaks after as many bytes of a request's body as `cut` says.
    pub fn cut(&self, cut: impl Fn(&Seen) -> Option<usize> + Send + Sync + 'static) {
        *locked(&self.inner.cut) = Some(Box::new(cut));
    }

    /// Ends all faults and cuts.
    pub fn mend(&self) {
        *locked(&self.inner.fault) = None;
        *locked(&self.inner.cut) = None;
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> &str {
        &self.server.address
    }

    /// A reference to an image in here.
    #[track_caller]
    pub fn image(&self, name: &str) -> oci::Reference {
        self.server.image(name)
    }

    /// All requests since the start, or since [`MemoryRegistry::forget`].
    pub fn seen(&self) -> Vec<Seen> {
        self.server.seen()
    }

    /// The same as texts: `GET /v2/a/tags/list`.
    pub fn requests(&self) -> Vec<String> {
        self.seen().iter().map(|seen| format!("{} {}", seen.method, seen.target)).collect()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.server.forget();
    }

    /// Puts a blob, without asking whether it is what its digest says.
    pub fn put_blob(&self, repository: &str, digest: &Digest, content: &[u8]) {
        let mut state = locked(&self.inner.state);
        let repository = state.repositories.entry(repository.to_owned()).or_default();
        repository.blobs.insert(digest.to_string(), content.to_vec());
    }

    /// A blob's content.
    pub fn blob(&self, repository: &str, digest: &Digest) -> Option<Vec<u8>> {
        locked(&self.inner.state).repositories.get(repository)?.blobs.get(digest.as_str()).cloned()
    }

    /// Puts a manifest or index under a tag or digest.
    pub fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) -> Digest {
        let mut state = locked(&self.inner.state);
        let repository = state.repositories.entry(repository.to_owned()).or_default();
        let digest = tag.parse().unwrap_or_else(|_| Digest::sha256(bytes));
        repository.manifests.insert(digest.to_string(), (media_type.to_owned(), bytes.to_vec()));
        if tag.parse::<Digest>().is_err() {
            repository.tags.insert(tag.to_owned(), digest.to_string());
        }
        digest
    }

    /// A manifest's media type and bytes, by tag or digest.
    pub fn manifest(&self, repository: &str, tag: &str) -> Option<(String, Vec<u8>)> {
        let state = locked(&self.inner.state);
        let repository = state.repositories.get(repository)?;
        repository.manifests.get(repository.tags.get(tag).map_or(tag, String::as_str)).cloned()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn error(status: u16, code: &str) -> Reply {
    answer(status, "Content-Type: application/json", format!(r#"{{"errors":[{{"code":"{code}","message":"no"}}]}}"#))
}

impl Inner {
    fn reply(&self, seen: &Seen) -> Reply {
        if seen.path() == "/v2/" {
            return answer(200, "", "{}");
        }
        let parts = seen.path().strip_prefix("/v2/").unwrap_or_default();
        for kind in ["/blobs/uploads/", "/blobs/", "/manifests/", "/referrers/", "/tags/"] {
            let Some((name, rest)) = parts.rsplit_once(kind) else { continue };
            return match kind {
                "/blobs/uploads/" => self.upload(seen, name, rest),
                "/blobs/" => self.get_blob(seen, name, rest),
                "/manifests/" => self.manifests(seen, name, rest),
                "/referrers/" => self.referrers(seen, name, rest),
                _ => self.tags(seen, name),
            };
        }
        error(404, "NAME_UNKNOWN")
    }

    fn upload(&self, seen: &Seen, name: &str, id: &str) -> Reply {
        let mut state = locked(&self.state);
        if id.is_empty() {
            return self.start_upload(&mut state, seen, name);
        }
        let Some(mut session) = state.sessions.remove(id) else { return error(404, "BLOB_UPLOAD_UNKNOWN") };
        if seen.query("state").and_then(|s| s.parse().ok()) != Some(session.state) {
            return error(404, "BLOB_UPLOAD_UNKNOWN");
        }
        let reply = match seen.method.as_str() {
            "GET" => self.place(204, seen, name, id, &mut session),
            "PATCH" => self.chunk(seen, name, id, &mut session),
            "PUT" => match self.finish(seen, &mut session) {
                Ok(digest) => {
                    let repository = state.repositories.entry(name.to_owned()).or_default();
                    repository.blobs.insert(digest, session.content);
                    return answer(201, "", "");
                }
                Err(reply) => reply,
            },
            _ => error(405, "UNSUPPORTED"),
        };
        state.sessions.insert(id.to_owned(), session);
        reply
    }

    fn start_upload(&self, state: &mut State, seen: &Seen, name: &str) -> Reply {
        if let (true, Some(digest), Some(from)) = (self.quirks.mounts, seen.query("mount"), seen.query("from"))
            && let Some(content) = state.repositories.get(&from).and_then(|r| r.blobs.get(&digest)).cloned()
        {
            state.repositories.entry(name.to_owned()).or_default().blobs.insert(digest, content);
            return answer(201, "", "");
        }
        let id = format!("session{}", state.sessions.len());
        let mut session = Session::default();
        let reply = self.place(202, seen, name, &id, &mut session);
        state.sessions.insert(id, session);
        reply
    }

    /// Where the session goes on, and how much it has.
    fn place(&self, status: u16, seen: &Seen, name: &str, id: &str, session: &mut Session) -> Reply {
        session.state += 1;
        let host = if self.quirks.relative { String::new() } else { format!("http://{}", seen.header("host")) };
        let mut headers = format!("Location: {host}/v2/{name}/blobs/uploads/{id}?state={}&a=b%2Fc", session.state);
        if let Some(last) = session.content.len().checked_sub(1) {
            headers += &format!("\nRange: 0-{last}");
        }
        if self.quirks.chunk_min_bytes > 0 {
            headers += &format!("\nOCI-Chunk-Min-Length: {}", self.quirks.chunk_min_bytes);
        }
        answer(status, &headers, "")
    }

    fn chunk(&self, seen: &Seen, name: &str, id: &str, session: &mut Session) -> Reply {
        let start = seen.header("content-range").split('-').next().and_then(|s| s.parse().ok());
        if start.is_some_and(|start: usize| start != session.content.len()) {
            return self.place(416, seen, name, id, session);
        }
        if session.ended {
            return error(400, "BLOB_UPLOAD_INVALID");
        }
        session.content.extend(&seen.body);
        session.ended = !seen.cut && seen.body.len() < self.quirks.chunk_min_bytes;
        if seen.cut {
            return answer(202, "", "");
        }
        self.place(202, seen, name, id, session)
    }

    fn finish(&self, seen: &Seen, session: &mut Session) -> Result<String, Reply> {
        session.content.extend(&seen.body);
        if seen.cut {
            return Err(answer(202, "", ""));
        }
        match seen.query("digest").and_then(|d| d.parse::<Digest>().ok()) {
            Some(digest) if digest.matches(&session.content) => Ok(digest.to_string()),
            _ => Err(error(400, "DIGEST_INVALID")),
        }
    }

    fn get_blob(&self, seen: &Seen, name: &str, digest: &str) -> Reply {
        let state = locked(&self.state);
        let Some(content) = state.repositories.get(name).and_then(|r| r.blobs.get(digest)) else {
            return error(404, "BLOB_UNKNOWN");
        };
        let start = seen.header("range").strip_prefix("bytes=").and_then(|r| r.strip_suffix('-')?.parse().ok());
        match start.filter(|start: &usize| self.quirks.ranges && *start < content.len()) {
            Some(start) => {
                let range = format!("Content-Range: bytes {start}-{}/{}", content.len() - 1, content.len());
                answer(206, &range, &content[start..])
            }
            None => answer(200, &format!("Docker-Content-Digest: {digest}"), content),
        }
    }

    fn manifests(&self, seen: &Seen, name: &str, tag: &str) -> Reply {
        let mut state = locked(&self.state);
        if seen.method == "PUT" {
            return self.put_manifest(&mut state, seen, name, tag);
        }
        let Some(repository) = state.repositories.get_mut(name) else { return error(404, "NAME_UNKNOWN") };
        if seen.method == "DELETE" {
            let known = repository.tags.remove(tag).is_some() || repository.manifests.remove(tag).is_some();
            return if known { answer(202, "", "") } else { error(404, "MANIFEST_UNKNOWN") };
        }
        let digest = repository.tags.get(tag).map_or(tag, String::as_str);
        match repository.manifests.get(digest) {
            Some((kind, bytes)) => {
                let size = bytes.len();
                let head = format!("Content-Type: {kind}\nDocker-Content-Digest: {digest}\nContent-Length: {size}");
                answer(200, &head, bytes)
            }
            None => error(404, "MANIFEST_UNKNOWN"),
        }
    }

    fn put_manifest(&self, state: &mut State, seen: &Seen, name: &str, tag: &str) -> Reply {
        let kind = seen.header("content-type");
        let Ok(document) = Document::parse(&seen.body, Some(kind)) else { return error(400, "MANIFEST_INVALID") };
        let repository = state.repositories.entry(name.to_owned()).or_default();
        let (here, subject) = match &document {
            Document::Manifest(manifest) => {
                let mut all = std::iter::once(&manifest.config).chain(&manifest.layers);
                let here = all.all(|blob| !blob.urls.is_empty() || repository.blobs.contains_key(blob.digest.as_str()));
                (here, manifest.subject.as_ref())
            }
            Document::Index(index) => {
                (index.manifests.iter().all(|m| repository.manifests.contains_key(m.digest.as_str())), None)
            }
        };
        if !here {
            return error(400, "MANIFEST_BLOB_UNKNOWN");
        }
        let digest: Digest = tag.parse().unwrap_or_else(|_| Digest::sha256(&seen.body));
        if !digest.matches(&seen.body) {
            return error(400, "DIGEST_INVALID");
        }
        let mut headers = format!("Docker-Content-Digest: {digest}");
        if let Some(subject) = subject.filter(|_| self.quirks.referrers) {
            headers += &format!("\nOCI-Subject: {}", subject.digest);
        }
        if tag.parse::<Digest>().is_err() {
            repository.tags.insert(tag.to_owned(), digest.to_string());
        }
        repository.manifests.insert(digest.to_string(), (kind.to_owned(), seen.body.clone()));
        answer(201, &headers, "")
    }

    fn referrers(&self, seen: &Seen, name: &str, subject: &str) -> Reply {
        if !self.quirks.referrers {
            return error(404, "UNSUPPORTED");
        }
        let wanted = seen.query("artifactType");
        let state = locked(&self.state);
        let mut found: Vec<Descriptor> = Vec::new();
        for (digest, (kind, bytes)) in state.repositories.get(name).map(|r| &r.manifests).into_iter().flatten() {
            let Ok(Document::Manifest(manifest)) = Document::parse(bytes, Some(kind)) else { continue };
            if manifest.subject.is_none_or(|s| s.digest.as_str() != subject) {
                continue;
            }
            let mut entry = Descriptor::of(kind, bytes);
            entry.digest = digest.parse().expect("stored by its digest");
            entry.artifact_type = manifest.artifact_type.or(Some(manifest.config.media_type));
            entry.annotations = manifest.annotations;
            if wanted.is_none() || wanted == entry.artifact_type {
                found.push(entry);
            }
        }
        let index = serde_json::json!({
            "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": found,
        });
        let filtered = if wanted.is_some() { "OCI-Filters-Applied: artifactType" } else { "" };
        answer(200, &format!("Content-Type: {}\n{filtered}", MediaType::OCI_INDEX), index.to_string())
    }

    fn tags(&self, seen: &Seen, name: &str) -> Reply {
        let state = locked(&self.state);
        let Some(repository) = state.repositories.get(name) else { return error(404, "NAME_UNKNOWN") };
        let last = seen.query("last").unwrap_or_default();
        let most = seen.query("n").and_then(|n| n.parse().ok()).unwrap_or(1000);
        let tags: Vec<&String> = repository.tags.keys().filter(|tag| **tag > last).take(most).collect();
        let more = tags.last().filter(|tag| repository.tags.keys().any(|other| other > tag));
        let link = more.map(|tag| format!("Link: </v2/{name}/tags/list?n={most}&last={tag}>; rel=\"next\""));
        answer(200, &link.unwrap_or_default(), serde_json::json!({ "name": name, "tags": tags }).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// The registry is no judge before it is judged itself.
    #[test]
    fn skopeo_copies_an_image_in_and_out() {
        let registry = MemoryRegistry::default();
        let dir = tempfile::tempdir().expect("a temporary folder");
        let layout = dir.path().join("layout");
        let config = br#"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        let blobs = layout.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).expect("a new folder");
        let put = |bytes: &[u8]| std::fs::write(blobs.join(Digest::sha256(bytes).hex()), bytes).expect("a new folder");
        let manifest = oci::Manifest::oci(Descriptor::of(MediaType::OCI_CONFIG, config), Vec::new());
        let manifest = serde_json::to_vec(&manifest).expect("it is JSON");
        let entry = Descriptor::of(MediaType::OCI_MANIFEST, &manifest);
        put(config);
        put(&manifest);
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();
        std::fs::write(layout.join("index.json"), index).expect("a new folder");
        std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a new folder");
        let image = format!("docker://{}", registry.image("team/app:1"));
        let skopeo = |words: &[&str]| {
            let out = Command::new("skopeo").args(words).output().expect("skopeo is installed: see scripts/test-deps");
            assert!(out.status.success(), "skopeo {words:?}: {}", String::from_utf8_lossy(&out.stderr));
        };
        skopeo(&["copy", "--dest-tls-verify=false", &format!("oci:{}", layout.display()), &image]);
        assert_eq!(registry.manifest("team/app", "1"), Some((MediaType::OCI_MANIFEST.to_owned(), manifest)));
        skopeo(&["inspect", "--tls-verify=false", &image]);
    }
}
