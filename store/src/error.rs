//! What can go wrong in the store, in docker's key words where scripts look for them.

use oci::{Digest, ManifestError, ReferenceError};
use std::io;
use std::path::{Path, PathBuf};

/// A failed operation of the store. Each text is one line: what, why, and what to do where that helps.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error("cannot {operation} {path}: {source}", path = path.display())]
    Io {
        /// What was tried, as a verb phrase: `open`, `rename`.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The database refused.
    #[error("cannot {operation} in the database {path}: {source}", path = path.display())]
    Database {
        /// What was tried.
        operation: &'static str,
        /// The database file.
        path: PathBuf,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// The folder is no store.
    #[error("{path} holds a store of format {found:?}, which no ctr has made: give another folder", path = path.display())]
    Format {
        /// The store's root.
        path: PathBuf,
        /// What its FORMAT file says.
        found: String,
    },
    /// The store was made or migrated by a newer ctr.
    #[error("{path} holds a store of format {found}, this ctr ({version}) knows formats up to {known}: use {needs}",
        path = path.display(), version = env!("CARGO_PKG_VERSION"))]
    NewerFormat {
        /// The store's root.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that this program knows.
        known: u32,
        /// The program it needs, as it says itself.
        needs: String,
    },
    /// An additional store that cannot be read.
    #[error("the additional store {path} cannot be used: {why}", path = path.display())]
    Unusable {
        /// Its root.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// An image that is in an additional store only.
    #[error("conflict: unable to delete {image} (cannot be forced) - image is in the read-only additional store {store}", store = store.display())]
    ReadOnlyImage {
        /// As it was asked for.
        image: String,
        /// The store's root.
        store: PathBuf,
    },
    /// A layer that was in an additional store.
    #[error("layer {layer} is missing: it was in the additional store {store}: mount it again, or give --additional-store {store}", store = store.display())]
    SharedLayerGone {
        /// Its diff id.
        layer: Digest,
        /// The store's root.
        store: PathBuf,
    },
    /// No image of that name or id.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// No container of that name or id.
    #[error("No such container: {0}")]
    NoSuchContainer(String),
    /// No network of that name or id.
    #[error("network {0} not found")]
    NoSuchNetwork(String),
    /// No volume of that name.
    #[error("no such volume: {0}")]
    NoSuchVolume(String),
    /// A prefix that several ids share.
    #[error("ambiguous {kind} id prefix {prefix:?}: {count} ids begin with it, give more digits")]
    Ambiguous {
        /// `image`, `container` or `network`.
        kind: &'static str,
        /// What was asked for.
        prefix: String,
        /// How many matched.
        count: usize,
    },
    /// Not an image reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// Not a manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A name no container, volume or network may have.
    #[error("Invalid {kind} name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, two characters at least")]
    InvalidName {
        /// `container`, `volume` or `network`.
        kind: &'static str,
        /// What was asked for.
        name: String,
    },
    /// A container has that name already.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameConflict {
        /// The name.
        name: String,
        /// Whose it is.
        id: String,
    },
    /// A network has that name already.
    #[error("network with name {0} already exists")]
    NetworkExists(String),
    /// A network that containers are connected to.
    #[error("error while removing network: network {name} has active endpoints: {containers}")]
    NetworkInUse {
        /// The network.
        name: String,
        /// Names or ids of the containers.
        containers: String,
    },
    /// No address left.
    #[error("network {network} has no free address left in {subnet}")]
    NoFreeAddress {
        /// The network.
        network: String,
        /// Its subnet.
        subnet: String,
    },
    /// The wished-for address is someone else's or outside the subnet.
    #[error("Address {address} cannot be used in network {network}: {why}")]
    AddressTaken {
        /// The network.
        network: String,
        /// The address.
        address: String,
        /// Taken, or out of the subnet.
        why: &'static str,
    },
    /// A volume that containers use.
    #[error("remove {name}: volume is in use - [{}]", containers.join(", "))]
    VolumeInUse {
        /// The volume.
        name: String,
        /// Ids of the containers.
        containers: Vec<String>,
    },
    /// Removing an image by one of its names while a container uses it.
    #[error(
        "conflict: unable to remove repository reference {name:?} (must force) - container {container} is using its referenced image {image}"
    )]
    ReferenceInUse {
        /// The reference as given.
        name: String,
        /// Short id of the container.
        container: String,
        /// Short id of the image.
        image: String,
    },
    /// Removing an image by id while a container uses it.
    #[error("conflict: unable to delete {image} ({}) - image is being used by {} container {container}",
        if *running { "cannot be forced" } else { "must be forced" }, if *running { "running" } else { "stopped" })]
    ImageInUse {
        /// Short id of the image.
        image: String,
        /// Short id of the container.
        container: String,
        /// Whether it runs.
        running: bool,
    },
    /// Removing an image by id that several repositories name.
    #[error("conflict: unable to delete {0} (must be forced) - image is referenced in multiple repositories")]
    ImageHasNames(String),
    /// Removing an image that others are built on.
    #[error("conflict: unable to delete {0} (cannot be forced) - image has dependent child images")]
    ImageHasChildren(String),
    /// Content that is not what its digest says.
    #[error("{what} does not match its digest: expected {expected}, got {got}: the download or the source is damaged")]
    DigestMismatch {
        /// What was read: `layer`, `config`, …
        what: &'static str,
        /// The digest asked for.
        expected: Digest,
        /// The digest of what came.
        got: Digest,
    },
    /// Content of another size than announced.
    #[error("{what} {digest} has another size than announced: expected {expected} bytes, got {got}")]
    SizeMismatch {
        /// What was read.
        what: &'static str,
        /// Its digest.
        digest: Digest,
        /// In bytes.
        expected: u64,
        /// In bytes.
        got: u64,
    },
    /// A layer's content could not be fetched.
    #[error("cannot read layer {digest}: {source}")]
    LayerRead {
        /// The blob.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// A tar that is broken, hostile, or over a limit.
    #[error("cannot unpack layer entry {entry:?}: {why}")]
    BadLayer {
        /// The entry's path as the tar has it (lossy).
        entry: String,
        /// What is wrong.
        why: String,
    },
    /// A layer of an image is not on disk.
    #[error("layer {0} is missing from the store: pull or build the image again")]
    NoSuchLayer(Digest),
    /// A blob is not on disk.
    #[error("blob {0} is missing from the store: pull the image again")]
    NoSuchBlob(Digest),
    /// A blob that was dropped, and cannot be had again.
    #[error("blob {digest} is not kept here (keep-blobs=false) and cannot be fetched again from {why}")]
    NotKept {
        /// Which.
        digest: Digest,
        /// From where, and why not.
        why: String,
    },
    /// The manifest and the config of an image contradict each other.
    #[error("malformed image {image}: {why}")]
    BadImage {
        /// Its id or name.
        image: String,
        /// What is wrong.
        why: String,
    },
    /// An archive that is not what `load` or `import` can read.
    #[error("cannot read the archive: {0}")]
    BadArchive(String),
    /// Another process holds the lock.
    #[error("{0} is being changed by another command: try again when it is done")]
    Busy(String),
}

impl StoreError {
    /// For `map_err` on file operations.
    pub(crate) fn io<E: Into<io::Error>>(
        operation: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> StoreError {
        move |source| StoreError::Io { operation, path: path.as_ref().to_owned(), source: source.into() }
    }

    /// Whether something asked for by name is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            StoreError::NoSuchImage(_)
                | StoreError::NoSuchContainer(_)
                | StoreError::NoSuchNetwork(_)
                | StoreError::NoSuchVolume(_)
        )
    }
}
