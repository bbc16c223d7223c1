//! What ctr keeps on disk: blobs, layers, images, containers, networks' addresses, volumes.
//!
//! Content lies in files named by digest; SQLite holds what needs transactions and look-ups. Locks are
//! flocks, so a killed process leaves none; what it left half made lies in `ingest/` or `trash/`, where
//! any later command sweeps it up.

mod archive;
mod cache;
mod compression;
mod containers;
mod copy;
mod db;
mod error;
mod id;
mod images;
mod layer;
mod layer_tar;
mod layout;
mod lease;
mod lock;
mod manifests;
mod names;
mod networks;
mod open;
mod remove;
mod sweep;
mod types;
mod volumes;

pub use error::StoreError;
pub use id::new_id;
pub use lock::Lock;
pub use open::Store;
pub use types::{
    AddressRow, ArchiveFormat, CacheEntry, Collected, CommittedLayer, ContainerRow, Image, ImageSummary, ImportOptions,
    Loaded, NetworkRow, NewContainer, Removed, Scratch, Volume,
};

type Result<T> = std::result::Result<T, StoreError>;
