//! What the build cache takes on the disk, and which of it goes first.

use jiff::Timestamp;
use oci::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::time::{Duration, SystemTime};
use store::{Store, StoreError};

/// Digests of a context's files that no build asked for in so long are forgotten.
const DIGESTS_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// How often a build looks whether the cache has grown too large.
const BOUND_EVERY: Duration = Duration::from_secs(3600);
/// A cache may take this part of its file system, …
const BOUND_PART: u64 = 10;
/// … but so much in any case.
const BOUND_BYTES: u64 = 2_000_000_000;

/// What a part of the cache is; the names are docker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheKind {
    /// A layer.
    Regular,
    /// The folder of a `RUN --mount=type=cache`.
    Mount,
}

impl CacheKind {
    /// Docker's name of it.
    pub fn name(self) -> &'static str {
        match self {
            CacheKind::Regular => "regular",
            CacheKind::Mount => "exec.cachemount",
        }
    }
}

/// A part of the build cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheItem {
    /// A name to show.
    pub id: String,
    /// What it is.
    pub kind: CacheKind,
    /// What the recipe calls it.
    pub description: String,
    /// Bytes on the disk.
    pub bytes: u64,
    /// When it was made, where that is known.
    pub created: Option<Timestamp>,
    /// When a build last asked for it.
    pub used: Timestamp,
    /// An image has it too.
    pub is_shared: bool,
    /// A build is using it.
    pub in_use: bool,
}

/// What [`prune_cache`] is to remove.
#[derive(Clone, Debug, Default)]
pub struct CachePrune {
    /// What images have too: forgotten, though its layer stays.
    pub all: bool,
    /// What was used last is kept, up to so many bytes.
    pub keep_bytes: u64,
    /// Only what was used before.
    pub until: Option<Timestamp>,
}

/// The cache's layers and folders, most recently used first.
pub fn cache_items(store: &Store) -> Result<Vec<CacheItem>, StoreError> {
    let of_images: BTreeSet<_> = store.images()?.into_iter().flat_map(|image| image.diff_ids).collect();
    let sizes = store.layer_usage()?;
    let mut seen = BTreeSet::new();
    let mut items = Vec::new();
    for entry in store.cache_entries()?.into_iter().rev() {
        for layer in entry.diff_ids.iter().filter(|layer| seen.insert((*layer).clone())) {
            let bytes = sizes.get(layer).copied().unwrap_or(0);
            items.push(CacheItem { is_shared: of_images.contains(layer), ..step_item(Some(layer), bytes, entry.used) });
        }
    }
    items.extend(store.mount_caches()?.into_iter().map(mount_item));
    items.sort_by_key(|item| std::cmp::Reverse(item.used));
    Ok(items)
}

fn step_item(layer: Option<&Digest>, bytes: u64, used: Timestamp) -> CacheItem {
    CacheItem {
        id: layer.map(|layer| layer.short().to_owned()).unwrap_or_default(),
        kind: CacheKind::Regular,
        description: layer.map(|layer| format!("layer {layer}")).unwrap_or_default(),
        bytes,
        created: None,
        used,
        is_shared: false,
        in_use: false,
    }
}

fn mount_item(cache: store::MountCache) -> CacheItem {
    CacheItem {
        id: short(&cache.name),
        kind: CacheKind::Mount,
        // What it was begun from follows on lines of its own.
        description: format!("cached mount {}", cache.id.lines().next().unwrap_or_default()),
        bytes: cache.bytes,
        created: Some(cache.created),
        used: cache.used,
        is_shared: false,
        in_use: cache.in_use,
    }
}

/// Twelve digits, and which copy of it.
fn short(name: &str) -> String {
    let (hex, copy) = name.split_at_checked(64).unwrap_or((name, ""));
    format!("{}{copy}", hex.get(..12).unwrap_or(hex))
}

/// Something that goes or stays as one.
enum Part {
    Step(store::CacheEntry),
    Mount(store::MountCache),
}

