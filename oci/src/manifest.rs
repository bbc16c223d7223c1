//! Manifests and indexes, OCI and docker v2 schema 2 alike.

use crate::{Digest, MAX_MANIFEST_BYTES, Platform};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The media types ctr reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaType;

#[allow(missing_docs)] // The names are the specs' own.
impl MediaType {
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
    pub const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

    /// What a registry is asked for, in this order.
    pub const ACCEPT: [&str; 4] = [Self::OCI_MANIFEST, Self::OCI_INDEX, Self::DOCKER_MANIFEST, Self::DOCKER_INDEX];

    /// Whether `text` names an image index or docker's manifest list.
    pub fn is_index(text: &str) -> bool {
        text == Self::OCI_INDEX || text == Self::DOCKER_INDEX
    }

    /// Whether `text` names a single image's manifest.
    pub fn is_manifest(text: &str) -> bool {
        text == Self::OCI_MANIFEST || text == Self::DOCKER_MANIFEST
    }
}

/// A pointer to content: what it is, its digest and its size in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// See [`MediaType`].
    pub media_type: String,
    /// The content's digest.
    pub digest: Digest,
    /// The content's size in bytes.
    pub size: u64,
    /// Where else the content may be had (foreign layers).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Free text, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// In an index: what the manifest is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The kind of an artifact that is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// A descriptor of `bytes`.
    pub fn of(media_type: &str, bytes: &[u8]) -> Descriptor {
        Descriptor::new(media_type, Digest::sha256(bytes), bytes.len() as u64)
    }

    /// A descriptor without the optional fields. `size` is in bytes.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
            artifact_type: None,
        }
    }
}

/// One image: its config and its layers, lowest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Optional in OCI, required in docker's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The kind of an artifact that is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image config.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// What this manifest is about (referrers).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free text, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// An OCI image manifest.
    pub fn oci(config: Descriptor, layers: Vec<Descriptor>) -> Manifest {
        Manifest {
            schema_version: 2,
            media_type: Some(MediaType::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// Several images, one a platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Optional in OCI, required in docker's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The manifests, in the order of preference.
    pub manifests: Vec<Descriptor>,
    /// Free text, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// The first manifest for `wanted`: an exact variant before a merely compatible one.
    /// Attestations and unknown entries (no platform, or `unknown`) never match.
    pub fn select(&self, wanted: &Platform) -> Option<&Descriptor> {
        let candidates = || self.manifests.iter().filter_map(|m| m.platform.as_ref().map(|p| (m, p)));
        let exact = candidates().find(|(_, p)| *p == wanted);
        exact
            .or_else(|| {
                candidates()
                    .filter_map(|(m, p)| wanted.rank(p).map(|r| ((m, p), r)))
                    .min_by_key(|(_, r)| *r)
                    .map(|(mp, _)| mp)
            })
            .map(|(m, _)| m)
    }
}

/// What a manifest URL may answer with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // One at a time, on the stack.
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several.
    Index(Index),
}

/// Why bytes are no manifest or index.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Over [`MAX_MANIFEST_BYTES`].
    #[error("manifest of {0} bytes is over the limit of {MAX_MANIFEST_BYTES}")]
    TooLarge(u64),
    /// Docker's first format.
    #[error(
        "the image is stored in docker's schema 1 format, which registries dropped in 2019: push it again with a current tool"
    )]
    Schema1,
    /// Something else altogether.
    #[error("unsupported manifest media type {0:?}")]
    MediaType(String),
    /// `Content-Type` says one thing, the document another.
    #[error("manifest says it is {inner:?} but was served as {outer:?}")]
    Mismatch {
        /// From the response.
        outer: String,
        /// From the document.
        inner: String,
    },
    /// Not JSON, or not of the shape.
    #[error("malformed manifest: {0}")]
    Json(#[from] serde_json::Error),
}

