//! Opening a store, and making one.

use crate::db::{Database, change, rows};
use crate::layer::extract::Marks;
use crate::layout::{FOLDERS, FORMAT, Layout, make_dir};
use crate::lease::Lease;
use crate::lock::{Lock, Wait};
use crate::{Result, StoreError};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// An open store. Shared by threads; made anew in each process (never carried across a fork).
#[derive(Debug)]
pub struct Store {
    pub(crate) layout: Layout,
    pub(crate) db: Database,
    /// The kernel's id of this boot.
    pub(crate) boot: String,
    pub(crate) lease: Lease,
    privileged: bool,
}

impl Store {
    /// Opens the store at `root`, making it where there is none.
    pub fn open(root: &Path) -> Result<Store> {
        let layout = Layout { root: root.to_owned() };
        if !is_made(&layout)? {
            make(&layout)?;
        }
        let db = Database::open(&layout)?;
        let boot_path = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = fs::read_to_string(boot_path).map_err(StoreError::io("read", boot_path))?.trim().to_owned();
        Ok(Store { layout, db, boot, lease: Lease::default(), privileged: is_initial_root() })
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

/// Whether the store is there and of a format we know.
fn is_made(layout: &Layout) -> Result<bool> {
    let path = layout.format();
    let mut found = String::new();
    match File::open(&path).and_then(|f| f.take(64).read_to_string(&mut found)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(StoreError::io("read", &path))?,
    };
    if found.trim() == FORMAT.to_string() {
        return Ok(true);
    }
    Err(StoreError::Format { path: layout.root.clone(), found: found.trim().to_owned(), known: FORMAT })
}

/// Makes the folders and the database; FORMAT comes last, by rename, so that its presence means all is there.
fn make(layout: &Layout) -> Result<()> {
    make_dir(&layout.root, 0o700)?;
    let lock = Lock::take(&layout.root.join(".creation.lock"), Wait::Block)?;
    if is_made(layout)? {
        return Ok(());
    }
    for folder in FOLDERS {
        make_dir(&layout.root.join(folder), 0o700)?;
    }
    Database::create(layout)?;
    crate::layout::write_atomically(layout, &layout.format(), format!("{FORMAT}\n").as_bytes())?;
    drop(lock);
    Ok(())
}

/// Root of the initial user namespace: only there are trusted.* attributes and devices to be had.
fn is_initial_root() -> bool {
    rustix::process::geteuid().is_root() && linux::userns::is_initial()
}
