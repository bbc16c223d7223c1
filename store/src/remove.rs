//! Taking images away, with docker's rules of what is in whose way, and collecting what is left over.

use crate::db::{change, row, rows};
use crate::images::ImageRow;
use crate::layout::{Layout, remove_tree};
use crate::lease::{self, lock_name};
use crate::lock::Wait;
use crate::{Collected, ContainerRow, Removed, Result, Store, StoreError};
use oci::{Digest, Reference};
use rusqlite::Transaction;
use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

/// What `rmi` was given.
enum Target {
    /// A tag or repo digest.
    Name(Reference),
    /// The id or a prefix of it.
    Id,
}

impl Store {
    /// `rmi`: takes the name away and, with the last one, the image. By id: the image with all its names.
    /// `is_running` tells whether a container (by id) runs: its image is never removed.
    pub fn remove_image(&self, name: &str, force: bool, is_running: &dyn Fn(&str) -> bool) -> Result<Vec<Removed>> {
        let candidates = self.db.read("look up an image", |tx| self.find_image(tx, name))?;
        let id = match candidates {
            Some(row) => row.id,
            None => return Err(self.not_to_be_removed(name)),
        };
        // Whether one runs is asked outside of the transaction: it reads files.
        let running: HashSet<String> =
            self.containers_using(&id)?.into_iter().map(|c| c.id).filter(|id| is_running(id)).collect();
        let (mut removed, gone) = self.db.write("remove an image", |tx| {
            let row = self.find_image(tx, name)?.ok_or_else(|| StoreError::NoSuchImage(name.to_owned()))?;
            self.remove_row(tx, &row, name, force, &running)
        })?;
        if let Some(row) = gone {
            removed.push(Removed::Deleted(row.id.clone()));
            let collected = self.collect_garbage()?;
            removed.extend(
                row.diff_ids.iter().rev().filter(|d| collected.layers.contains(d)).cloned().map(Removed::Deleted),
            );
        }
        Ok(removed)
    }

    /// Why an image that is not here cannot be removed here.
    fn not_to_be_removed(&self, name: &str) -> StoreError {
        match self.shared_image(name) {
            Ok(Some(image)) => {
                StoreError::ReadOnlyImage { image: name.to_owned(), store: image.store.layout.root.clone() }
            }
            Ok(None) => StoreError::NoSuchImage(name.to_owned()),
            Err(error) => error,
        }
    }

    /// What became of the names, and the row if it went.
    fn remove_row(
        &self,
        tx: &Transaction<'_>,
        image: &ImageRow,
        name: &str,
        force: bool,
        running: &HashSet<String>,
    ) -> Result<(Vec<Removed>, Option<ImageRow>)> {
        let names = self.names_of(tx, "reference", &image.id)?;
        let digests = self.names_of(tx, "repo_digest", &image.id)?;
        let containers = self.containers_of(tx, &image.id)?;
        let target = self.target(tx, name, image)?;
        let mut removed = Vec::new();
        if let Target::Name(reference) = &target {
            if let (false, true, Some(container)) =
                (force, names.len() + digests.len() == 1 || names.len() == 1, containers.first())
                && names.iter().all(|n| n == reference)
            {
                return Err(StoreError::ReferenceInUse {
                    name: name.to_owned(),
                    container: container.short_id().to_owned(),
                    image: image.id.short().to_owned(),
                });
            }
            self.untag(tx, image, reference, &mut removed)?;
            let repository = reference.repository();
            let others = self.names_of(tx, "reference", &image.id)?;
            if !others.iter().any(|n| n.repository() == repository) {
                for digest in digests.iter().filter(|d| d.repository() == repository && *d != reference) {
                    self.untag(tx, image, digest, &mut removed)?;
                }
            }
            let left = others.len() + self.names_of(tx, "repo_digest", &image.id)?.len();
            let in_use = containers.iter().any(|c| !force || running.contains(&c.id));
            if left > 0 || in_use {
                self.write_image_file(tx, &image.id)?;
                return Ok((removed, None));
            }
        } else {
            check_removal(image, &names, &containers, force, running)?;
        }
        for name in
            self.names_of(tx, "reference", &image.id)?.iter().chain(&self.names_of(tx, "repo_digest", &image.id)?)
        {
            self.untag(tx, image, name, &mut removed)?;
        }
        change(tx, "DELETE FROM image WHERE id = ?", [image.id.as_str()]).map_err(self.db.error("remove an image"))?;
        crate::layout::remove_tree(&self.layout.image_file(&image.id))?;
        Ok((removed, Some(image.clone())))
    }

