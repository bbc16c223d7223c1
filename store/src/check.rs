//! Whether what the rows say is on disk and whole, and whether what is on disk has a row. Content is hashed: blobs against their
//! names, layers built here against their diff ids. (A pulled layer's tar can't be made again; its blob can be hashed,
//! and the layer is unpacked anew where its folder or `layer.json` is lost.)

use crate::compression::Digesting;
use crate::db::{change, rows};
use crate::images::ImageRow;
use crate::layout::Layout;
use crate::lease::{self, lock_name};
use crate::lock::Wait;
use crate::{Result, Store, StoreError, StoreOptions};
use oci::Digest;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong; where it was not repaired, also what to do.
    pub what: String,
    /// It is so no more.
    pub repaired: bool,
}

impl Store {
    /// Looks at everything below `root`; reads all blobs and built layers. With `repair`, what can be mended is: lost rows are put
    /// back, damaged layers are unpacked again, and what cannot be used any more is removed. What others are just making is
    /// left alone; but a damaged database is made anew only while nobody else uses the store.
    pub fn check(root: &Path, options: &StoreOptions, repair: bool) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        let store = match open_sound(root, options) {
            Err(error @ StoreError::Database { .. }) => {
                findings.push(Finding { what: error.to_string(), repaired: repair });
                if !repair {
                    return Ok(findings);
                }
                let (store, unreadable) = Store::rebuild(root, options)?;
                let lost =
                    |path: std::path::PathBuf| format!("{} cannot be read: nothing is known of it", path.display());
                findings.extend(unreadable.into_iter().map(|path| Finding { what: lost(path), repaired: false }));
                store
            }
            other => other?,
        };
        store.sweep()?;
        let mut check = Check { store: &store, repair, findings };
        for error in store.unusable_stores() {
            check.found(error.to_string(), || Ok(false));
        }
        check.lost_rows()?;
        check.blobs()?;
        check.layers()?;
        check.images()?;
        check.containers()?;
        check.unused()?;
        Ok(check.findings)
    }
}

/// The store, if SQLite finds no fault with its database.
fn open_sound(root: &Path, options: &StoreOptions) -> Result<Store> {
    let store = Store::open_with(root, options)?;
    let error = store.db.error("check");
    let said: Vec<String> =
        store.db.read("check", |tx| rows(tx, "PRAGMA quick_check(1)", (), |r| r.get(0)).map_err(error))?;
    match said.as_slice() {
        [only] if only == "ok" => Ok(store),
        other => {
            let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            Err(error(rusqlite::Error::SqliteFailure(corrupt, Some(other.join("; ")))))
        }
    }
}

struct Check<'a> {
    store: &'a Store,
    repair: bool,
    findings: Vec<Finding>,
}

