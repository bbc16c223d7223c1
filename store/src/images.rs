//! Images: rows, names, look-ups.
//!
//! An image's id is the digest of its config, a blob. A pulled one has a manifest too, kept to the byte; a
//! built one gets its manifest with its first push or save.

use crate::containers::nanoseconds;
use crate::db::{change, row, rows};
use crate::layout::write_atomically;
use crate::{Image, ImageSummary, Result, Store, StoreError};
use jiff::Timestamp;
use oci::{Descriptor, Digest, Document, ImageConfig, MAX_CONFIG_BYTES, Manifest, MediaType, Reference};
use rusqlite::Transaction;
use std::io::Read;

/// An image's row.
#[derive(Clone, Debug)]
pub(crate) struct ImageRow {
    pub(crate) id: Digest,
    pub(crate) built: bool,
    pub(crate) size: u64,
    pub(crate) diff_ids: Vec<Digest>,
    /// Names of the layers' folders.
    pub(crate) layers: Vec<String>,
    pub(crate) manifest: Option<Descriptor>,
    /// The boot in which it was put, if it may not have reached the disk yet.
    pub(crate) boot: Option<String>,
}

const COLUMNS: &str = "id, built, size, diff_ids, layers, manifest_type, manifest_digest, manifest_size, boot";

impl Store {
    /// By reference, id, unique id prefix (with or without `sha256:`), or `name@digest`.
    pub fn image(&self, name: &str) -> Result<Image> {
        let found = self.db.read("look up an image", |tx| {
            let Some(row) = self.find_image(tx, name)? else { return Ok(None) };
            let names = self.names_of(tx, "reference", &row.id)?;
            let digests = self.names_of(tx, "repo_digest", &row.id)?;
            Ok(Some((row, names, digests)))
        })?;
        let read_only = found.is_none();
        let (row, names, repo_digests) = match found {
            Some(found) => found,
            None => self
                .shared_image(name)?
                .map(|image| (image.row, image.names, image.repo_digests))
                .ok_or_else(|| StoreError::NoSuchImage(name.to_owned()))?,
        };
        let config = self.config_of(&row)?;
        Ok(Image { id: row.id, config, names, repo_digests, manifest: row.manifest, size: row.size, read_only })
    }

    /// The row that `name` leads to, in docker's order: full id, reference, id prefix.
    pub(crate) fn find_image(&self, tx: &Transaction<'_>, name: &str) -> Result<Option<ImageRow>> {
        let full = name.parse::<Digest>().ok().or_else(|| format!("sha256:{name}").parse().ok());
        if let Some(digest) = full {
            if let Some(found) = self.image_row(tx, "id = ?", digest.as_str())? {
                return Ok(Some(found));
            }
            return self.image_row(tx, "manifest_digest = ? LIMIT 1", digest.as_str());
        }
        if let Ok(reference) = name.parse::<Reference>()
            && let Some(found) = self.image_by_reference(tx, &reference)?
        {
            return Ok(Some(found));
        }
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        if !crate::id::is_id_prefix(prefix) {
            return Ok(None);
        }
        let pattern = format!("sha256:{prefix}*");
        let sql = "SELECT id FROM image WHERE id GLOB ? LIMIT 100";
        let ids: Vec<String> = rows(tx, sql, [pattern], |r| r.get(0)).map_err(self.db.error("look up an image"))?;
        match ids.as_slice() {
            [] => Ok(None),
            [only] => self.image_row(tx, "id = ?", only),
            many => Err(StoreError::Ambiguous { kind: "image", prefix: name.to_owned(), count: many.len() }),
        }
    }

    pub(crate) fn image_by_reference(&self, tx: &Transaction<'_>, name: &Reference) -> Result<Option<ImageRow>> {
        match name.digest() {
            Some(digest) => {
                let text = name.at_digest(digest.clone()).to_string();
                self.image_row(tx, "id = (SELECT image FROM repo_digest WHERE name = ? LIMIT 1)", &text)
            }
            None => self.image_row(tx, "id = (SELECT image FROM reference WHERE name = ?)", &name.to_string()),
        }
    }

    pub(crate) fn image_row(&self, tx: &Transaction<'_>, condition: &str, param: &str) -> Result<Option<ImageRow>> {
        let sql = format!("SELECT {COLUMNS} FROM image WHERE {condition}");
        row(tx, &sql, [param], read_row).map_err(self.db.error("read an image's row"))
    }

