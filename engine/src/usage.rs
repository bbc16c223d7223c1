//! `system df`: what takes space, and how much of it nothing needs.

use crate::{Engine, ListFilter, Result};
use std::collections::BTreeSet;

/// What one kind of thing takes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many there are.
    pub total: usize,
    /// How many of them are in use.
    pub active: usize,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Bytes of those that are not in use.
    pub reclaimable_bytes: u64,
}

/// What everything takes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Images: their layers, each counted once, with their compressed blobs. In use: by a container.
    pub images: Usage,
    /// What containers have written. In use: while they run.
    pub containers: Usage,
    /// Volumes. In use: by a container.
    pub volumes: Usage,
    /// Layers kept for the builder that no image has, and the folders of `RUN --mount=type=cache`. In use: layers that an
    /// image has too, folders that a step has.
    pub build_cache: Usage,
}

impl Engine {
    /// What everything takes on disk; walks through what containers wrote and through volumes.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        let mut usage = DiskUsage::default();
        for container in self.list(&ListFilter { all: true, size: true })? {
            usage.containers.add(container.status.is_active(), container.size_bytes.unwrap_or(0));
        }
        for volume in self.store().volumes()? {
            let is_used = !self.store().volume_users(&volume.name)?.is_empty();
            usage.volumes.add(is_used, store::folder_bytes(&self.store().volume_data(&volume.name)));
        }
        let mut images = self.store().images()?;
        // What an additional store has takes nothing here.
        images.retain(|image| !image.read_only);
        let entries = self.store().cache_entries()?;
        let of_images: BTreeSet<_> = images.iter().flat_map(|image| &image.diff_ids).collect();
        let in_use: BTreeSet<_> =
            images.iter().filter(|image| image.containers > 0).flat_map(|image| &image.diff_ids).collect();
        let cached: BTreeSet<_> = entries.iter().flat_map(|entry| &entry.diff_ids).collect();
        for (layer, bytes) in self.store().layer_usage()? {
            if of_images.contains(&layer) {
                usage.images.take(in_use.contains(&layer), bytes);
            } else if cached.contains(&layer) {
                usage.build_cache.take(false, bytes);
            }
        }
        usage.images.total = images.len();
        usage.images.active = images.iter().filter(|image| image.containers > 0).count();
        usage.build_cache.total = cached.len();
        usage.build_cache.active = cached.intersection(&of_images).count();
        for cache in self.store().mount_caches()? {
            usage.build_cache.add(cache.in_use, cache.bytes);
        }
        Ok(usage)
    }
}

impl Usage {
    fn add(&mut self, is_used: bool, bytes: u64) {
        self.total += 1;
        self.active += usize::from(is_used);
        self.take(is_used, bytes);
    }

    fn take(&mut self, is_used: bool, bytes: u64) {
        self.bytes += bytes;
        self.reclaimable_bytes += if is_used { 0 } else { bytes };
    }
}