/// Removes what `is_wanted` chooses, the least recently used first, until the rest is within the bytes to keep. What a
/// build is using stays. Returned is what went: digests of layers, ids of folders.
pub fn prune_cache(
    store: &Store,
    prune: &CachePrune,
    is_wanted: &dyn Fn(&CacheItem) -> bool,
) -> Result<Vec<String>, StoreError> {
    let items: BTreeMap<_, _> = cache_items(store)?.into_iter().map(|item| (item.id.clone(), item)).collect();
    let mut parts: Vec<(Timestamp, Part)> =
        store.cache_entries()?.into_iter().map(|entry| (entry.used, Part::Step(entry))).collect();
    parts.extend(store.mount_caches()?.into_iter().map(|cache| (cache.used, Part::Mount(cache))));
    parts.sort_by_key(|(used, _)| std::cmp::Reverse(*used));
    let (mut kept, mut counted) = (0, BTreeSet::new());
    let (mut keys, mut mounts) = (Vec::new(), Vec::new());
    for (used, part) in parts {
        let found: Vec<&CacheItem> = match &part {
            Part::Step(entry) => entry.diff_ids.iter().filter_map(|layer| items.get(layer.short())).collect(),
            Part::Mount(cache) => items.get(&short(&cache.name)).into_iter().collect(),
        };
        let own = found.iter().filter(|item| !item.is_shared);
        kept += own.filter(|item| counted.insert(&item.id)).map(|item| item.bytes).sum::<u64>();
        let is_kept = prune.keep_bytes > 0 && kept <= prune.keep_bytes;
        if is_kept || prune.until.is_some_and(|until| used >= until) {
            continue;
        }
        match part {
            // One without a layer of its own frees nothing.
            Part::Step(entry) if prune.all || found.iter().any(|item| !item.is_shared) => {
                let nothing = step_item(None, 0, used);
                let of_it = if found.is_empty() { vec![&nothing] } else { found };
                if of_it.into_iter().all(is_wanted) {
                    keys.push(entry.key);
                }
            }
            Part::Mount(cache) if found.into_iter().any(is_wanted) => mounts.push(cache),
            _ => {}
        }
    }
    store.cache_remove(&keys.iter().map(String::as_str).collect::<Vec<_>>())?;
    let mut removed: Vec<String> = store.collect_garbage()?.layers.iter().map(Digest::to_string).collect();
    for cache in mounts {
        if store.remove_mount_cache(&cache.name)? {
            removed.push(short(&cache.name));
        }
    }
    store.sweep_digest_tables(DIGESTS_KEPT);
    Ok(removed)
}

/// Removes what was used longest ago where the cache takes too much of its file system. Looks once an hour; a build calls
/// it at its end.
pub fn bound_cache(store: &Store) -> Result<(), StoreError> {
    let Ok(space) = rustix::fs::statvfs(store.root()) else { return Ok(()) };
    let keep_bytes = (space.f_blocks.saturating_mul(space.f_frsize) / BOUND_PART).max(BOUND_BYTES);
    bound(store, keep_bytes, SystemTime::now()).map(drop)
}