impl Document {
    /// Reads a manifest or an index. `served_as` is the response's or descriptor's media type; a
    /// document that names another one itself is refused (distribution-spec: they must be equal).
    pub fn parse(bytes: &[u8], served_as: Option<&str>) -> Result<Document, ManifestError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Probe {
            schema_version: Option<u32>,
            media_type: Option<String>,
            manifests: Option<serde::de::IgnoredAny>,
        }
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge(bytes.len() as u64));
        }
        let probe: Probe = serde_json::from_slice(bytes)?;
        let known = |t: &&str| MediaType::is_index(t) || MediaType::is_manifest(t);
        let is_schema1 = |t: &str| t == MediaType::DOCKER_SCHEMA1 || t == MediaType::DOCKER_SCHEMA1_SIGNED;
        if probe.schema_version == Some(1) || served_as.is_some_and(is_schema1) {
            return Err(ManifestError::Schema1);
        }
        if let (Some(inner), Some(outer)) = (probe.media_type.as_deref(), served_as.filter(known))
            && inner != outer
        {
            return Err(ManifestError::Mismatch { outer: outer.to_owned(), inner: inner.to_owned() });
        }
        match probe.media_type.as_deref().or(served_as.filter(known)) {
            Some(t) if MediaType::is_index(t) => Ok(Document::Index(serde_json::from_slice(bytes)?)),
            Some(t) if MediaType::is_manifest(t) => Ok(Document::Manifest(serde_json::from_slice(bytes)?)),
            Some(t) => Err(ManifestError::MediaType(t.to_owned())),
            None if probe.manifests.is_some() => Ok(Document::Index(serde_json::from_slice(bytes)?)),
            None => Ok(Document::Manifest(serde_json::from_slice(bytes)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(media_type: &str) -> String {
        let d = format!(r#"{{"mediaType":"x","digest":"{EMPTY}","size":0}}"#);
        format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{d},"layers":[{d}]}}"#)
    }

    #[test]
    fn a_manifest_must_be_what_it_was_served_as() {
        let text = manifest(MediaType::OCI_MANIFEST);
        assert!(matches!(Document::parse(text.as_bytes(), Some(MediaType::OCI_MANIFEST)), Ok(Document::Manifest(_))));
        assert!(matches!(
            Document::parse(text.as_bytes(), Some(MediaType::OCI_INDEX)),
            Err(ManifestError::Mismatch { .. })
        ));
    }

    #[test]
    fn schema_one_is_refused_by_name() {
        assert!(matches!(Document::parse(br#"{"schemaVersion":1}"#, None), Err(ManifestError::Schema1)));
    }

    #[test]
    fn a_digest_that_is_a_path_is_no_manifest() {
        let text = manifest(MediaType::OCI_MANIFEST).replace(EMPTY, "sha256:../../x");
        assert!(matches!(Document::parse(text.as_bytes(), None), Err(ManifestError::Json(_))));
    }

    #[test]
    fn an_index_prefers_the_exact_variant_and_skips_attestations() {
        let entry = |arch: &str, variant: &str, n: u8| {
            let mut d = Descriptor::of("m", &[n]);
            d.platform = Some(Platform {
                os: "linux".into(),
                architecture: arch.into(),
                variant: (!variant.is_empty()).then(|| variant.into()),
                ..Platform::default()
            });
            d
        };
        let index = Index {
            schema_version: 2,
            media_type: None,
            annotations: BTreeMap::new(),
            manifests: vec![
                entry("unknown", "", 0),
                entry("amd64", "", 1),
                entry("amd64", "v3", 2),
                entry("arm64", "v8", 3),
            ],
        };
        let pick = |p: &str| p.parse().ok().and_then(|p| index.select(&p)).map(|d| d.digest.clone());
        assert_eq!(pick("linux/amd64"), Some(Digest::sha256([1])));
        assert_eq!(pick("linux/amd64/v3"), Some(Digest::sha256([2])));
        assert_eq!(pick("linux/amd64/v2"), Some(Digest::sha256([1])));
        assert_eq!(pick("linux/arm64"), Some(Digest::sha256([3])));
        assert_eq!(pick("linux/riscv64"), None);
    }
}
