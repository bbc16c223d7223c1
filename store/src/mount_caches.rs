//! Folders that build steps hand on from build to build (`RUN --mount=type=cache`), below `build-cache/`.
//!
//! Each is a folder named by its id's hash: `lock`, held by whoever uses it and dated by the last use; `id`, what the
//! recipe calls it; `data`, which is mounted. One that is to go is locked, then moved away whole: whoever waited for that
//! lock finds that it is not the one at its path any more, and makes the folder anew.

use crate::layout::{make_dir, remove_tree};
use crate::lock::{Lock, Wait};
use crate::{Result, Store, StoreError};
use jiff::Timestamp;
use oci::Digest;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Where they lie, below the root.
const FOLDER: &str = "build-cache";
/// The digests of contexts' files, beside them.
const DIGESTS: &str = "build-cache/digests";
/// The longest id that is read back, in bytes.
const MAX_ID_BYTES: u64 = 4096;

/// A folder that build steps share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountCache {
    /// Its folder's name.
    pub name: String,
    /// What the recipe calls it.
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
    /// When a step last began to use it.
    pub used: Timestamp,
    /// Bytes in its files.
    pub bytes: u64,
    /// A step is using it.
    pub in_use: bool,
}

/// Who else may use a cache meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheAccess {
    /// Others who share it.
    Shared,
    /// Nobody; the others are waited for.
    Exclusive,
    /// Nobody, and none is waited for.
    TryExclusive,
}

/// A cache that is being used, until it is dropped.
#[derive(Debug)]
pub struct LockedMountCache {
    /// Where `data` is, or is to be.
    pub folder: PathBuf,
    _lock: Lock,
}

impl Store {
    /// Locks a cache, whose folder is made where it is missing. `copy` counts what several steps at once have of one
    /// cache. None: somebody else has it, and was not to be waited for.
    pub fn lock_mount_cache(&self, id: &str, copy: usize, access: CacheAccess) -> Result<Option<LockedMountCache>> {
        let hex = Digest::sha256(id).hex().to_owned();
        let folder = self.root().join(FOLDER).join(if copy == 0 { hex } else { format!("{hex}.{copy}") });
        let path = folder.join("lock");
        let wait = match access {
            CacheAccess::Shared => Wait::Shared,
            CacheAccess::Exclusive => Wait::Block,
            CacheAccess::TryExclusive => Wait::Try,
        };
        let lock = loop {
            make_dir(&folder, 0o700)?;
            // The folder may go before its lock is had.
            match found(Lock::take(&path, wait))? {
                None => {}
                Some(None) => return Ok(None),
                Some(Some(lock)) => break lock,
            }
        };
        lock.file.set_modified(SystemTime::now()).map_err(StoreError::io("note a use of", &path))?;
        let name = folder.join("id");
        if !name.exists() {
            fs::write(&name, id).map_err(StoreError::io("write", &name))?;
        }
        Ok(Some(LockedMountCache { folder, _lock: lock }))
    }

    /// All of them, with what they take on the disk; least recently used first.
    pub fn mount_caches(&self) -> Result<Vec<MountCache>> {
        let folder = self.root().join(FOLDER);
        let Some(entries) = found(fs::read_dir(&folder).map_err(StoreError::io("list", &folder)))? else {
            return Ok(Vec::new());
        };
        let mut caches = Vec::new();
        for entry in entries {
            let entry = entry.map_err(StoreError::io("list", &folder))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = entry.path().join("lock");
            // One that goes meanwhile is not there.
            let Some(meta) = fs::metadata(&path).ok().filter(|_| is_name(&name)) else { continue };
            // Let go at once: nobody shall wait for the walk.
            let Some(free) = found(Lock::take(&path, Wait::Try))?.map(|lock| lock.is_some()) else { continue };
            let time = |time: io::Result<SystemTime>| {
                time.ok().and_then(|time| Timestamp::try_from(time).ok()).unwrap_or(Timestamp::UNIX_EPOCH)
            };
            let used = time(meta.modified());
            let id = read_id(&entry.path().join("id")).unwrap_or_else(|| name.clone());
            let created = time(meta.created()).min(used);
            caches.push(MountCache { id, created, used, bytes: folder_bytes(&entry.path()), in_use: !free, name });
        }
        caches.sort_by(|a, b| (a.used, &a.name).cmp(&(b.used, &b.name)));
        Ok(caches)
    }

