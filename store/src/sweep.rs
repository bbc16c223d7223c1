//! Clearing up after the dead: `trash/` and what nobody holds a lock on in `ingest/`.

use crate::db::row;
use crate::layout::remove_tree;
use crate::lock::{Lock, Wait};
use crate::{Result, Scratch, Store, StoreError};
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A file or folder without a lock of its own, younger than this, may be one just being made.
const DRAFT_AGE: Duration = Duration::from_secs(60);
/// A partial download is worth keeping for its resumption.
const PARTIAL_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

impl Store {
    /// [`sweep_dead`](Self::sweep_dead), and the folders that no row names.
    pub fn sweep(&self) -> Result<()> {
        self.sweep_dead()?;
        self.sweep_orphans("containers", "SELECT 1 FROM container WHERE id = ?", |path| {
            // One that got as far as having a state had a row: its database was lost, and it can be put back.
            !path.join("state.json").exists()
        })?;
        self.sweep_orphans("images", "SELECT 1 FROM image WHERE id = 'sha256:' || substr(?, 1, 64)", |path| {
            path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b"sha512-"))
        })?;
        self.sweep_orphans("volumes", "SELECT 1 FROM volume WHERE name = ?", |path| {
            fs::read_dir(path.join("_data")).is_ok_and(|mut content| content.next().is_none())
        })
    }

    /// Clears `trash/` and what dead processes left in `ingest/`; where there is nothing it costs the reading of two folders, so
    /// every command does it at its end. Whatever cannot be removed now is left for the next sweep.
    pub fn sweep_dead(&self) -> Result<()> {
        for entry in list(&self.layout.trash())? {
            let _ = remove_tree(&entry.path());
        }
        for entry in list(&self.layout.ingest(""))? {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let _ = self.sweep_ingest(name, &entry.path());
        }
        Ok(())
    }

    /// What a maker left that died between the rename and the commit: no row names it. `is_fresh` tells that from what
    /// has content of its own.
    fn sweep_orphans(&self, folder: &str, sql: &str, is_fresh: impl Fn(&Path) -> bool) -> Result<()> {
        let error = self.db.error("look for orphans");
        let entries = list(&self.layout.root.join(folder))?;
        if entries.is_empty() {
            return Ok(());
        }
        let has_row = |tx: &rusqlite::Transaction<'_>, entry: &fs::DirEntry| {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { return Ok(true) };
            row(tx, sql, [name], |_| Ok(())).map(|found| found.is_some()).map_err(error)
        };
        let mut orphans = Vec::new();
        self.db.read("look for orphans", |tx| {
            for entry in entries {
                if !has_row(tx, &entry)? {
                    orphans.push(entry);
                }
            }
            Ok(())
        })?;
        for orphan in orphans {
            // Makers rename within their transaction: under the write lock there is no half of one.
            self.db.write("look for orphans", |tx| {
                if !has_row(tx, &orphan)? && is_fresh(&orphan.path()) {
                    self.bury(&orphan.path())?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn sweep_ingest(&self, name: &str, path: &Path) -> Result<()> {
        match name.rsplit_once('.').map(|(_, suffix)| suffix) {
            Some("partial") if !is_older(path, PARTIAL_AGE) => Ok(()),
            Some("draft") if !is_older(path, DRAFT_AGE) => Ok(()),
            // Lock files are their names' own; a free one is taken before it is removed, as its user would.
            Some("lock") => {
                if let Some(lock) = Lock::take(path, Wait::Try)? {
                    lock.remove_file(path);
                }
                Ok(())
            }
            Some("partial" | "draft") => remove_tree(path),
            _ => {
                let Some(lock) = Lock::take_dir(path, Wait::Try)? else { return Ok(()) };
                if is_older(path, DRAFT_AGE) || name.starts_with("lease.") || name.ends_with(".work") {
                    self.bury(path)?;
                }
                drop(lock);
                Ok(())
            }
        }
    }

    /// Moves to the trash, then unlinks: a half-removed tree is never met under its old name.
    pub(crate) fn bury(&self, path: &Path) -> Result<()> {
        match self.layout.discard(path)? {
            Some(grave) => {
                // What cannot be unlinked now the next sweep tries again.
                let _ = remove_tree(&grave);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A new folder of one's own in `ingest/`.
    pub fn new_scratch(&self) -> Result<Scratch> {
        let id = crate::id::random_hex(16)?;
        let draft = self.layout.ingest(&format!("{id}.draft"));
        let path = self.layout.ingest(&format!("{id}.work"));
        crate::layout::make_dir(&draft, 0o700)?;
        let lock = Lock::take_dir(&draft, Wait::Block)?.ok_or_else(|| StoreError::Busy(id))?;
        // Under its final name a sweeper removes what is not locked; this is.
        fs::rename(&draft, &path).map_err(StoreError::io("create", &path))?;
        Ok(Scratch { path, trash: self.layout.trash(), _lock: lock })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Ok(id) = crate::id::random_hex(16) else { return };
        let grave = self.trash.join(id);
        // Whatever fails here the next sweep does.
        if fs::rename(&self.path, &grave).is_ok() {
            let _ = remove_tree(&grave);
        }
    }
}

fn list(path: &Path) -> Result<Vec<fs::DirEntry>> {
    let entries = fs::read_dir(path).map_err(StoreError::io("list", path))?;
    entries.collect::<io::Result<_>>().map_err(StoreError::io("list", path))
}

fn is_older(path: &Path, age: Duration) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|m| m.modified());
    modified.is_ok_and(|m| SystemTime::now().duration_since(m).is_ok_and(|d| d > age))
}
