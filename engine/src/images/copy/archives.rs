//! OCI and docker archives as places to copy from and to.

use super::{Node, Sink, Source, Taken, content};
use crate::images::workers::Outcome;
use crate::{Engine, EngineError, Result};
use oci::{Descriptor, Document, Reference};
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use store::{ArchiveFormat, ArchiveWriter, ImageArchive};

/// An image in an archive.
pub(super) struct FromArchive {
    archive: ImageArchive,
    descriptor: Descriptor,
    bytes: Vec<u8>,
}

impl FromArchive {
    pub(super) fn open(engine: &Engine, file: &Path, name: Option<&str>) -> Result<FromArchive> {
        let (archive, descriptor, bytes) = ImageArchive::open(engine.store(), file, name)?;
        Ok(FromArchive { archive, descriptor, bytes })
    }
}

impl Source for FromArchive {
    fn root(&self) -> Result<Node> {
        Node::new(self.descriptor.clone(), self.bytes.clone())
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Node> {
        Node::new(descriptor.clone(), super::small_blob(self, descriptor)?)
    }

    fn blob(&self, blob: &Descriptor, offset: u64) -> Result<Box<dyn Read>> {
        Ok(self.archive.blob(blob, offset)?)
    }
}

/// An archive that is written beside its place and renamed into it.
pub(super) struct ToArchive {
    file: PathBuf,
    draft: PathBuf,
    name: Option<String>,
    format: ArchiveFormat,
    /// A tar has one end to write at: blobs go in one after the other.
    writer: Mutex<Option<ArchiveWriter<BufWriter<File>>>>,
}

impl ToArchive {
    pub(super) fn create(file: &Path, name: Option<&str>, format: ArchiveFormat) -> Result<ToArchive> {
        let mut draft = file.as_os_str().to_owned();
        draft.push(format!(".{}.partial", std::process::id()));
        let draft = PathBuf::from(draft);
        if file.is_dir() {
            return Err(EngineError::Invalid(format!("cannot write {}: it is a directory", file.display())));
        }
        let name = match (name, format) {
            // Docker's own tools know images by whole names.
            (Some(name), ArchiveFormat::Docker) => {
                Some(name.parse::<Reference>().map_err(store::StoreError::from)?.to_string())
            }
            (name, _) => name.map(str::to_owned),
        };
        let out = File::create(&draft).map_err(|e| EngineError::io("create", &draft, e))?;
        let writer = Mutex::new(Some(ArchiveWriter::new(BufWriter::with_capacity(256 << 10, out))));
        Ok(ToArchive { file: file.to_owned(), draft, name, format, writer })
    }

    fn write<T>(
        &self,
        write: impl FnOnce(&mut ArchiveWriter<BufWriter<File>>) -> Result<T, store::StoreError>,
    ) -> Result<T> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // Half a blob spoils the whole archive: there is no going on after an error.
        let mut open = writer.take().ok_or_else(|| EngineError::Invalid("another blob has failed".to_owned()))?;
        let done = write(&mut open)?;
        *writer = Some(open);
        Ok(done)
    }
}

impl Drop for ToArchive {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.draft);
    }
}

impl Sink for ToArchive {
    fn blob(
        &self,
        blob: &Descriptor,
        source: &dyn Source,
        outcome: &Arc<Outcome>,
        done: &dyn Fn(u64),
    ) -> Result<Taken> {
        let mut from = content(source, blob, outcome)?;
        self.write(|writer| writer.blob(blob, &mut from))?;
        done(blob.size);
        Ok(Taken::Copied)
    }

    fn manifest(&self, node: &Node, is_last: bool) -> Result<()> {
        let manifest = match &node.document {
            Document::Manifest(manifest) => Some(manifest),
            Document::Index(_) if self.format == ArchiveFormat::Docker => {
                let text = "a docker archive holds no index: name a platform, or copy to oci-archive:";
                return Err(EngineError::Invalid(text.to_owned()));
            }
            Document::Index(_) => None,
        };
        let names: Vec<String> = self.name.iter().cloned().collect();
        self.write(|writer| {
            writer.blob(&node.descriptor, &mut node.bytes.as_slice())?;
            if is_last { writer.entry(&node.descriptor, manifest, &names) } else { Ok(()) }
        })
    }

    fn finish(&self) -> Result<()> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let writer = writer.ok_or_else(|| EngineError::Invalid("another blob has failed".to_owned()))?;
        let mut out = writer.finish(self.format)?;
        out.flush().map_err(|e| EngineError::io("write", &self.draft, e))?;
        std::fs::rename(&self.draft, &self.file).map_err(|e| EngineError::io("rename to", &self.file, e))
    }

    fn takes_indexes(&self) -> bool {
        self.format != ArchiveFormat::Docker
    }
}
