//! Additional stores: others' stores, read and never written to, so that a fleet can share its base images from a read-only
//! mount.
//!
//! Only their files are read – each image and layer has a small one that says all of it – and never their database: reading
//! that would write locks and logs. Nothing in them is leased or locked either: who changes such a store sees to it that
//! nobody needs what goes. One that cannot be read is no error until something is asked for that is nowhere else.

use crate::images::{ImageRow, parse_config};
use crate::layer::rows::LayerFile;
use crate::layout::Layout;
use crate::migrate::format_of;
use crate::rebuild::{ImageFile, entries, read};
use crate::{Result, Store, StoreError};
use oci::{Descriptor, Digest, Document, Hasher, ImageConfig, Reference};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// One additional store.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) layout: Layout,
    /// Read once: a store does not change under a command.
    images: OnceLock<Vec<ImageFile>>,
    /// Looked at once; if not, why not.
    usable: OnceLock<std::result::Result<(), String>>,
}

/// An image of an additional store.
pub(crate) struct SharedImage<'a> {
    pub(crate) store: &'a Shared,
    pub(crate) row: ImageRow,
    pub(crate) names: Vec<Reference>,
    pub(crate) repo_digests: Vec<Reference>,
}

impl Shared {
    pub(crate) fn new(root: &Path) -> Shared {
        Shared { layout: Layout { root: root.to_owned() }, images: OnceLock::new(), usable: OnceLock::new() }
    }

    /// Whether it is a store that this program can read and whose files' owners mean the same here.
    fn usable(&self) -> Result<()> {
        let look = || -> std::result::Result<(), String> {
            let root = &self.layout.root;
            match format_of(&self.layout) {
                Ok(Some(_)) => {}
                Ok(None) => return Err("there is no store: is it mounted?".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
            let owner = fs::metadata(root).map_err(|e| e.to_string())?.uid();
            if owner != rustix::process::geteuid().as_raw() {
                return Err("it is another user's: the owners of its files mean others here".to_owned());
            }
            Ok(())
        };
        let why = self.usable.get_or_init(look).as_ref().err();
        why.map_or(Ok(()), |why| Err(StoreError::Unusable { path: self.layout.root.clone(), why: why.clone() }))
    }

    /// Its images' files; none of a store that cannot be used.
    fn images(&self) -> &[ImageFile] {
        self.images.get_or_init(|| {
            let found = self.usable().and_then(|()| entries(&self.layout.root.join("images")));
            // One that is just being written, or was left half-made, is none.
            found.unwrap_or_default().iter().filter_map(|path| read(path).ok()).collect()
        })
    }

    /// The layer's `fs/` folder, if the store has it.
    pub(crate) fn layer(&self, name: &str) -> Option<PathBuf> {
        let folder = self.layout.layer(name).join("fs");
        (self.usable().is_ok() && folder.is_dir()).then_some(folder)
    }

    fn find(&self, name: &str) -> Result<Option<SharedImage<'_>>> {
        let images = self.images();
        let full = name.parse::<Digest>().ok().or_else(|| format!("sha256:{name}").parse().ok());
        if let Some(digest) = full {
            let is_it = |image: &&ImageFile| {
                image.id == digest || image.manifest.as_ref().is_some_and(|manifest| manifest.digest == digest)
            };
            return images.iter().find(is_it).map(|file| self.image(file)).transpose();
        }
        if let Ok(reference) = name.parse::<Reference>() {
            let wanted = match reference.digest() {
                Some(digest) => reference.at_digest(digest.clone()),
                None => reference,
            };
            let text = wanted.to_string();
            let named = |image: &&ImageFile| image.names.iter().chain(&image.repo_digests).any(|name| *name == text);
            if let Some(file) = images.iter().find(named) {
                return self.image(file).map(Some);
            }
        }
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        if !crate::id::is_id_prefix(prefix) {
            return Ok(None);
        }
        let matching: Vec<&ImageFile> = images.iter().filter(|image| image.id.hex().starts_with(prefix)).collect();
        match matching.as_slice() {
            [] => Ok(None),
            [only] => self.image(only).map(Some),
            many => Err(StoreError::Ambiguous { kind: "image", prefix: name.to_owned(), count: many.len() }),
        }
    }

    /// What a row would say of it.
    fn image(&self, file: &ImageFile) -> Result<SharedImage<'_>> {
        let config = self.config(&file.id)?;
        let diff_ids = config.rootfs.diff_ids;
        let sizes = diff_ids.iter().map(|diff_id| Ok(self.layer_file(&Layout::layer_name(diff_id))?.size));
        let size = sizes.sum::<Result<u64>>()?;
        let parse = |names: &[String]| names.iter().filter_map(|name| name.parse().ok()).collect();
        let row = ImageRow {
            id: file.id.clone(),
            built: file.built,
            size,
            layers: self.chain(&diff_ids),
            diff_ids,
            manifest: file.manifest.clone(),
            boot: None,
        };
        Ok(SharedImage { store: self, row, names: parse(&file.names), repo_digests: parse(&file.repo_digests) })
    }

    fn config(&self, id: &Digest) -> Result<ImageConfig> {
        let path = self.layout.blob(id);
        let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
        if !id.matches(&bytes) {
            let why = format!("its config in {} is damaged", self.layout.root.display());
            return Err(StoreError::BadImage { image: id.to_string(), why });
        }
        parse_config(id, &bytes)
    }

