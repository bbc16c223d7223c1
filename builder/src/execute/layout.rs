//! `--build-context name=oci-layout://…`: an image out of a folder in OCI's layout, taken into the store.

use super::Build;
use super::base::BaseImage;
use crate::context_file::open_regular;
use crate::step_error::{StepError, StepResult};
use oci::{Descriptor, Digest, Document, Index, MAX_MANIFEST_BYTES, Manifest, MediaType, Platform};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

/// Indexes may name indexes, but not without end.
const MAX_INDEX_DEPTH: usize = 3;
/// Where a layout keeps the names of its images.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

impl Build<'_> {
    /// The image that `reference` – a tag, a digest, or nothing for the only one – names in the layout.
    pub(super) fn layout(&self, folder: &Path, reference: &str, platform: Option<&Platform>) -> StepResult<BaseImage> {
        let layout = Layout { folder };
        let (descriptor, manifest) = layout.find(reference, platform.unwrap_or(&Platform::host()))?;
        let scratch = self.engine.store().new_scratch()?;
        let path = scratch.path().join("image.tar");
        let made = File::options().read(true).write(true).create_new(true).open(&path);
        let mut file = made.map_err(|e| StepError::io("make", &path, e))?;
        layout.write(&descriptor, &manifest, &mut file).map_err(|e| StepError::io("read the image in", folder, e))?;
        file.rewind().map_err(|e| StepError::io("read", &path, e))?;
        let loaded = self.engine.store().load(&mut file)?;
        let wrong = || StepError::wrong(format!("no image in {}", folder.display()));
        let id = loaded.into_iter().next().ok_or_else(wrong)?.id;
        self.find_image(id.as_str(), None)?.ok_or_else(wrong)
    }
}

struct Layout<'a> {
    folder: &'a Path,
}

impl Layout<'_> {
    fn blob(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs").join(digest.algorithm()).join(digest.hex())
    }

    fn document(&self, path: &Path, media_type: Option<&str>, digest: Option<&Digest>) -> StepResult<Document> {
        let fail = |e| StepError::io("read", path, e);
        let mut bytes = Vec::new();
        open_regular(path).map_err(fail)?.take(MAX_MANIFEST_BYTES).read_to_end(&mut bytes).map_err(fail)?;
        if digest.is_some_and(|digest| !digest.matches(&bytes)) {
            return Err(StepError::wrong(format!("{} is not what its digest says", path.display())));
        }
        Document::parse(&bytes, media_type).map_err(|e| StepError::wrong(format!("{}: {e}", path.display())))
    }

    fn find(&self, reference: &str, platform: &Platform) -> StepResult<(Descriptor, Manifest)> {
        let Document::Index(index) =
            self.document(&self.folder.join("index.json"), Some(MediaType::OCI_INDEX), None)?
        else {
            return Err(StepError::wrong(format!("{} is no OCI layout", self.folder.display())));
        };
        let mut descriptor = self.named(&index, reference, platform)?;
        for _ in 0..MAX_INDEX_DEPTH {
            let path = self.blob(&descriptor.digest);
            match self.document(&path, Some(&descriptor.media_type), Some(&descriptor.digest))? {
                Document::Manifest(manifest) => return Ok((descriptor, manifest)),
                Document::Index(index) => {
                    let none = || StepError::wrong(format!("no matching manifest for {platform} in {reference}"));
                    descriptor = index.select(platform).cloned().ok_or_else(none)?;
                }
            }
        }
        Err(StepError::wrong(format!("{}: indexes within indexes", self.folder.display())))
    }

    fn named(&self, index: &Index, reference: &str, platform: &Platform) -> StepResult<Descriptor> {
        let is_it = |descriptor: &&Descriptor| {
            let name = descriptor.annotations.get(REF_NAME).map_or("", String::as_str);
            let tag = name.rsplit_once(':').map_or(name, |(_, tag)| tag);
            descriptor.digest.as_str() == reference || name == reference || tag == reference
        };
        let found = match (reference, index.manifests.as_slice()) {
            ("", [only]) => Some(only),
            ("", many) => {
                let latest = many.iter().find(|d| d.annotations.get(REF_NAME).is_some_and(|n| n.ends_with("latest")));
                latest.or_else(|| index.select(platform))
            }
            _ => index.manifests.iter().find(is_it),
        };
        found.cloned().ok_or_else(|| {
            let hint = "name one by its tag or digest: oci-layout://FOLDER:TAG";
            StepError::with_hint(format!("no image {reference:?} in {}", self.folder.display()), hint)
        })
    }

    /// The one image as a tar the store reads; without names, so that none of the store's is moved.
    fn write(&self, descriptor: &Descriptor, manifest: &Manifest, out: &mut File) -> std::io::Result<()> {
        let mut tar = tar::Builder::new(out);
        let mut add = |name: &str, size: u64, data: &mut dyn Read| {
            let mut header = tar::Header::new_ustar();
            header.set_size(size);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, data)
        };
        let mut bare = descriptor.clone();
        bare.annotations.clear();
        let index = Index {
            schema_version: 2,
            media_type: Some(MediaType::OCI_INDEX.to_owned()),
            manifests: vec![bare],
            annotations: Default::default(),
        };
        let index = serde_json::to_vec(&index)?;
        add("oci-layout", 30, &mut &br#"{"imageLayoutVersion":"1.0.0"}"#[..])?;
        add("index.json", index.len() as u64, &mut index.as_slice())?;
        let blobs = [descriptor, &manifest.config].into_iter().chain(&manifest.layers);
        let mut seen = std::collections::BTreeSet::new();
        for blob in blobs.filter(|blob| seen.insert(blob.digest.clone())) {
            let mut file = open_regular(&self.blob(&blob.digest))?;
            let size = file.metadata()?.len();
            let name = format!("blobs/{}/{}", blob.digest.algorithm(), blob.digest.hex());
            add(&name, size, &mut file)?;
        }
        tar.finish()
    }
}
