//! What the store hands out: rows and summaries. Plain data.

use jiff::Timestamp;
use oci::{Descriptor, Digest, ImageConfig, Reference};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// An image in the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// The digest of its config.
    pub id: Digest,
    /// Its config.
    pub config: ImageConfig,
    /// Its tags, sorted; empty for a dangling image.
    pub names: Vec<Reference>,
    /// `repository@digest` by which it was pulled or pushed, sorted.
    pub repo_digests: Vec<Reference>,
    /// The manifest it was pulled with, or that was made for a push; `None` for a built one never pushed nor saved.
    pub manifest: Option<Descriptor>,
    /// Bytes of all its layers, unpacked.
    pub size: u64,
    /// It is in an additional store only.
    pub read_only: bool,
}

/// An image as a list shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageSummary {
    /// The digest of its config.
    pub id: Digest,
    /// Its tags, sorted; empty for a dangling image.
    pub names: Vec<Reference>,
    /// `repository@digest` by which it was pulled or pushed, sorted.
    pub repo_digests: Vec<Reference>,
    /// When the image was made, as its config says.
    pub created: Option<Timestamp>,
    /// Bytes of all its layers, unpacked.
    pub size: u64,
    /// The config's labels.
    pub labels: BTreeMap<String, String>,
    /// How many containers were made from it.
    pub containers: usize,
    /// The layers, lowest first.
    pub diff_ids: Vec<Digest>,
    /// Made here by a build or commit rather than pulled or loaded.
    pub built: bool,
    /// It is in an additional store only.
    pub read_only: bool,
}

impl ImageSummary {
    /// Whether no tag names it.
    pub fn is_dangling(&self) -> bool {
        self.names.is_empty()
    }
}

/// What became of a name or an image in a removal; in this order `rmi` prints them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name went: `busybox:latest` or `busybox@sha256:…`, as people write it.
    Untagged(String),
    /// An image or layer went: its digest.
    Deleted(Digest),
}

/// A container to be made.
#[derive(Clone, Debug)]
pub struct NewContainer<'a> {
    /// 64 lower-case hex digits, from [`crate::new_id`].
    pub id: &'a str,
    /// `None` for a made-up `adjective_surname`.
    pub name: Option<&'a str>,
    /// The image it is made from; `None` for a root from elsewhere.
    pub image: Option<&'a Digest>,
    /// Becomes `config.json` in the container's folder.
    pub config_json: &'a [u8],
    /// The named and anonymous volumes it uses: they can't be removed while it exists.
    pub volumes: &'a [String],
}

/// A container's row. All else about it is in its folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRow {
    /// 64 lower-case hex digits.
    pub id: String,
    /// Unique in the store.
    pub name: String,
    /// The image it was made from. The image may be gone by now (forced removal); the layers stay.
    pub image: Option<Digest>,
    /// When it was made.
    pub created: Timestamp,
    /// The names of its layers' folders under `layers/`, lowest first; see [`crate::Store::container_layers`].
    pub layers: Vec<String>,
    /// The volumes it uses.
    pub volumes: Vec<String>,
}

impl ContainerRow {
    /// The first 12 digits of the id.
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}

/// A network's row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkRow {
    /// 64 lower-case hex digits.
    pub id: String,
    /// Unique in the store.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// Everything else, as the engine likes it (subnet, gateway, bridge, labels, …).
    pub config: serde_json::Value,
}

/// An address a container holds in a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRow {
    /// The network's name.
    pub network: String,
    /// The address.
    pub address: Ipv4Addr,
    /// The container's id.
    pub container: String,
}

/// A volume's row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Unique in the store; 64 hex digits for an anonymous one.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// Made without a name: goes with `rm -v`.
    pub anonymous: bool,
    /// Free text, by name.
    pub labels: BTreeMap<String, String>,
    /// Driver options (`type`, `device`, `o`).
    pub options: BTreeMap<String, String>,
}

/// A layer made of an upperdir.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedLayer {
    /// The sha256 of its deterministic tar.
    pub diff_id: Digest,
    /// Bytes of its files.
    pub size: u64,
    /// Nothing in it: a build step that changed nothing makes no layer (nothing was put into the store then).
    pub empty: bool,
}

/// An entry of the builder's cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheEntry {
    /// What the builder looks it up by.
    pub key: String,
    /// What the builder put there.
    pub value: String,
    /// The layers it keeps from being collected.
    pub diff_ids: Vec<Digest>,
    /// When it was last put or found.
    pub used: Timestamp,
}

/// An image that `load` found in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The image's id.
    pub id: Digest,
    /// The names the archive gave it; empty for one without.
    pub names: Vec<Reference>,
}

/// The shape of an archive `save` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ArchiveFormat {
    /// What `docker load` of any age reads: manifest.json, and an OCI layout beside it as docker ≥ 25 writes.
    #[default]
    Docker,
    /// An OCI image layout.
    Oci,
}

/// What `import` makes of a root file system beside its one layer.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// The config the image starts from (`--change` applied by the caller); layers and history are filled in.
    pub config: ImageConfig,
    /// The history entry's comment.
    pub message: Option<String>,
}

/// What a clean-up freed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Layers that went.
    pub layers: Vec<Digest>,
    /// Blobs that went.
    pub blobs: Vec<Digest>,
    /// Bytes freed.
    pub bytes: u64,
}

/// A folder in `ingest/` that is nobody else's, on the layers' file system; removed on drop.
/// While it lives its lock keeps [`crate::Store::sweep`] away; the kernel drops the lock with the process.
#[derive(Debug)]
pub struct Scratch {
    pub(crate) path: PathBuf,
    pub(crate) trash: PathBuf,
    pub(crate) _lock: crate::Lock,
}

impl Scratch {
    /// The folder, mode 0700, empty at first.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
