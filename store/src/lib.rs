//! What ctr keeps on disk: blobs, layers, images, containers, networks' addresses, volumes.
//!
//! Content lies in files named by digest; SQLite holds what needs transactions and look-ups. Locks are
//! flocks, so a killed process leaves none; what it left half made lies in `ingest/` or `trash/`, where
//! any later command sweeps it up.
#![allow(clippy::todo, unused_variables)]

mod archive;
mod compression;
mod error;
mod layer_tar;
mod lock;
mod types;

pub use error::StoreError;
pub use lock::Lock;
pub use types::{
    AddressRow, ArchiveFormat, CacheEntry, Collected, CommittedLayer, ContainerRow, Image, ImageSummary, ImportOptions,
    Loaded, NetworkRow, NewContainer, Removed, Scratch, Volume,
};

use oci::{Descriptor, Digest, ImageConfig, Reference};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

type Result<T> = std::result::Result<T, StoreError>;

/// A fresh random id: 64 lower-case hex digits.
pub fn new_id() -> Result<String> {
    todo!()
}

/// An open store. Shared by threads; made anew in each process (never carried across a fork).
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
}

/// Opening.
impl Store {
    /// Opens the store at `root`, making it where there is none.
    pub fn open(root: &Path) -> Result<Store> {
        todo!()
    }
    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// Clears `trash/` and what dead processes left in `ingest/`; cheap where there is nothing.
    pub fn sweep(&self) -> Result<()> {
        todo!()
    }
    /// Removes layers and blobs that nothing refers to.
    pub fn collect_garbage(&self) -> Result<Collected> {
        todo!()
    }
    /// Writes everything to disk and marks it so. Without it a power cut (never a crash of a process) may
    /// cost layers and images of the last seconds, which then count as absent.
    pub fn sync(&self) -> Result<()> {
        todo!()
    }
}

/// Images.
impl Store {
    /// By reference, id, unique id prefix (with or without `sha256:`), or `name@digest`.
    pub fn image(&self, name: &str) -> Result<Image> {
        todo!()
    }
    /// All images, newest first.
    pub fn images(&self) -> Result<Vec<ImageSummary>> {
        todo!()
    }
    /// Makes `name` mean the image, taking it from whichever had it.
    pub fn tag(&self, image: &Digest, name: &Reference) -> Result<()> {
        todo!()
    }
    /// Remembers that a registry knows the image as `reference` (`repository@digest`), after a push.
    pub fn add_repo_digest(&self, image: &Digest, reference: &Reference) -> Result<()> {
        todo!()
    }
    /// `rmi`: takes the name away and, with the last one, the image. By id: the image with all its names.
    /// `is_running` tells whether a container (by id) runs: such an image is never removed.
    pub fn remove_image(&self, name: &str, force: bool, is_running: &dyn Fn(&str) -> bool) -> Result<Vec<Removed>> {
        todo!()
    }
    /// Puts an image made here; its layers must be in the store.
    pub fn put_built_image(&self, config: &ImageConfig, names: &[Reference]) -> Result<Digest> {
        todo!()
    }
    /// Puts a pulled image; its layers must be in the store. Names with a digest become repo digests.
    pub fn put_pulled_image(
        &self,
        names: &[Reference],
        descriptor: &Descriptor,
        manifest_bytes: &[u8],
        config_bytes: &[u8],
    ) -> Result<Digest> {
        todo!()
    }
    /// The `fs/` folders of an image's layers, lowest first: overlay's lowerdirs.
    pub fn image_layers(&self, image: &Image) -> Result<Vec<PathBuf>> {
        todo!()
    }
    /// The manifest by which the image is pushed and saved, and its raw bytes: the pulled one, or one made
    /// (with its layer blobs) now and kept from then on.
    pub fn manifest_of(&self, image: &Image) -> Result<(Descriptor, Vec<u8>)> {
        todo!()
    }
    /// The image that a `parent`'s config plus one step made: for `history`'s ids. `None` for the first.
    pub fn containers_using(&self, image: &Digest) -> Result<Vec<ContainerRow>> {
        todo!()
    }
}

/// Layers and blobs.
impl Store {
    /// Whether the layer is there; if so it is kept from collection as long as this `Store` lives.
    pub fn has_layer(&self, diff_id: &Digest) -> bool {
        todo!()
    }
    /// The layer's `fs/` folder, whether it is there or not.
    pub fn layer_dir(&self, diff_id: &Digest) -> PathBuf {
        todo!()
    }
    /// Fetches, verifies and unpacks one layer, in one stream. `open(offset)` begins reading the blob at an
    /// offset: once, and again after a broken read; a partial file of an earlier attempt is used.
    /// `progress` gets the number of compressed bytes had so far. Called from several threads at once; a second caller for the
    /// same layer waits and finds it done.
    pub fn ingest_layer(
        &self,
        blob: &Descriptor,
        diff_id: &Digest,
        open: &mut dyn FnMut(u64) -> io::Result<Box<dyn Read>>,
        progress: &dyn Fn(u64),
    ) -> Result<()> {
        todo!()
    }
    /// Puts a small blob (config, manifest) whose bytes must match the descriptor.
    pub fn ingest_blob(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<()> {
        todo!()
    }
    /// Opens a blob.
    pub fn blob(&self, digest: &Digest) -> Result<File> {
        todo!()
    }
    /// Whether the blob is there; if so it is kept from collection as long as this `Store` lives.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        todo!()
    }
    /// A new folder of one's own in `ingest/`.
    pub fn new_scratch(&self) -> Result<Scratch> {
        todo!()
    }
    /// Makes a layer of an upperdir, which is renamed away. Nothing may be mounted on it any more.
    pub fn commit_upper(&self, upper: &Path) -> Result<CommittedLayer> {
        todo!()
    }
    /// Writes the layer's deterministic tar; its sha256 is the diff id of a built layer.
    pub fn layer_tar(&self, diff_id: &Digest, out: &mut dyn Write) -> Result<()> {
        todo!()
    }
    /// The layer's compressed blob, made if there is none yet.
    pub fn layer_blob(&self, diff_id: &Digest) -> Result<Descriptor> {
        todo!()
    }
}

