//! Images as files: docker archives, OCI archives, and plain root file systems.

mod file;
mod import;
mod load;
mod save;

pub use file::{ImageArchive, choose as choose_image};
pub use save::ArchiveWriter;

use crate::compression::{Digesting, ParallelGzip};
use crate::{Scratch, Store, StoreError};
use oci::{Descriptor, Digest, MediaType};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

type Result<T> = std::result::Result<T, StoreError>;

/// A layer's bytes in a file of a scratch folder, with what the store needs to take them in.
struct LayerFile {
    path: PathBuf,
    blob: Descriptor,
    diff_id: Digest,
}

impl LayerFile {
    /// Compresses a plain tar into `path`, hashing both forms on the way.
    fn compress(plain: &mut dyn Read, path: PathBuf) -> Result<LayerFile> {
        let file = File::create_new(&path).map_err(StoreError::io("create", &path))?;
        let mut tar = Digesting::new(ParallelGzip::new(Digesting::new(file)));
        io::copy(plain, &mut tar).map_err(|e| StoreError::BadArchive(e.to_string()))?;
        let (diff_id, _, gzip) = tar.finish();
        let (digest, size, _) = gzip.finish().map_err(StoreError::io("write", &path))?.finish();
        Ok(LayerFile { path, blob: Descriptor::new(MediaType::OCI_LAYER_GZIP, digest, size), diff_id })
    }

    /// Moves it into the store.
    fn ingest(&self, store: &Store) -> Result<()> {
        ingest_file(store, &self.path, &self.blob, &self.diff_id)
    }
}

fn ingest_file(store: &Store, path: &Path, blob: &Descriptor, diff_id: &Digest) -> Result<()> {
    let mut open = |offset| -> io::Result<Box<dyn Read>> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Box::new(file))
    };
    store.ingest_layer(blob, diff_id, &mut open, &|_| {})
}

fn scratch_file(scratch: &Scratch, number: usize) -> PathBuf {
    scratch.path().join(number.to_string())
}