impl Check<'_> {
    /// Notes what is wrong; `mend`, called only if asked to repair, tells whether it is no more.
    fn found(&mut self, what: String, mend: impl FnOnce() -> Result<bool>) {
        let finding = match self.repair.then(mend) {
            Some(Err(error)) => Finding { what: format!("{what}: {error}"), repaired: false },
            mended => Finding { what, repaired: matches!(mended, Some(Ok(true))) },
        };
        self.findings.push(finding);
    }

    /// Containers, volumes and networks that are on disk, but in no row.
    fn lost_rows(&mut self) -> Result<()> {
        let store = self.store;
        let known: HashSet<String> = store.containers()?.into_iter().map(|row| row.id).collect();
        for id in store.on_disk("containers")?.into_iter().filter(|id| !known.contains(id)) {
            let folder = store.layout.container(&id);
            self.found(format!("the database does not know the container {id}"), || store.restore_container(&folder));
        }
        let known: HashSet<String> = store.volumes()?.into_iter().map(|volume| volume.name).collect();
        for name in store.on_disk("volumes")?.into_iter().filter(|name| !known.contains(name)) {
            let folder = store.layout.volume(&name);
            self.found(format!("the database does not know the volume {name}"), || store.restore_volume(&folder));
        }
        let known: HashSet<String> = store.networks()?.into_iter().map(|network| network.name).collect();
        for file in store.on_disk("networks")? {
            let path = store.layout.root.join("networks").join(&file);
            if file.strip_suffix(".json").is_some_and(|name| !known.contains(name)) {
                self.found(format!("the database does not know the network of {}", path.display()), || {
                    store.restore_network(&path)
                });
            }
        }
        Ok(())
    }

    /// Each blob is what its name says.
    fn blobs(&mut self) -> Result<()> {
        let store = self.store;
        for algorithm in ["sha256", "sha512"] {
            for hex in store.on_disk(&format!("blobs/{algorithm}"))? {
                let path = store.layout.root.join("blobs").join(algorithm).join(&hex);
                let Ok(digest) = format!("{algorithm}:{hex}").parse::<Digest>() else {
                    self.found(format!("{} is no blob", path.display()), || store.bury(&path).map(|()| true));
                    continue;
                };
                let Some(_lock) = lock_name(&store.layout, digest.as_str(), Wait::Try)? else { continue };
                if !is_intact(&path, &digest)? {
                    self.found(format!("the blob {digest} is damaged"), || store.bury(&path).map(|()| true));
                }
            }
        }
        Ok(())
    }

    /// Each layer's row has its folder, and the folder is what the diff id says.
    fn layers(&mut self) -> Result<()> {
        let store = self.store;
        let known: BTreeMap<String, String> = store.db.read("list the layers", |tx| {
            let listed = rows(tx, "SELECT name, diff_id FROM layer", (), |r| Ok((r.get(0)?, r.get(1)?)));
            Ok(listed.map_err(store.db.error("list the layers"))?.into_iter().collect())
        })?;
        for (name, diff_id) in &known {
            let Ok(diff_id) = diff_id.parse::<Digest>() else { continue };
            let lock = lock_name(&store.layout, name, Wait::Try)?;
            if lock.is_none() || store.is_sound(name, &diff_id)? {
                continue;
            }
            drop(lock);
            self.found(format!("the layer {name} is damaged"), || store.renew_layer(name));
        }
        // Copies of an additional store's layers have no row.
        let is_copy = |name: &String| !store.is_own(name) && store.seen_in(name).is_ok_and(|seen| seen.is_some());
        for name in store.on_disk("layers")?.into_iter().filter(|name| !known.contains_key(name) && !is_copy(name)) {
            let Some(_lock) = lock_name(&store.layout, &name, Wait::Try)? else { continue };
            self.found(format!("the database does not know the layer {name}"), || {
                store.bury(&store.layout.layer(&name)).map(|()| true)
            });
        }
        Ok(())
    }

    /// Each image has its config, its layers, and its manifest if it came with one.
    fn images(&mut self) -> Result<()> {
        let store = self.store;
        let images = store.db.read("list the images", |tx| store.image_rows(tx))?;
        for image in images {
            if let Some(manifest) = image.manifest.as_ref().filter(|m| store.blob_path(&m.digest).is_none()) {
                let what = format!("the manifest {} of image {} is lost", manifest.digest, image.id.short());
                self.found(what, || store.forget_manifest(&image).map(|()| true));
            }
            let Some(why) = store.unusable(&image)? else { continue };
            let users = store.containers_using(&image.id)?;
            if store.is_elsewhere(&image)? {
                self.found(format!("image {}: {why}", image.id.short()), || Ok(false));
                continue;
            }
            let what = match users.first() {
                Some(user) => {
                    format!("image {}: {why}; the container {} uses it: remove both", image.id.short(), user.name)
                }
                None => format!("image {}: {why}; it has to be pulled or built again", image.id.short()),
            };
            self.found(what, || {
                let removable = users.is_empty();
                if removable {
                    store.remove_image(image.id.as_str(), true, &|_| false)?;
                }
                Ok(removable)
            });
        }
        Ok(())
    }

    /// Each container has the layers it was made with, and its config.
    fn containers(&mut self) -> Result<()> {
        let store = self.store;
        for row in store.containers()? {
            let folder = store.layout.container(&row.id);
            if !folder.join("config.json").exists() {
                self.found(format!("the container {} has lost its config: ctr rm -f {0}", row.name), || Ok(false));
            }
            if let Err(error) = store.layer_folders(&row.layers) {
                self.found(format!("the container {}: {error}; then make it anew", row.name), || Ok(false));
            }
        }
        Ok(())
    }

    /// What no row refers to and nobody is making: a crash's leaving.
    fn unused(&mut self) -> Result<()> {
        let store = self.store;
        let (layers, blobs) = store.unreferenced()?;
        if layers + blobs > 0 {
            let what = format!("{layers} layers and {blobs} blobs are of no use to anything");
            self.found(what, || store.collect_garbage().map(|_| true));
        }
        Ok(())
    }
}