/// Containers.
impl Store {
    /// Makes the row, the folder and its config.json. A conflicting row whose folder is gone is replaced.
    pub fn create_container(&self, new: &NewContainer<'_>) -> Result<ContainerRow> {
        todo!()
    }
    /// By id, name or unique id prefix.
    pub fn container(&self, name: &str) -> Result<ContainerRow> {
        todo!()
    }
    /// All containers, newest first. Rows whose folder is gone (`--rm`) are left out.
    pub fn containers(&self) -> Result<Vec<ContainerRow>> {
        todo!()
    }
    /// Moves the folder to the trash and forgets row and addresses; unlinks it then. Callers hold the lock.
    pub fn remove_container(&self, id: &str) -> Result<()> {
        todo!()
    }
    /// Gives a container another name.
    pub fn rename_container(&self, id: &str, name: &str) -> Result<()> {
        todo!()
    }
    /// The container's folder.
    pub fn container_dir(&self, id: &str) -> PathBuf {
        self.root.join("containers").join(id)
    }
    /// The `fs/` folders under a container's root, lowest first; there even if its image is gone.
    pub fn container_layers(&self, row: &ContainerRow) -> Result<Vec<PathBuf>> {
        todo!()
    }
    /// Waits for the container's lock.
    pub fn lock_container(&self, id: &str) -> Result<Lock> {
        todo!()
    }
    /// The container's lock, or `None` where another has it.
    pub fn try_lock_container(&self, id: &str) -> Result<Option<Lock>> {
        todo!()
    }
}

/// Networks and addresses.
impl Store {
    /// By name, id or unique id prefix.
    pub fn network(&self, name: &str) -> Result<NetworkRow> {
        todo!()
    }
    /// All networks, oldest first.
    pub fn networks(&self) -> Result<Vec<NetworkRow>> {
        todo!()
    }
    /// Makes a network; the name must be free.
    pub fn create_network(&self, name: &str, config: serde_json::Value) -> Result<NetworkRow> {
        todo!()
    }
    /// The network of that name, made with `config()` where there is none: atomic, for the default one.
    /// `config` runs inside the transaction and gets the rows of all networks: it must be quick.
    pub fn network_or_create(
        &self,
        name: &str,
        config: &mut dyn FnMut(&[NetworkRow]) -> serde_json::Value,
    ) -> Result<NetworkRow> {
        todo!()
    }
    /// Removes a network that no container's address is in.
    pub fn remove_network(&self, name: &str) -> Result<NetworkRow> {
        todo!()
    }
    /// An address of the subnet for the container: the next free one after the last given out, or `wanted`.
    /// Never the subnet's first and last nor the gateway. Asked again, the container gets the one it has.
    pub fn allocate_address(
        &self,
        network: &str,
        subnet: (Ipv4Addr, u8),
        gateway: Ipv4Addr,
        container: &str,
        wanted: Option<Ipv4Addr>,
    ) -> Result<Ipv4Addr> {
        todo!()
    }
    /// Gives up a container's addresses, in one network or all.
    pub fn release_addresses(&self, container: &str, network: Option<&str>) -> Result<()> {
        todo!()
    }
    /// The addresses in a network.
    pub fn addresses(&self, network: &str) -> Result<Vec<AddressRow>> {
        todo!()
    }
}

/// Volumes.
impl Store {
    /// Makes a volume (`None`: an anonymous one), or returns the one of that name.
    pub fn create_volume(
        &self,
        name: Option<&str>,
        labels: &BTreeMap<String, String>,
        options: &BTreeMap<String, String>,
    ) -> Result<Volume> {
        todo!()
    }
    /// The volume of that name.
    pub fn volume(&self, name: &str) -> Result<Volume> {
        todo!()
    }
    /// All volumes, by name.
    pub fn volumes(&self) -> Result<Vec<Volume>> {
        todo!()
    }
    /// The folder that containers see.
    pub fn volume_data(&self, name: &str) -> PathBuf {
        self.root.join("volumes").join(name).join("_data")
    }
    /// Ids of the containers that use the volume.
    pub fn volume_users(&self, name: &str) -> Result<Vec<String>> {
        todo!()
    }
    /// Removes a volume that no container uses.
    pub fn remove_volume(&self, name: &str) -> Result<()> {
        todo!()
    }
    /// Copies an image's folder (an open directory in the container's root) into an empty volume, with owner, mode and xattrs
    /// of the folder itself; does nothing to a volume that holds something.
    pub fn fill_volume(&self, name: &str, from: std::os::fd::BorrowedFd<'_>) -> Result<()> {
        todo!()
    }
}

/// The builder's cache.
impl Store {
    /// What was put under `key`, if its layers are still there.
    pub fn cache_get(&self, key: &str) -> Result<Option<String>> {
        todo!()
    }
    /// Puts `value` under `key`; the layers stay until the entry is removed.
    pub fn cache_put(&self, key: &str, value: &str, diff_ids: &[Digest]) -> Result<()> {
        todo!()
    }
    /// All entries, least recently used first.
    pub fn cache_entries(&self) -> Result<Vec<CacheEntry>> {
        todo!()
    }
    /// Removes entries; their layers go with the next collection.
    pub fn cache_remove(&self, keys: &[&str]) -> Result<()> {
        todo!()
    }
}