    /// Removes one, unless a step is using it: false then.
    pub fn remove_mount_cache(&self, name: &str) -> Result<bool> {
        let folder = self.root().join(FOLDER).join(name);
        if !is_name(name) || !folder.exists() {
            return Ok(false);
        }
        let Some(Some(lock)) = found(Lock::take(&folder.join("lock"), Wait::Try))? else { return Ok(false) };
        let Some(grave) = self.layout.discard(&folder)? else { return Ok(false) };
        drop(lock);
        // What cannot be unlinked now the next sweep tries again.
        let _ = remove_tree(&grave);
        Ok(true)
    }

    /// Where the digests of the files of a context are remembered. Noted as used now, to the day.
    pub fn digest_table(&self, name: &str) -> PathBuf {
        let path = self.root().join(DIGESTS).join(name);
        let file = File::open(&path);
        let age = |file: &File| file.metadata().and_then(|meta| meta.modified()).ok()?.elapsed().ok();
        if let Ok(file) = file
            && age(&file).is_some_and(|age| age > Duration::from_secs(24 * 3600))
        {
            // No more than its age is lost.
            let _ = file.set_modified(SystemTime::now());
        }
        path
    }

    /// Forgets the digests of contexts that were not built for so long.
    pub fn sweep_digest_tables(&self, unused: Duration) {
        for entry in fs::read_dir(self.root().join(DIGESTS)).into_iter().flatten().flatten() {
            let used = entry.metadata().and_then(|meta| meta.modified());
            if used.is_ok_and(|used| used.elapsed().is_ok_and(|age| age >= unused)) {
                // They are a help, and made again.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Bytes in the files below a folder.
pub fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => folder_bytes(&entry.path()),
        Ok(meta) if meta.is_file() => meta.len(),
        _ => 0,
    };
    entries.flatten().map(size).sum()
}

/// None where there is nothing.
fn found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A name leads nowhere else.
fn is_name(name: &str) -> bool {
    name.len() >= 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'.')
}

fn read_id(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(MAX_ID_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_is_never_removed() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let removed = std::thread::scope(|scope| {
            let users: Vec<_> = (0..2)
                .map(|n| {
                    let store = &store;
                    scope.spawn(move || {
                        for round in 0..300 {
                            let access =
                                if (n + round) % 2 == 0 { CacheAccess::Shared } else { CacheAccess::Exclusive };
                            let cache = store.lock_mount_cache("id", 0, access).unwrap().unwrap();
                            let mine = cache.folder.join(format!("{n}.{round}"));
                            fs::write(&mine, "").unwrap();
                            std::thread::yield_now();
                            assert!(mine.exists(), "it went while it was in use");
                        }
                    })
                })
                .collect();
            let name = Digest::sha256("id").hex().to_owned();
            let mut removed = 0;
            while users.iter().any(|user| !user.is_finished()) {
                removed += usize::from(store.remove_mount_cache(&name).unwrap());
                store.mount_caches().unwrap();
            }
            removed
        });
        assert!(removed > 0, "the test removes none");
    }

    #[test]
    fn digests_nobody_asks_for_go() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let (day, now) = (Duration::from_secs(24 * 3600), SystemTime::now());
        fs::create_dir_all(root.path().join(DIGESTS)).unwrap();
        for (name, age) in [("asked", 40), ("forgotten", 40), ("young", 20)] {
            let file = File::create(root.path().join(DIGESTS).join(name)).unwrap();
            file.set_modified(now - day * age).unwrap();
        }
        let asked = store.digest_table("asked");
        store.sweep_digest_tables(day * 30);
        let is_there = |name: &str| root.path().join(DIGESTS).join(name).exists();
        assert_eq!([asked.exists(), is_there("forgotten"), is_there("young")], [true, false, true]);
    }

    #[test]
    fn only_caches_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        fs::create_dir_all(root.path().join("build-cache/digests")).unwrap();
        for name in ["digests", "..", "../layers", "."] {
            assert!(!store.remove_mount_cache(name).unwrap(), "{name}");
        }
        assert!(root.path().join("layers").exists());
    }
}