impl Store {
    /// Whether a layer's folder is there and, where that can be told, as it was made. The caller holds its lock.
    fn is_sound(&self, name: &str, diff_id: &Digest) -> Result<bool> {
        let known = self.layer_file(name).is_ok_and(|file| file.diff_id == *diff_id);
        if !known || !self.layout.layer(name).join("fs").is_dir() {
            return Ok(false);
        }
        if name != Layout::layer_name(diff_id) || self.has_known_blob(diff_id)? {
            return Ok(true);
        }
        let mut tar = Digesting::new(io::sink());
        Ok(self.layer_tar(diff_id, &mut tar).is_ok() && tar.finish().0 == *diff_id)
    }

    /// Takes a damaged layer away; one that has a blob is unpacked again.
    fn renew_layer(&self, name: &str) -> Result<bool> {
        self.db.write("forget a damaged layer", |tx| {
            change(tx, "DELETE FROM layer WHERE name = ?", [name]).map_err(self.db.error("forget a damaged layer"))
        })?;
        self.bury(&self.layout.layer(name))?;
        // What now lacks it is found at the images.
        let _healed = self.layer_folders(&[name.to_owned()]);
        Ok(true)
    }

    /// Why an image cannot be used. Forms of its layers that depend on those below are made again.
    fn unusable(&self, image: &ImageRow) -> Result<Option<String>> {
        match self.small_blob(&image.id) {
            Ok(bytes) if image.id.matches(&bytes) => {}
            _ => return Ok(Some("its config is lost".to_owned())),
        }
        if self.layer_folders(&image.layers).is_ok() {
            return Ok(None);
        }
        let base: Vec<String> = image.diff_ids.iter().map(Layout::layer_name).collect();
        if let Err(error) = self.layer_folders(&base) {
            return Ok(Some(error.to_string()));
        }
        Ok(self.settle_chain(&image.diff_ids).err().map(|error| error.to_string()))
    }

    /// Whether what the image lacks was in an additional store: it is not lost for good.
    fn is_elsewhere(&self, image: &ImageRow) -> Result<bool> {
        for name in &image.layers {
            if !self.is_own(name) && self.shared_layer(name).is_none() && self.seen_in(name)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Another manifest is made at the next push or save.
    fn forget_manifest(&self, image: &ImageRow) -> Result<()> {
        self.db.write("forget a lost manifest", |tx| {
            let sql =
                "UPDATE image SET manifest_type = NULL, manifest_digest = NULL, manifest_size = NULL WHERE id = ?";
            change(tx, sql, [image.id.as_str()]).map_err(self.db.error("forget a lost manifest"))?;
            self.write_image_file(tx, &image.id)
        })
    }

    /// How many layers and blobs the collector would take.
    fn unreferenced(&self) -> Result<(usize, usize)> {
        let roots = self.db.read("mark what is in use", |tx| self.roots(tx))?;
        let leased = lease::all(&self.layout)?;
        let unused = |name: &String| !leased.contains(name.split('.').next().unwrap_or(name));
        let layers =
            self.on_disk("layers")?.iter().filter(|name| !roots.layers.contains(*name) && unused(name)).count();
        let mut blobs = 0;
        for algorithm in ["sha256", "sha512"] {
            let names =
                self.on_disk(&format!("blobs/{algorithm}"))?.into_iter().map(|hex| format!("{algorithm}:{hex}"));
            blobs += names.filter(|name| !roots.blobs.contains(name) && unused(name)).count();
        }
        Ok((layers, blobs))
    }
}

fn is_intact(path: &Path, digest: &Digest) -> Result<bool> {
    let mut file = match File::open(path) {
        // Collected meanwhile.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
        other => other.map_err(StoreError::io("open", path))?,
    };
    let mut hasher = digest.hasher();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish() == *digest),
            Ok(length) => hasher.update(&buffer[..length]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // A sector that cannot be read any more.
            Err(_) => return Ok(false),
        }
    }
}
