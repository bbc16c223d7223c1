//! What refers to an image: signatures, SBOMs, attestations. Registries of distribution-spec 1.1 answer what refers to a
//! digest; for the others clients keep a list of their own, under a tag made of the digest.

use crate::auth::Target;
use crate::http::{Answer, read_bounded};
use crate::registry::{Address, Ask, next_page};
use crate::{Cause, Registry, RegistryError, url};
use oci::{Descriptor, Digest, Document, Index, MAX_MANIFEST_BYTES, Manifest, MediaType, Reference};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What may refer to one image; more is cut off.
const MAX_REFERRERS: usize = 10_000;
/// How often a list that others write at the same time is written.
const MAX_WRITES: u32 = 20;
/// The least time given to others who read the list before it was written, to write theirs.
const LEAST_SETTLING: Duration = Duration::from_millis(50);

impl Registry {
    /// What refers to the image of a digest: one descriptor each, with its `artifact_type` and annotations. `kind` picks those
    /// of one artifact type.
    pub fn referrers(
        &self,
        repository: &Reference,
        subject: &Digest,
        kind: Option<&str>,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let what = format!("list what refers to {}@{subject}", repository.familiar_name());
        let target = self.inner.home(repository, &what)?;
        let mut found = match self.referrers_api(&target, &what, subject, kind)? {
            Some(found) => found,
            None => self.fallback(repository, subject)?.manifests,
        };
        // A registry need not filter.
        found.retain(|entry| kind.is_none() || entry.artifact_type.as_deref() == kind);
        Ok(found)
    }

    /// None where the registry knows no such API.
    fn referrers_api(
        &self,
        target: &Target,
        what: &str,
        subject: &Digest,
        kind: Option<&str>,
    ) -> Result<Option<Vec<Descriptor>>, RegistryError> {
        let filter = kind.map(|kind| format!("?{}", url::encode_pairs([("artifactType", kind)]))).unwrap_or_default();
        let path = format!("/v2/{}/referrers/{subject}{filter}", target.repository);
        let mut ask = Ask::get(target, what, &path);
        let mut found = Vec::new();
        loop {
            let answer = self.inner.expect(ask, &[200, 400, 404, 405, 501])?;
            if answer.status.as_u16() != 200 || !is_index(&answer) {
                return Ok(None);
            }
            let next = next_page(&answer);
            let fail = |cause| RegistryError::new(&target.domain, what, cause);
            let body = read_bounded(answer.body, MAX_MANIFEST_BYTES, self.inner.http.idle_timeout);
            let page: Index = serde_json::from_slice(&body.map_err(|failure| fail(failure.cause))?)
                .map_err(|e| fail(Cause::Protocol(format!("an unusable list of referrers: {e}"))))?;
            let before = found.len();
            found.extend(page.manifests);
            match next {
                Some(next) if found.len() > before && found.len() < MAX_REFERRERS => {
                    ask = Ask { to: Address::Url(next), ..Ask::get(target, what, "") };
                }
                _ => break,
            }
        }
        found.truncate(MAX_REFERRERS);
        Ok(Some(found))
    }

    /// The list under the digest's tag; empty where there is none.
    fn fallback(&self, repository: &Reference, subject: &Digest) -> Result<Index, RegistryError> {
        let empty = Index {
            schema_version: 2,
            media_type: Some(MediaType::OCI_INDEX.to_owned()),
            manifests: Vec::new(),
            annotations: BTreeMap::new(),
        };
        match self.manifest(&fallback_tag(repository, subject)?) {
            Ok(found) => match found.document {
                Document::Index(index) => Ok(index),
                Document::Manifest(_) => Ok(empty),
            },
            Err(error) if error.is_not_found() => Ok(empty),
            Err(error) => Err(error),
        }
    }

    /// After a manifest with a subject was stored by a registry that does not keep track of them: does so. There is no way to
    /// change a list but to replace it, and who does so at the same time undoes it: so it is read again once the others'
    /// writes should have come, and written again where that is needed. A registry slower than that can still lose one:
    /// the tag has no lock, which is why registries came to keep track themselves.
    pub(crate) fn note_referrer(
        &self,
        repository: &Reference,
        manifest: &Manifest,
        descriptor: Descriptor,
    ) -> Result<(), RegistryError> {
        let Some(subject) = &manifest.subject else { return Ok(()) };
        let kind = manifest.artifact_type.clone().or_else(|| Some(manifest.config.media_type.clone()));
        let entry = Descriptor { artifact_type: kind, annotations: manifest.annotations.clone(), ..descriptor };
        let to = fallback_tag(repository, &subject.digest)?;
        let fail = |why: String| RegistryError::new(repository.domain(), "list a referrer", Cause::Protocol(why));
        for attempt in 0..MAX_WRITES {
            let begun = Instant::now();
            let mut index = self.fallback(repository, &subject.digest)?;
            if index.manifests.iter().any(|other| other.digest == entry.digest) {
                return Ok(());
            }
            index.manifests.push(entry.clone());
            let bytes = serde_json::to_vec(&index).map_err(|e| fail(e.to_string()))?;
            self.push_manifest(&to, MediaType::OCI_INDEX, &bytes)?;
            // Others take about as long from their reading to their writing; who collides again waits at random.
            let again = if attempt == 0 { Duration::ZERO } else { self.inner.http.pause(0).min(LEAST_SETTLING * 10) };
            std::thread::sleep((begun.elapsed() * 2).max(LEAST_SETTLING) + again);
        }
        Err(fail(format!("{}: others keep replacing the list of what refers to it", subject.digest)))
    }
}

fn is_index(answer: &Answer) -> bool {
    let kind = answer.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("");
    kind.split(';').next().unwrap_or("").trim() == MediaType::OCI_INDEX
}

/// `repository:sha256-<hex>`, cut to what a tag may have.
fn fallback_tag(repository: &Reference, subject: &Digest) -> Result<Reference, RegistryError> {
    let hex: String = subject.hex().chars().take(64).collect();
    let text = format!("{}:{}-{hex}", repository.repository(), subject.algorithm());
    text.parse().map_err(|e: oci::ReferenceError| {
        RegistryError::new(repository.domain(), "name a list of referrers", Cause::Protocol(e.to_string()))
    })
}