    /// The folders' names of a chain of layers: the chain's own forms, where its maker found that it wants any.
    fn chain(&self, diff_ids: &[Digest]) -> Vec<String> {
        let mut chain = Hasher::sha256();
        let name_of = |diff_id: &Digest| {
            chain.update(diff_id.as_str().as_bytes());
            let sibling = Layout::sibling_name(diff_id, &chain.clone().finish());
            if self.layout.layer(&sibling).is_dir() { sibling } else { Layout::layer_name(diff_id) }
        };
        diff_ids.iter().map(name_of).collect()
    }

    fn layer_file(&self, name: &str) -> Result<LayerFile> {
        read(&self.layout.layer(name).join("layer.json"))
    }

    /// The blob of a layer, as one of the images' manifests has it, if it is here.
    fn blob_of(&self, diff_id: &Digest) -> Option<Descriptor> {
        self.images().iter().find_map(|file| {
            let manifest = file.manifest.as_ref()?;
            let position = self.config(&file.id).ok()?.rootfs.diff_ids.iter().position(|id| id == diff_id)?;
            let bytes = fs::read(self.layout.blob(&manifest.digest)).ok().filter(|b| manifest.digest.matches(b))?;
            let Ok(Document::Manifest(document)) = Document::parse(&bytes, Some(&manifest.media_type)) else {
                return None;
            };
            let blob = document.layers.into_iter().nth(position)?;
            fs::metadata(self.layout.blob(&blob.digest)).is_ok_and(|meta| meta.len() == blob.size).then_some(blob)
        })
    }
}

impl Store {
    /// Why additional stores cannot be used: for warnings. What others have is to be had all the same.
    pub fn unusable_stores(&self) -> Vec<StoreError> {
        self.shared.iter().filter_map(|shared| shared.usable().err()).collect()
    }

    /// The image, in the first additional store that has it.
    pub(crate) fn shared_image(&self, name: &str) -> Result<Option<SharedImage<'_>>> {
        self.shared.iter().find_map(|shared| shared.find(name).transpose()).transpose()
    }

    /// All images of all additional stores that can be read; of several with one id the first.
    pub(crate) fn shared_images(&self) -> Vec<SharedImage<'_>> {
        let mut all: Vec<SharedImage<'_>> = Vec::new();
        for shared in &self.shared {
            for file in shared.images() {
                let known = all.iter().any(|image| image.row.id == file.id);
                all.extend(Some(file).filter(|_| !known).and_then(|file| shared.image(file).ok()));
            }
        }
        all
    }

    /// The `fs/` folder of a layer in an additional store.
    pub(crate) fn shared_layer(&self, name: &str) -> Option<(&Shared, PathBuf)> {
        self.shared.iter().find_map(|shared| Some((shared, shared.layer(name)?)))
    }

    /// `layer.json` of a layer that is not in this store itself.
    pub(crate) fn shared_layer_file(&self, name: &str) -> Result<LayerFile> {
        match self.shared_layer(name) {
            Some((shared, _)) => shared.layer_file(name),
            None => Err(self.missing_layer(name)),
        }
    }

    /// Bytes of the files of a layer that is not in this store itself; none of one that is nowhere.
    pub(crate) fn shared_layer_size(&self, name: &str) -> u64 {
        let file = self.shared_layer(name).and_then(|(shared, _)| shared.layer_file(name).ok());
        file.map_or(0, |file| file.size)
    }

    /// A blob of an additional store.
    pub(crate) fn shared_blob(&self, digest: &Digest) -> Option<PathBuf> {
        self.shared.iter().map(|shared| shared.layout.blob(digest)).find(|path| path.exists())
    }

    /// The blob of a layer in an additional store.
    pub(crate) fn shared_blob_of(&self, diff_id: &Digest) -> Option<Descriptor> {
        self.shared.iter().find_map(|shared| shared.blob_of(diff_id))
    }

    /// Gives an additional store's image a row here, so that it can have names and a manifest here. Its layers stay where
    /// they are.
    pub(crate) fn adopt(&self, id: &Digest) -> Result<()> {
        let known = self.db.read("look up an image", |tx| self.image_row(tx, "id = ?", id.as_str()))?;
        if known.is_some() {
            return Ok(());
        }
        let Some(image) = self.shared_image(id.as_str())? else {
            return Err(StoreError::NoSuchImage(id.to_string()));
        };
        let mut kept = Vec::new();
        for digest in [id].into_iter().chain(image.row.manifest.iter().map(|manifest| &manifest.digest)) {
            let path = image.store.layout.blob(digest);
            let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
            self.ingest_blob(&Descriptor::new("", digest.clone(), bytes.len() as u64), &bytes)?;
            kept.push(bytes);
        }
        let config = parse_config(id, kept.first().map(Vec::as_slice).unwrap_or_default())?;
        self.insert_image(id.clone(), &config, image.row.built, image.row.manifest.as_ref(), &[]).map(drop)
    }

    /// Opens a blob of this store or an additional one.
    pub(crate) fn open_file(&self, digest: &Digest) -> Result<File> {
        let own = self.layout.blob(digest);
        match File::open(&own) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => match self.shared_blob(digest) {
                Some(path) => File::open(&path).map_err(StoreError::io("open", &path)),
                None => Err(StoreError::NoSuchBlob(digest.clone())),
            },
            other => other.map_err(StoreError::io("open", &own)),
        }
    }
}