    pub(crate) fn image_rows(&self, tx: &Transaction<'_>) -> Result<Vec<ImageRow>> {
        rows(tx, &format!("SELECT {COLUMNS} FROM image"), (), read_row).map_err(self.db.error("list the images"))
    }

    /// The image's names in `table`: `reference` or `repo_digest`.
    pub(crate) fn names_of(&self, tx: &Transaction<'_>, table: &str, id: &Digest) -> Result<Vec<Reference>> {
        let sql = format!("SELECT name FROM {table} WHERE image = ? ORDER BY name");
        let names: Vec<String> =
            rows(tx, &sql, [id.as_str()], |r| r.get(0)).map_err(self.db.error("list an image's names"))?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The image's config. After a power cut it may be damaged, so one of another boot is verified.
    pub(crate) fn config_of(&self, row: &ImageRow) -> Result<ImageConfig> {
        let bytes = self.small_blob(&row.id)?;
        if row.boot.as_ref().is_some_and(|boot| *boot != self.boot) && !row.id.matches(&bytes) {
            return Err(StoreError::NoSuchBlob(row.id.clone()));
        }
        parse_config(&row.id, &bytes)
    }

    /// A blob that is a document: at most 4 MiB.
    pub(crate) fn small_blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        let path = self.layout.blob(digest);
        let mut bytes = Vec::new();
        let file = self.blob(digest)?;
        file.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut bytes).map_err(StoreError::io("read", &path))?;
        if bytes.len() as u64 > MAX_CONFIG_BYTES {
            let why = format!("its document {digest} is over {MAX_CONFIG_BYTES} bytes");
            return Err(StoreError::BadImage { image: digest.to_string(), why });
        }
        Ok(bytes)
    }

    /// All images, newest first. One whose config is lost is left out.
    pub fn images(&self) -> Result<Vec<ImageSummary>> {
        let mut all = Vec::new();
        let mut listed = self.db.read("list the images", |tx| {
            let mut listed = Vec::new();
            for row in self.image_rows(tx)? {
                let names = self.names_of(tx, "reference", &row.id)?;
                let digests = self.names_of(tx, "repo_digest", &row.id)?;
                let containers = self.containers_of(tx, &row.id)?.len();
                listed.push((row, names, digests, containers, false));
            }
            Ok(listed)
        })?;
        self.add_shared(&mut listed)?;
        for (row, names, repo_digests, containers, read_only) in listed {
            let Ok(config) = self.config_of(&row) else { continue };
            all.push(ImageSummary {
                id: row.id,
                names,
                repo_digests,
                created: config.created.as_deref().and_then(|text| text.parse::<Timestamp>().ok()),
                size: row.size,
                labels: config.config.labels,
                containers,
                diff_ids: row.diff_ids,
                built: row.built,
                read_only,
            });
        }
        all.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.names.cmp(&b.names)));
        Ok(all)
    }

    /// Adds what only additional stores have. Of an image that is here too their names count as well, unless they name
    /// another one here.
    fn add_shared(&self, listed: &mut Vec<Listed>) -> Result<()> {
        for image in self.shared_images() {
            let taken = |name: &Reference, id: &Digest| {
                listed.iter().any(|(row, names, ..)| row.id != *id && names.contains(name))
            };
            let free: Vec<Reference> = image.names.into_iter().filter(|name| !taken(name, &image.row.id)).collect();
            match listed.iter_mut().find(|(row, ..)| row.id == image.row.id) {
                Some((_, names, digests, ..)) => {
                    add_names(names, free);
                    add_names(digests, image.repo_digests);
                }
                None => {
                    let containers = self.containers_using(&image.row.id)?.len();
                    listed.push((image.row, free, image.repo_digests, containers, true));
                }
            }
        }
        Ok(())
    }

    /// Makes `name` mean the image, taking it from whichever had it.
    pub fn tag(&self, image: &Digest, name: &Reference) -> Result<()> {
        if !self.shared.is_empty() {
            self.adopt(image)?;
        }
        self.db.write("tag an image", |tx| {
            if self.image_row(tx, "id = ?", image.as_str())?.is_none() {
                return Err(StoreError::NoSuchImage(image.to_string()));
            }
            self.set_name(tx, image, name)
        })
    }

    /// Remembers that a registry knows the image as `reference` (`repository@digest`), after a push.
    pub fn add_repo_digest(&self, image: &Digest, reference: &Reference) -> Result<()> {
        self.tag(image, reference)
    }

    /// A name with a digest becomes a repo digest, which several images may share no tag by.
    fn set_name(&self, tx: &Transaction<'_>, image: &Digest, name: &Reference) -> Result<()> {
        let error = self.db.error("tag an image");
        if let Some(digest) = name.digest() {
            let text = name.at_digest(digest.clone()).to_string();
            change(tx, "INSERT OR IGNORE INTO repo_digest VALUES (?,?)", (text, image.as_str())).map_err(error)?;
            return self.write_image_file(tx, image);
        }
        let text = name.to_string();
        let before: Option<String> =
            row(tx, "SELECT image FROM reference WHERE name = ?", [&text], |r| r.get(0)).map_err(error)?;
        change(tx, "INSERT OR REPLACE INTO reference VALUES (?,?)", (&text, image.as_str())).map_err(error)?;
        if let Some(before) = before.and_then(|b| b.parse().ok()).filter(|b: &Digest| b != image) {
            self.write_image_file(tx, &before)?;
        }
        self.write_image_file(tx, image)
    }

    /// The small file that lets a lost database be rebuilt.
    pub(crate) fn write_image_file(&self, tx: &Transaction<'_>, id: &Digest) -> Result<()> {
        let Some(row) = self.image_row(tx, "id = ?", id.as_str())? else { return Ok(()) };
        let text = |names: Vec<Reference>| names.iter().map(Reference::to_string).collect::<Vec<_>>();
        let json = serde_json::json!({
            "id": row.id, "built": row.built, "manifest": row.manifest,
            "names": text(self.names_of(tx, "reference", id)?),
            "repoDigests": text(self.names_of(tx, "repo_digest", id)?),
        });
        write_atomically(&self.layout, &self.layout.image_file(id), json.to_string().as_bytes())
    }

    /// Puts an image made here; its layers must be in the store.
    pub fn put_built_image(&self, config: &ImageConfig, names: &[Reference]) -> Result<Digest> {
        let bytes = serde_json::to_vec(config)
            .map_err(|e| StoreError::BadImage { image: "config".to_owned(), why: e.to_string() })?;
        if bytes.len() as u64 > MAX_CONFIG_BYTES {
            let why = format!("it is over {MAX_CONFIG_BYTES} bytes, which nobody would read");
            return Err(StoreError::BadImage { image: "config".to_owned(), why });
        }
        let descriptor = Descriptor::of(MediaType::OCI_CONFIG, &bytes);
        self.ingest_blob(&descriptor, &bytes)?;
        self.put_image(descriptor.digest, config, true, None, names)
    }

    /// Puts a pulled image; its layers must be in the store. Names with a digest become repo digests; a
    /// repository named without one gets the manifest's.
    pub fn put_pulled_image(
        &self,
        names: &[Reference],
        descriptor: &Descriptor,
        manifest_bytes: &[u8],
        config_bytes: &[u8],
    ) -> Result<Digest> {
        let Document::Manifest(manifest) = Document::parse(manifest_bytes, Some(&descriptor.media_type))? else {
            let why = "its manifest is an index".to_owned();
            return Err(StoreError::BadImage { image: descriptor.digest.to_string(), why });
        };
        let config = check_image(&manifest, config_bytes)?;
        self.ingest_blob(descriptor, manifest_bytes)?;
        self.ingest_blob(&manifest.config, config_bytes)?;
        let mut names = names.to_vec();
        for name in names.clone() {
            if !names.iter().any(|n| n.digest().is_some() && n.repository() == name.repository()) {
                names.push(name.at_digest(descriptor.digest.clone()));
            }
        }
        self.note_layer_blobs(&manifest, &config)?;
        self.put_image(manifest.config.digest.clone(), &config, false, Some(descriptor), &names)
    }

    /// The row, after all content is in its place.
    pub(crate) fn put_image(
        &self,
        id: Digest,
        config: &ImageConfig,
        built: bool,
        manifest: Option<&Descriptor>,
        names: &[Reference],
    ) -> Result<Digest> {
        let id = self.insert_image(id, config, built, manifest, names)?;
        // What killed pulls and builds left; a failure here is the next sweep's matter.
        let _ = self.sweep();
        Ok(id)
    }

    pub(crate) fn insert_image(
        &self,
        id: Digest,
        config: &ImageConfig,
        built: bool,
        manifest: Option<&Descriptor>,
        names: &[Reference],
    ) -> Result<Digest> {
        let diff_ids = &config.rootfs.diff_ids;
        for diff_id in diff_ids {
            if !self.has_layer(diff_id) {
                return Err(StoreError::NoSuchLayer(diff_id.clone()));
            }
        }
        let layers = self.settle_chain(diff_ids)?;
        let error = self.db.error("put an image");
        self.db.write("put an image", |tx| {
            let size = self.layers_size(tx, diff_ids)?;
            let json = |value: serde_json::Value| value.to_string();
            change(
                tx,
                "INSERT INTO image (id, built, size, diff_ids, layers, added, boot) VALUES (?,?,?,?,?,?,?)
                 ON CONFLICT (id) DO UPDATE SET boot = excluded.boot, layers = excluded.layers, size = excluded.size",
                (
                    id.as_str(),
                    built,
                    i64::try_from(size).unwrap_or(i64::MAX),
                    json(serde_json::json!(diff_ids)),
                    json(serde_json::json!(layers)),
                    nanoseconds(Timestamp::now()),
                    &self.boot,
                ),
            )
            .map_err(error)?;
            if let Some(manifest) = manifest {
                self.set_manifest(tx, &id, manifest)?;
            }
            for name in names {
                self.set_name(tx, &id, name)?;
            }
            self.note_shared(tx, &layers)?;
            self.write_image_file(tx, &id)
        })?;
        Ok(id)
    }

    pub(crate) fn set_manifest(&self, tx: &Transaction<'_>, id: &Digest, manifest: &Descriptor) -> Result<()> {
        change(
            tx,
            "UPDATE image SET manifest_type = ?, manifest_digest = ?, manifest_size = ? WHERE id = ?",
            (&manifest.media_type, manifest.digest.as_str(), signed(manifest.size), id.as_str()),
        )
        .map_err(self.db.error("put an image"))?;
        Ok(())
    }

    fn layers_size(&self, tx: &Transaction<'_>, diff_ids: &[Digest]) -> Result<u64> {
        let mut sum = 0_u64;
        for diff_id in diff_ids {
            let name = crate::layout::Layout::layer_name(diff_id);
            let size: Option<i64> = row(tx, "SELECT size FROM layer WHERE name = ?", [&name], |r| r.get(0))
                .map_err(self.db.error("look up a layer"))?;
            sum = sum.saturating_add(match size {
                Some(size) => u64::try_from(size).unwrap_or(0),
                None => self.shared_layer_size(&name),
            });
        }
        Ok(sum)
    }
}