    /// Whether `name` is a name of the image rather than its id.
    fn target(&self, tx: &Transaction<'_>, name: &str, image: &ImageRow) -> Result<Target> {
        if name == image.id.as_str() || name == image.id.hex() {
            return Ok(Target::Id);
        }
        let Ok(reference) = name.parse::<Reference>() else { return Ok(Target::Id) };
        let reference = match reference.digest() {
            Some(digest) => reference.at_digest(digest.clone()),
            None => reference,
        };
        let found = self.image_by_reference(tx, &reference)?.is_some_and(|row| row.id == image.id);
        Ok(if found { Target::Name(reference) } else { Target::Id })
    }

    fn untag(
        &self,
        tx: &Transaction<'_>,
        image: &ImageRow,
        name: &Reference,
        removed: &mut Vec<Removed>,
    ) -> Result<()> {
        let table = if name.digest().is_some() { "repo_digest" } else { "reference" };
        let sql = format!("DELETE FROM {table} WHERE name = ? AND image = ?");
        let met = change(tx, &sql, (name.to_string(), image.id.as_str())).map_err(self.db.error("untag an image"))?;
        if met > 0 {
            removed.push(Removed::Untagged(name.familiar()));
        }
        Ok(())
    }

    /// Removes layers and blobs that nothing refers to: no image, no container, no build cache entry, no living process.
    pub fn collect_garbage(&self) -> Result<Collected> {
        let mut collected = Collected::default();
        let mut graves = Vec::new();
        let roots = self.db.read("mark what is in use", |tx| self.roots(tx))?;
        for entry in self.on_disk("layers")? {
            if !roots.layers.contains(&entry) {
                self.collect_layer(&entry, &mut collected, &mut graves)?;
            }
        }
        self.forget_unused()?;
        self.drop_blobs(&mut collected)?;
        // Layers that went have freed their blobs.
        let roots = self.db.read("mark what is in use", |tx| self.roots(tx))?;
        for algorithm in ["sha256", "sha512"] {
            for hex in self.on_disk(&format!("blobs/{algorithm}"))? {
                let Ok(digest) = format!("{algorithm}:{hex}").parse::<Digest>() else { continue };
                if !roots.blobs.contains(digest.as_str()) {
                    self.collect_blob(&digest, &mut collected)?;
                }
            }
        }
        for grave in graves {
            // What cannot be unlinked now the next sweep tries again.
            let _ = remove_tree(&grave);
        }
        let _ = self.sweep();
        Ok(collected)
    }

