//! What is attached to an image at its registry: signatures, SBOMs and other artifacts.

use crate::{Engine, EngineError, Result};
use oci::{Descriptor, Digest, Document, Hasher, Manifest, MediaType, Reference};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The config of what has none.
const EMPTY: &[u8] = b"{}";
/// What a file was called.
const TITLE: &str = "org.opencontainers.image.title";
const CREATED: &str = "org.opencontainers.image.created";

/// A file to attach.
#[derive(Clone, Debug)]
pub struct AttachRequest {
    /// To which image.
    pub image: Reference,
    /// The file.
    pub file: PathBuf,
    /// What it is: `application/spdx+json`.
    pub artifact_type: String,
    /// Free text, by name.
    pub annotations: BTreeMap<String, String>,
    /// False accepts any certificate, and plain http.
    pub tls_verify: bool,
}

impl Engine {
    /// What refers to an image, of one artifact type or of all.
    pub fn referrers(&self, image: &Reference, kind: Option<&str>, tls_verify: bool) -> Result<Vec<Descriptor>> {
        let registry = self.registry(tls_verify)?;
        let subject = subject(&registry, image)?;
        Ok(registry.referrers(image, &subject.digest, kind)?)
    }

    /// Fetches an artifact's files into a folder; none that is there is replaced.
    pub fn fetch_referrer(
        &self,
        image: &Reference,
        artifact: &Digest,
        folder: &Path,
        tls_verify: bool,
    ) -> Result<Vec<PathBuf>> {
        let registry = self.registry(tls_verify)?;
        let found = registry.manifest(&image.at_digest(artifact.clone()))?;
        let Document::Manifest(manifest) = found.document else {
            return Err(EngineError::Invalid(format!("{artifact} is an index, not an artifact")));
        };
        std::fs::create_dir_all(folder).map_err(|e| EngineError::io("create", folder, e))?;
        let mut files = Vec::new();
        for blob in &manifest.layers {
            let path = folder.join(file_name(blob));
            let mut file = File::create_new(&path).map_err(|e| EngineError::io("create", &path, e))?;
            if let Err(error) = registry.copy_blob(image, blob, &mut file) {
                let _ = std::fs::remove_file(&path);
                return Err(error.into());
            }
            files.push(path);
        }
        Ok(files)
    }

    /// Stores a file at the registry as something that refers to an image. Returns the artifact's digest.
    pub fn attach_artifact(&self, request: &AttachRequest) -> Result<Digest> {
        let registry = self.registry(request.tls_verify)?;
        let subject = subject(&registry, &request.image)?;
        let fail = |e: io::Error| EngineError::io("read", &request.file, e);
        let mut file = File::open(&request.file).map_err(fail)?;
        let mut hasher = Hasher::sha256();
        let size = io::copy(&mut file, &mut hasher).map_err(fail)?;
        let mut layer = Descriptor::new(&request.artifact_type, hasher.finish(), size);
        let name = request.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        layer.annotations.insert(TITLE.to_owned(), name);
        let config = Descriptor::of(MediaType::OCI_EMPTY, EMPTY);
        registry.push_blob(&request.image, &config, &[], &mut |_| Ok(Box::new(EMPTY)), &|_| {})?;
        let mut open = |offset| -> io::Result<Box<dyn Read>> {
            let mut file = File::open(&request.file)?;
            file.seek(SeekFrom::Start(offset))?;
            Ok(Box::new(file))
        };
        registry.push_blob(&request.image, &layer, &[], &mut open, &|_| {})?;
        let mut manifest = Manifest::oci(config, vec![layer]);
        manifest.artifact_type = Some(request.artifact_type.clone());
        manifest.subject = Some(subject);
        manifest.annotations.clone_from(&request.annotations);
        let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap_or_default();
        manifest.annotations.entry(CREATED.to_owned()).or_insert_with(|| now.to_string());
        let bytes = serde_json::to_vec(&manifest).map_err(|e| EngineError::Invalid(e.to_string()))?;
        let to = request.image.at_digest(Digest::sha256(&bytes));
        Ok(registry.push_manifest(&to, MediaType::OCI_MANIFEST, &bytes)?)
    }
}

/// The manifest or index a name stands for.
fn subject(registry: &registry_client::Registry, image: &Reference) -> Result<Descriptor> {
    let found = registry.manifest(image)?;
    let size = u64::try_from(found.bytes.len()).unwrap_or(u64::MAX);
    Ok(Descriptor::new(&found.media_type, found.digest, size))
}

/// What a blob was called, if that is the name of a file and nothing else; else its digest.
fn file_name(blob: &Descriptor) -> String {
    let title = blob.annotations.get(TITLE).map_or("", String::as_str);
    let is_name = !title.is_empty()
        && title.len() <= 200
        && !title.starts_with('.')
        && !title.contains(|c: char| c == '/' || c.is_control());
    if is_name { title.to_owned() } else { blob.digest.hex().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_no_path() {
        let named = |title: &str| {
            let mut blob = Descriptor::of("x", b"x");
            blob.annotations.insert(TITLE.to_owned(), title.to_owned());
            file_name(&blob) == title
        };
        assert!(named("sbom.spdx.json"));
        for bad in ["", "..", ".bashrc", "/etc/passwd", "../x", "a/b", "a\n"] {
            assert!(!named(bad), "{bad:?}");
        }
    }
}
