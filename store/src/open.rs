//! Opening a store, and making one.

use crate::db::{Database, change, rows};
use crate::layer::extract::Marks;
use crate::layout::{FOLDERS, FORMAT, Layout, make_dir};
use crate::lease::Lease;
use crate::lock::{Lock, Wait};
use crate::migrate::{format_of, migrate, write_format};
use crate::shared::Shared;
use crate::sources::Refetch;
use crate::{Result, StoreError};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Held while the store is made, migrated or made anew.
pub(crate) const CREATION_LOCK: &str = ".creation.lock";

/// An open store. Shared by threads; made anew in each process (never carried across a fork).
#[derive(Debug)]
pub struct Store {
    pub(crate) layout: Layout,
    pub(crate) db: Database,
    /// The kernel's id of this boot.
    pub(crate) boot: String,
    pub(crate) lease: Lease,
    /// Additional stores, in the order given.
    pub(crate) shared: Vec<Shared>,
    /// Whether pulled layers' blobs are dropped.
    pub(crate) drops_blobs: bool,
    pub(crate) refetch: Option<Arc<dyn Refetch>>,
    privileged: bool,
}

/// What a store is opened with, beside its folder.
#[derive(Clone, Debug, Default)]
pub struct StoreOptions {
    /// Other stores whose images and layers count as if they were here; they are only read.
    pub additional: Vec<PathBuf>,
    /// Drop the compressed blobs of pulled layers once they are unpacked (`keep-blobs=false`): half the space, but pushes and
    /// saves fetch them again.
    pub drop_blobs: bool,
    /// How blobs that were dropped are had again; without it they are not.
    pub refetch: Option<Arc<dyn Refetch>>,
}

impl Store {
    /// Opens the store at `root` by itself, making it where there is none.
    pub fn open(root: &Path) -> Result<Store> {
        Store::open_with(root, &StoreOptions::default())
    }

    /// Opens the store at `root`, making it where there is none.
    pub fn open_with(root: &Path, options: &StoreOptions) -> Result<Store> {
        let layout = Layout { root: root.to_owned() };
        if format_of(&layout)? != Some(FORMAT) {
            prepare(&layout)?;
        }
        let db = Database::open(&layout)?;
        let boot_path = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = fs::read_to_string(boot_path).map_err(StoreError::io("read", boot_path))?.trim().to_owned();
        let shared = options.additional.iter().map(|path| Shared::new(path)).collect();
        Ok(Store {
            layout,
            db,
            boot,
            lease: Lease::default(),
            shared,
            drops_blobs: options.drop_blobs,
            refetch: options.refetch.clone(),
            privileged: is_initial_root(),
        })
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.layout.root
    }

    pub(crate) fn marks(&self) -> Marks {
        let prefix = if self.privileged { "trusted.overlay." } else { "user.overlay." };
        Marks { prefix, privileged: self.privileged }
    }

    /// Writes everything to disk and marks it so. Without it a power cut (never a crash of a process) may
    /// cost layers and images of the last seconds, which then count as absent.
    pub fn sync(&self) -> Result<()> {
        let error = self.db.error("mark what is on disk");
        let unsynced = |table: &'static str, key: &'static str| {
            let sql = format!("SELECT {key} FROM {table} WHERE boot = ?");
            self.db.read("list what is not on disk", |tx| {
                rows(tx, &sql, [&self.boot], |r| r.get::<_, String>(0)).map_err(error)
            })
        };
        let (layers, images) = (unsynced("layer", "name")?, unsynced("image", "id")?);
        if layers.is_empty() && images.is_empty() {
            return Ok(());
        }
        let path = self.root();
        let root = File::open(path).map_err(StoreError::io("open", path))?;
        linux::file::sync_filesystem(&root).map_err(StoreError::io("sync", path))?;
        self.db.write("mark what is on disk", |tx| {
            for name in &layers {
                change(tx, "UPDATE layer SET boot = NULL WHERE name = ?", [name]).map_err(error)?;
            }
            for id in &images {
                change(tx, "UPDATE image SET boot = NULL WHERE id = ?", [id]).map_err(error)?;
            }
            Ok(())
        })
    }
}

/// Makes the store, or brings an older one to today's format. FORMAT comes last, by rename, so that its presence means
/// all is there. Others who come meanwhile wait for the lock.
fn prepare(layout: &Layout) -> Result<()> {
    make_dir(&layout.root, 0o700)?;
    let lock = Lock::take(&layout.root.join(CREATION_LOCK), Wait::Block)?;
    match format_of(layout)? {
        Some(FORMAT) => {}
        Some(_older) => migrate(layout)?,
        None => {
            for folder in FOLDERS {
                make_dir(&layout.root.join(folder), 0o700)?;
            }
            Database::create(layout)?;
            write_format(layout)?;
        }
    }
    drop(lock);
    Ok(())
}

/// Root of the initial user namespace: only there are trusted.* attributes and devices to be had.
fn is_initial_root() -> bool {
    rustix::process::geteuid().is_root() && linux::userns::is_initial()
}
