//! A layer from an upperdir: made equal to what its tar says, hashed in one pass, renamed into place.

use super::rows::LayerFile;
use crate::compression::{Digesting, ParallelGzip};
use crate::layer_tar::{Purpose, write_layer};
use crate::layout::Layout;
use crate::lease::lock_name;
use crate::lock::Wait;
use crate::{CommittedLayer, Result, Store, StoreError};
use oci::{Descriptor, Digest, MediaType};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const BUFFER_BYTES: usize = 128 << 10;

impl Store {
    /// Makes a layer of an upperdir, which is renamed away. Nothing may be mounted on it any more.
    pub fn commit_upper(&self, upper: &Path) -> Result<CommittedLayer> {
        let root = File::open(upper).map_err(StoreError::io("open", upper))?;
        let mut tar = BufWriter::with_capacity(BUFFER_BYTES, Digesting::new(io::sink()));
        let written = write_layer(root.as_fd(), Purpose::Normalise { clamp: None }, self.marks().prefix, &mut tar)?;
        let tar = tar.into_inner().map_err(|e| StoreError::io("hash", upper)(e.into_error()))?;
        let (diff_id, ..) = tar.finish();
        if written.entries == 0 {
            return Ok(CommittedLayer { diff_id, size: 0, empty: true });
        }
        let name = Layout::layer_name(&diff_id);
        let lock = lock_name(&self.layout, &name, Wait::Block)?;
        let lock = lock.ok_or_else(|| StoreError::Busy(format!("layer {diff_id}")))?;
        if self.lease_if_there(&lock, &name)? {
            self.bury(upper)?;
            return Ok(CommittedLayer { diff_id, size: written.bytes, empty: false });
        }
        let scratch = self.new_scratch()?;
        let made = scratch.path().join("layer");
        crate::layout::make_dir(&made, 0o700)?;
        fs::rename(upper, made.join("fs")).map_err(StoreError::io("move", upper))?;
        let meta = root.metadata().map_err(StoreError::io("inspect", upper))?;
        let attributes = (meta.mode() & 0o7777, meta.uid(), meta.gid());
        let file = LayerFile {
            diff_id: diff_id.clone(),
            size: written.bytes,
            boot: self.boot.clone(),
            root: (attributes != (0o755, 0, 0)).then_some(attributes),
            implied: Vec::new(),
            links: Vec::new(),
            source: None,
        };
        self.install_layer(&lock, &made, &name, &file, None)?;
        Ok(CommittedLayer { diff_id, size: written.bytes, empty: false })
    }

    /// Writes the layer's deterministic tar; its sha256 is the diff id of a built layer.
    pub fn layer_tar(&self, diff_id: &Digest, out: &mut dyn Write) -> Result<()> {
        let path = self.layer_dir(diff_id);
        let root = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(StoreError::NoSuchLayer(diff_id.clone())),
            other => other.map_err(StoreError::io("open", &path))?,
        };
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, out);
        write_layer(root.as_fd(), Purpose::Read, self.marks().prefix, &mut out)?;
        out.flush().map_err(StoreError::io("write the tar of", &path))
    }

    /// The layer's compressed blob, made if there is none yet; of one that is not kept, what it can be had again by
    /// ([`Store::open_blob`]).
    pub fn layer_blob(&self, diff_id: &Digest) -> Result<Descriptor> {
        if let Some(known) = self.known_blob(diff_id)?
            && self.has_blob(&known.digest)
        {
            return Ok(known);
        }
        if let Some(dropped) = self.dropped_blob(diff_id)? {
            return Ok(dropped);
        }
        let (digest, size) = self.new_blob(&mut |out| {
            let mut tar = Digesting::new(ParallelGzip::new(out));
            self.layer_tar(diff_id, &mut tar)?;
            let (made, _, gzip) = tar.finish();
            gzip.finish().map_err(StoreError::io("write", "layer blob"))?;
            // A pulled layer's tar can't always be made again to the byte; a damaged layer's is another.
            if made == *diff_id { Ok(()) } else { Err(StoreError::NoSuchBlob(diff_id.clone())) }
        })?;
        let blob = Descriptor::new(MediaType::OCI_LAYER_GZIP, digest, size);
        self.db.write("note a layer's blob", |tx| self.note_blob(tx, &blob, diff_id))?;
        Ok(blob)
    }
}