/// The same with so many bytes to keep. Returned is what went.
fn bound(store: &Store, keep_bytes: u64, now: SystemTime) -> Result<Vec<String>, StoreError> {
    let stamp = store.root().join("build-cache/bounded");
    let looked = fs::metadata(&stamp).and_then(|meta| meta.modified()).ok();
    if looked.is_some_and(|time| now.duration_since(time).is_ok_and(|age| age < BOUND_EVERY)) {
        return Ok(Vec::new());
    }
    // What the build at hand has used stays, however large.
    let until = Timestamp::try_from(now - BOUND_EVERY).ok();
    let removed = prune_cache(store, &CachePrune { all: true, keep_bytes, until }, &|_| true)?;
    let made = fs::create_dir_all(store.root().join("build-cache")).and_then(|()| File::create(&stamp));
    // Without it the next build looks again.
    let _ = made.and_then(|file| file.set_modified(now));
    Ok(removed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use oci::ImageConfig;
    use store::{CacheAccess, LockedMountCache};

    const HOUR: Duration = Duration::from_secs(3600);

    /// A step's result of 100 KiB.
    fn step(store: &Store, key: &str) -> Digest {
        let scratch = store.new_scratch().unwrap();
        let upper = scratch.path().join("upper");
        fs::create_dir(&upper).unwrap();
        fs::write(upper.join(key), vec![0; 100 << 10]).unwrap();
        let layer = store.commit_upper(&upper).unwrap().diff_id;
        store.cache_put(key, "{}", std::slice::from_ref(&layer)).unwrap();
        layer
    }

    /// A folder of 100 KiB, used before all steps.
    fn mount(store: &Store, id: &str) -> LockedMountCache {
        let cache = store.lock_mount_cache(id, 0, CacheAccess::Exclusive).unwrap().unwrap();
        fs::create_dir(cache.folder.join("data")).unwrap();
        fs::write(cache.folder.join("data/f"), vec![0; 100 << 10]).unwrap();
        File::open(cache.folder.join("lock")).unwrap().set_modified(SystemTime::now() - HOUR).unwrap();
        cache
    }

    fn left(store: &Store) -> Vec<String> {
        let mut left: Vec<String> = store.cache_entries().unwrap().into_iter().map(|entry| entry.key).collect();
        left.extend(store.mount_caches().unwrap().into_iter().map(|cache| cache.id));
        left
    }

    /// Seen to fail with the least recently used kept first, without the hour in which all stays, without the stamp, without a
    /// look at a folder's lock, with images' layers counted, and with no bytes kept at all.
    #[test]
    fn a_cache_over_its_bound_loses_what_was_used_longest_ago() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        drop(mount(&store, "free mount"));
        let held = mount(&store, "held mount");
        let [again, gone, of_image, recent] = ["again", "gone", "of an image", "recent"].map(|key| step(&store, key));
        let mut config = ImageConfig::default();
        config.rootfs.diff_ids = vec![of_image.clone()];
        store.put_built_image(&config, &["image".parse().unwrap()]).unwrap();
        // Used once more.
        store.cache_put("again", "{}", std::slice::from_ref(&again)).unwrap();
        // The build that made them is over.
        drop(store);
        let store = Store::open(root.path()).unwrap();
        let all = ["gone", "of an image", "recent", "again", "free mount", "held mount"];
        let sorted = |store: &Store| {
            let mut left = left(store);
            left.sort_by_key(|key| all.iter().position(|known| known == key));
            left
        };
        let now = SystemTime::now();
        let kept_bytes = 250 << 10;
        // However small the bound, what was used within the hour stays; below the bound all does.
        for (bytes, when) in [(1, now - HOUR / 2), (10 << 20, now + 2 * HOUR)] {
            assert_eq!(bound(&store, bytes, when).unwrap(), [] as [String; 0]);
            assert_eq!(sorted(&store), all);
        }
        // Nor is it looked again within the hour.
        assert_eq!(bound(&store, kept_bytes, now + 2 * HOUR + HOUR / 2).unwrap(), [] as [String; 0]);
        assert_eq!(sorted(&store), all);
        let removed = bound(&store, kept_bytes, now + 4 * HOUR).unwrap();
        assert_eq!(removed.len(), 2, "{removed:?}");
        assert_eq!(removed[0], gone.to_string());
        // A step's is the folder with a lock on it.
        assert_eq!(sorted(&store), ["of an image", "recent", "again", "held mount"]);
        assert!(!store.has_layer(&gone));
        drop(held);
        let removed = bound(&store, 150 << 10, now + 6 * HOUR).unwrap();
        assert_eq!((removed.len(), &removed[0]), (2, &recent.to_string()), "{removed:?}");
        // Forgotten, but the image needs it.
        assert_eq!(sorted(&store), ["again"]);
        assert!(store.has_layer(&of_image) && store.has_layer(&again) && !store.has_layer(&recent));
    }
}
