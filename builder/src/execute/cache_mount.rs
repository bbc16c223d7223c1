//! `RUN --mount=type=cache`: folders that live on between builds. The store keeps them and their locks.

use super::mounts::copy_out;
use crate::instruction::Sharing;
use crate::step_error::{StepError, StepResult};
use crate::tree::{Selected, Tree};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::{CacheAccess, LockedMountCache, Store};

/// How many private copies of one cache there may be.
const MAX_PRIVATE_CACHES: usize = 100;

/// A cache that a step asks for.
pub(super) struct Cache {
    pub(super) id: String,
    pub(super) sharing: Sharing,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    /// What it begins with.
    pub(super) begin: Option<(Arc<Tree>, Selected)>,
}

/// A cache's folder and its lock, for as long as anybody has it.
pub(super) type Opened = (PathBuf, Arc<LockedMountCache>);

/// The caches of one step that others may want too, each once and in the order of their ids: two steps that want the same two
/// do not wait for one another, nor does a step for itself. Private ones, which nobody waits for, are opened after these.
pub(super) fn open_common<'c>(
    caches: impl Iterator<Item = &'c Cache>,
    store: &Store,
) -> StepResult<BTreeMap<String, Opened>> {
    let mut common: BTreeMap<&str, &Cache> = BTreeMap::new();
    for cache in caches.filter(|cache| cache.sharing != Sharing::Private) {
        let chosen = common.entry(&cache.id).or_insert(cache);
        if cache.sharing == Sharing::Locked {
            *chosen = cache;
        }
    }
    common.into_iter().map(|(id, cache)| Ok((id.to_owned(), cache.open(store)?))).collect()
}

impl Cache {
    /// The folder, made where missing, and its lock as the sharing wants it.
    pub(super) fn open(&self, store: &Store) -> StepResult<Opened> {
        let locked = match self.sharing {
            Sharing::Shared => store.lock_mount_cache(&self.id, 0, CacheAccess::Shared)?,
            Sharing::Locked => store.lock_mount_cache(&self.id, 0, CacheAccess::Exclusive)?,
            Sharing::Private => {
                let mut found = None;
                for n in 0..MAX_PRIVATE_CACHES {
                    found = store.lock_mount_cache(&self.id, n, CacheAccess::TryExclusive)?;
                    if found.is_some() {
                        break;
                    }
                }
                found
            }
        };
        let message = || format!("all {MAX_PRIVATE_CACHES} private caches of {:?} are in use", self.id);
        let locked = locked.ok_or_else(|| StepError::wrong(message()))?;
        let data = locked.folder.join("data");
        if !data.exists() {
            // A lock of its own: the other shares a step's whole life, and would let nobody in alone meanwhile.
            let fail = |e| StepError::io("open the cache", &locked.folder, e);
            let making = OpenOptions::new().create(true).truncate(false).write(true).open(locked.folder.join("making"));
            let making = making.map_err(fail)?;
            making.lock().map_err(fail)?;
            if !data.exists() {
                self.make(&locked.folder, &data)?;
            }
        }
        Ok((data, Arc::new(locked)))
    }

    /// Made beside its place and renamed: one that was killed half-way is not there.
    fn make(&self, folder: &Path, data: &Path) -> StepResult<()> {
        let fail = |e: io::Error| StepError::io("make the cache", folder, e);
        let new = folder.join("new");
        match fs::remove_dir_all(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
            _ => {}
        }
        let made = match &self.begin {
            Some((tree, selected)) => {
                copy_out(tree, selected, &new)?;
                new.join("files")
            }
            None => {
                fs::create_dir(&new).map_err(fail)?;
                new.clone()
            }
        };
        if self.begin.is_none() || self.owner != (0, 0) {
            std::os::unix::fs::chown(&made, Some(self.owner.0), Some(self.owner.1)).map_err(fail)?;
        }
        fs::set_permissions(&made, fs::Permissions::from_mode(self.mode)).map_err(fail)?;
        fs::rename(&made, data).map_err(fail)?;
        if made != new {
            fs::remove_dir(&new).map_err(fail)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    fn cache(id: &str, sharing: Sharing) -> Cache {
        let owner = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        Cache { id: id.to_owned(), sharing, mode: 0o755, owner, begin: None }
    }

    #[test]
    fn nobody_waits_in_a_circle() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let [a, b] = ["a", "b"].map(|id| cache(id, Sharing::Locked));
        std::thread::scope(|scope| {
            for wanted in [[&a, &b], [&b, &a]] {
                let store = &store;
                scope.spawn(move || {
                    for _ in 0..500 {
                        assert_eq!(open_common(wanted.into_iter(), store).unwrap().len(), 2);
                    }
                });
            }
        });
        // The same cache at two places of one step; a private one is another copy then.
        let [shared, private] = [Sharing::Shared, Sharing::Private].map(|sharing| cache("a", sharing));
        let opened = open_common([&shared, &a, &private, &shared].into_iter(), &store).unwrap();
        assert_ne!(opened["a"].0, private.open(&store).unwrap().0);
        assert!(store.lock_mount_cache("a", 0, CacheAccess::TryExclusive).unwrap().is_none());
    }

    #[test]
    fn a_shared_cache_is_shared_from_the_first_moment() {
        for round in 0..200 {
            let root = tempfile::tempdir().unwrap();
            let store = Store::open(root.path()).unwrap();
            let cache = cache(&format!("{round}"), Sharing::Shared);
            // Nobody gives it back before all have it.
            let all_have_it = Barrier::new(4);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let (_data, _lock) = cache.open(&store).unwrap();
                        all_have_it.wait();
                    });
                }
            });
        }
    }
}
