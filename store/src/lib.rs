//! What ctr keeps on disk: blobs, layers, images, containers, networks' addresses, volumes.
//!
//! Content lies in files named by digest; SQLite ([`db`]) holds what needs transactions and look-ups. Locks are
//! flocks, so a killed process leaves none; what it left half made lies in `ingest/` or `trash/`, where
//! any later command sweeps it up ([`sweep`]).
//!
//! The rules everything here keeps:
//! - Nothing is visible before it is whole: made in a locked folder of `ingest/`, verified, renamed, then its row.
//! - What a living process relies on but no row names is leased ([`lease`]); the collector ([`remove`]) takes a thing's
//!   lock, looks at leases and rows, and moves it to `trash/` in the transaction that forgets it.
//! - No fsync per file. A row carries the boot it was written in until [`Store::sync`]; of an earlier boot it is
//!   believed only after its content has been hashed again.
//! - Layers come in through [`layer::ingest`] (from outside, any tar: [`layer::read`], [`layer::extract`],
//!   [`layer::chain`]) or [`layer::commit`] (an upperdir), and go out as the one deterministic tar of [`layer_tar`].
#![allow(rustdoc::private_intra_doc_links)] // The map above is for who reads the source.

mod archive;
mod cache;
mod changes;
mod check;
mod compression;
mod containers;
mod copy;
mod db;
mod error;
mod gunzip;
mod id;
mod images;
mod layer;
mod layer_tar;
mod layout;
mod lease;
mod lock;
mod manifests;
mod migrate;
mod mount_caches;
mod names;
mod networks;
mod open;
mod rebuild;
mod remove;
mod shared;
mod sources;
mod sweep;
mod types;
mod usage;
mod volumes;

pub use archive::{ArchiveWriter, ImageArchive, choose_image};
pub use changes::{Change, ChangeKind, LayerChanges};
pub use check::Finding;
pub use error::StoreError;
pub use id::new_id;
pub use layer::read::{Entry as TarEntry, Kind as TarKind, TarReader};
pub use lock::Lock;
pub use mount_caches::{CacheAccess, LockedMountCache, MountCache, folder_bytes};
pub use open::{Store, StoreOptions};
pub use sources::Refetch;
pub use types::{
    AddressRow, ArchiveFormat, CacheEntry, Collected, CommittedLayer, ContainerRow, Image, ImageSummary, ImportOptions,
    Loaded, NetworkRow, NewContainer, Removed, Scratch, Volume,
};

type Result<T> = std::result::Result<T, StoreError>;

/// Unpacks a plain tar as a layer into an empty folder.
#[cfg(fuzzing)]
pub fn unpack_for_fuzzing(tar: &[u8], root: &std::path::Path) -> Result<()> {
    let marks = layer::extract::Marks { prefix: "user.overlay.", privileged: true };
    layer::extract::extract(&mut TarReader::new(tar), root, marks).map(drop)
}