    /// Forgets what was noted about layers and blobs that nothing needs any more.
    fn forget_unused(&self) -> Result<()> {
        let error = self.db.error("forget what is not used");
        let names = |tx: &Transaction<'_>, sql| rows(tx, sql, (), |r| r.get::<_, String>(0)).map_err(error);
        let unused = |tx: &Transaction<'_>| {
            let roots = self.roots(tx)?;
            let mut layers = names(tx, "SELECT name FROM shared_layer")?;
            layers.retain(|name| !roots.layers.contains(name));
            let mut blobs = names(tx, "SELECT blob FROM layer_blob WHERE diff_id NOT IN (SELECT diff_id FROM layer)")?;
            blobs.retain(|blob| !roots.blobs.contains(blob));
            let sources = names(tx, "SELECT blob FROM blob_source WHERE blob NOT IN (SELECT blob FROM layer_blob)")?;
            blobs.extend(sources);
            Ok((layers, blobs))
        };
        let (layers, blobs) = self.db.read("forget what is not used", unused)?;
        if layers.is_empty() && blobs.is_empty() {
            return Ok(());
        }
        self.db.write("forget what is not used", |tx| {
            let (layers, blobs) = unused(tx)?;
            for name in layers {
                change(tx, "DELETE FROM shared_layer WHERE name = ?", [name]).map_err(error)?;
            }
            for blob in blobs {
                for sql in ["DELETE FROM layer_blob WHERE blob = ?", "DELETE FROM blob_source WHERE blob = ?"] {
                    change(tx, sql, [&blob]).map_err(error)?;
                }
            }
            Ok(())
        })
    }

    /// The names in a folder of the store.
    pub(crate) fn on_disk(&self, folder: &str) -> Result<Vec<String>> {
        let path = self.layout.root.join(folder);
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).map_err(StoreError::io("list", &path))? {
            let entry = entry.map_err(StoreError::io("list", &path))?;
            names.extend(entry.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn collect_layer(&self, name: &str, collected: &mut Collected, graves: &mut Vec<PathBuf>) -> Result<()> {
        // Someone who holds the lock is just making or leasing it.
        let Some(_lock) = lock_name(&self.layout, name, Wait::Try)? else { return Ok(()) };
        if lease::all(&self.layout)?.contains(base(name)) {
            return Ok(());
        }
        let error = self.db.error("collect a layer");
        self.db.write("collect a layer", |tx| {
            if self.roots(tx)?.layers.contains(name) {
                return Ok(());
            }
            let found: Option<(String, i64)> =
                row(tx, "SELECT diff_id, size FROM layer WHERE name = ?", [name], |r| Ok((r.get(0)?, r.get(1)?)))
                    .map_err(error)?;
            if let Some((diff_id, size)) = found {
                change(tx, "DELETE FROM layer WHERE name = ?", [name]).map_err(error)?;
                change(
                    tx,
                    "DELETE FROM layer_blob WHERE diff_id = ? AND NOT EXISTS (SELECT 1 FROM layer WHERE diff_id = ?)",
                    (&diff_id, &diff_id),
                )
                .map_err(error)?;
                collected.layers.extend(diff_id.parse());
                collected.bytes += u64::try_from(size).unwrap_or(0);
            }
            graves.extend(self.layout.discard(&self.layout.layer(name))?);
            Ok(())
        })
    }

    fn collect_blob(&self, digest: &Digest, collected: &mut Collected) -> Result<()> {
        let Some(_lock) = lock_name(&self.layout, digest.as_str(), Wait::Try)? else { return Ok(()) };
        if lease::all(&self.layout)?.contains(digest.as_str()) {
            return Ok(());
        }
        let path = self.layout.blob(digest);
        self.db.write("collect a blob", |tx| {
            if self.roots(tx)?.blobs.contains(digest.as_str()) {
                return Ok(());
            }
            let size = fs::metadata(&path).map_or(0, |m| m.len());
            if fs::remove_file(&path).is_ok() {
                collected.bytes += size;
                collected.blobs.push(digest.clone());
            }
            Ok(())
        })
    }

    /// Everything rows refer to.
    pub(crate) fn roots(&self, tx: &Transaction<'_>) -> Result<Roots> {
        let error = self.db.error("mark what is in use");
        let mut roots = Roots::default();
        for image in self.image_rows(tx)? {
            roots.layers.extend(image.diff_ids.iter().map(Layout::layer_name));
            roots.layers.extend(image.layers);
            roots.blobs.insert(image.id.to_string());
            roots.blobs.extend(image.manifest.map(|m| m.digest.to_string()));
        }
        let containers: Vec<(String, String)> =
            rows(tx, "SELECT id, layers FROM container", (), |r| Ok((r.get(0)?, r.get(1)?))).map_err(error)?;
        for (id, layers) in containers {
            if self.layout.container(&id).exists() {
                let layers: Vec<String> = serde_json::from_str(&layers).unwrap_or_default();
                roots.layers.extend(layers.iter().map(|name| base(name).to_owned()));
                roots.layers.extend(layers);
            }
        }
        let cached: Vec<String> = rows(tx, "SELECT diff_ids FROM cache", (), |r| r.get(0)).map_err(error)?;
        for text in cached {
            let diff_ids: Vec<Digest> = serde_json::from_str(&text).unwrap_or_default();
            roots.layers.extend(diff_ids.iter().map(Layout::layer_name));
        }
        let own = "EXISTS (SELECT 1 FROM layer WHERE layer.diff_id = layer_blob.diff_id)";
        let sql = format!("SELECT blob, diff_id, {own} FROM layer_blob");
        let blobs: Vec<(String, String, bool)> =
            rows(tx, &sql, (), |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).map_err(error)?;
        // A layer in an additional store may have a blob here, made for a push: its images hold it.
        let held =
            |diff_id: &str| diff_id.parse().is_ok_and(|diff_id| roots.layers.contains(&Layout::layer_name(&diff_id)));
        let held: Vec<String> =
            blobs.into_iter().filter(|(_, id, own)| *own || held(id)).map(|(blob, ..)| blob).collect();
        roots.blobs.extend(held);
        Ok(roots)
    }
}

/// What rows refer to, by the names of files.
#[derive(Default)]
pub(crate) struct Roots {
    pub(crate) layers: HashSet<String>,
    pub(crate) blobs: HashSet<String>,
}

/// A chain's own form of a layer (`<diff id>.<chain>`) is held by whoever holds the layer.
fn base(name: &str) -> &str {
    name.split_once('.').map_or(name, |(base, _)| base)
}

/// The conflicts of a removal by id.
fn check_removal(
    image: &ImageRow,
    names: &[Reference],
    containers: &[ContainerRow],
    force: bool,
    running: &HashSet<String>,
) -> Result<()> {
    let in_use = |container: &ContainerRow, running| StoreError::ImageInUse {
        image: image.id.short().to_owned(),
        container: container.short_id().to_owned(),
        running,
    };
    if let Some(container) = containers.iter().find(|c| running.contains(&c.id)) {
        return Err(in_use(container, true));
    }
    if force {
        return Ok(());
    }
    if let Some(container) = containers.first() {
        return Err(in_use(container, false));
    }
    if names.len() > 1 {
        return Err(StoreError::ImageHasNames(image.id.short().to_owned()));
    }
    Ok(())
}
