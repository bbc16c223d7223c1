//! Leases: what a living process relies on but no row names yet – the layers of a pull or build under way.
//!
//! A process's lease is a locked file in `ingest/` with one name a line; its death frees it. A name is
//! added under the lock of the thing named, which the collector holds too, so nothing vanishes between the
//! look and the note.

use crate::layout::Layout;
use crate::lock::{Lock, Wait};
use crate::{Result, StoreError};
use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

const PREFIX: &str = "lease.";

/// This process's lease; its file is made with the first name.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    inner: Mutex<Option<Inner>>,
}

#[derive(Debug)]
struct Inner {
    lock: Lock,
    path: PathBuf,
    names: HashSet<String>,
}

impl Lease {
    /// Keeps `name` – a layer's folder or a blob's digest – from collection. The caller holds its lock.
    pub(crate) fn add(&self, layout: &Layout, name: &str) -> Result<()> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let lease = match &mut *inner {
            Some(lease) => lease,
            none => none.insert(new_lease(layout)?),
        };
        if lease.names.contains(name) {
            return Ok(());
        }
        // In one call: a reader sees whole lines.
        lease.lock.file.write_all(format!("{name}\n").as_bytes()).map_err(StoreError::io("write", &lease.path))?;
        lease.names.insert(name.to_owned());
        Ok(())
    }

    /// Whether `name` is kept already.
    pub(crate) fn holds(&self, name: &str) -> bool {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.as_ref().is_some_and(|lease| lease.names.contains(name))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(lease) = inner.take() {
            lease.lock.remove_file(&lease.path);
        }
    }
}

/// A sweeper may take the file between its making and its locking, so it is made, locked and then moved to its name.
fn new_lease(layout: &Layout) -> Result<Inner> {
    let id = crate::id::random_hex(16)?;
    let path = layout.ingest(&format!("{PREFIX}{id}"));
    let lock = new_locked_file(layout, &id)?;
    fs::rename(layout.ingest(&format!("{id}.draft")), &path).map_err(StoreError::io("create", &path))?;
    Ok(Inner { lock, path, names: HashSet::new() })
}

fn new_locked_file(layout: &Layout, id: &str) -> Result<Lock> {
    let draft = layout.ingest(&format!("{id}.draft"));
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .map_err(StoreError::io("create", &draft))?;
    file.lock().map_err(StoreError::io("lock", &draft))?;
    Ok(Lock { file })
}

/// Everything that living processes lease. Leases of dead ones are removed on the way.
pub(crate) fn all(layout: &Layout) -> Result<HashSet<String>> {
    let ingest = layout.ingest("");
    let mut names = HashSet::new();
    for entry in fs::read_dir(&ingest).map_err(StoreError::io("list", &ingest))? {
        let entry = entry.map_err(StoreError::io("list", &ingest))?;
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let path = entry.path();
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(StoreError::io("open", &path)(e)),
        };
        if file.try_lock().is_ok() {
            let _ = fs::remove_file(&path);
            continue;
        }
        for line in BufReader::new(file).lines() {
            names.insert(line.map_err(StoreError::io("read", &path))?);
        }
    }
    Ok(names)
}

/// Takes the lock of a layer or blob, so that nobody makes or collects it meanwhile.
pub(crate) fn lock_name(layout: &Layout, name: &str, wait: Wait) -> Result<Option<NameLock>> {
    let path = layout.ingest(&format!("{}.lock", name.replace(':', "-")));
    Ok(Lock::take(&path, wait)?.map(|lock| NameLock { lock: Some(lock), path }))
}

/// The lock of one layer or blob; its file goes with it.
pub(crate) struct NameLock {
    lock: Option<Lock>,
    path: PathBuf,
}

impl Drop for NameLock {
    fn drop(&mut self) {
        if let Some(lock) = self.lock.take() {
            lock.remove_file(&self.path);
        }
    }
}