/// A row with its names, repo digests and number of containers, and whether only an additional store has it.
type Listed = (ImageRow, Vec<Reference>, Vec<Reference>, usize, bool);

fn add_names(names: &mut Vec<Reference>, more: Vec<Reference>) {
    names.extend(more);
    names.sort_by_key(Reference::to_string);
    names.dedup();
}

fn read_row(r: &rusqlite::Row<'_>) -> rusqlite::Result<ImageRow> {
    let text: String = r.get(0)?;
    let bad =
        |e: oci::DigestError| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(e));
    let manifest = match (r.get::<_, Option<String>>(5)?, r.get::<_, Option<String>>(6)?, r.get::<_, Option<i64>>(7)?) {
        (Some(kind), Some(digest), Some(size)) => {
            Some(Descriptor::new(&kind, digest.parse().map_err(bad)?, u64::try_from(size).unwrap_or(0)))
        }
        _ => None,
    };
    Ok(ImageRow {
        id: text.parse().map_err(bad)?,
        built: r.get(1)?,
        size: u64::try_from(r.get::<_, i64>(2)?).unwrap_or(0),
        diff_ids: serde_json::from_str(&r.get::<_, String>(3)?).unwrap_or_default(),
        layers: serde_json::from_str(&r.get::<_, String>(4)?).unwrap_or_default(),
        manifest,
        boot: r.get(8)?,
    })
}

/// SQLite's integers are signed.
pub(crate) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(crate) fn parse_config(id: &Digest, bytes: &[u8]) -> Result<ImageConfig> {
    let bad = |why: String| StoreError::BadImage { image: id.to_string(), why };
    serde_json::from_slice(bytes).map_err(|e| bad(format!("its config is no image config: {e}")))
}

/// Whether manifest and config belong together; returns the config.
pub(crate) fn check_image(manifest: &Manifest, config_bytes: &[u8]) -> Result<ImageConfig> {
    let config = parse_config(&manifest.config.digest, config_bytes)?;
    if config.rootfs.diff_ids.len() != manifest.layers.len() {
        let why =
            format!("its config lists {} layers, its manifest {}", config.rootfs.diff_ids.len(), manifest.layers.len());
        return Err(StoreError::BadImage { image: manifest.config.digest.to_string(), why });
    }
    Ok(config)
}
