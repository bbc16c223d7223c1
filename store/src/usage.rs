//! How much space things take.

use crate::db::rows;
use crate::layout::Layout;
use crate::{Result, Store};
use oci::Digest;
use std::collections::BTreeMap;

impl Store {
    /// Bytes that each layer takes: its files, and the compressed blobs of it that are kept.
    pub fn layer_usage(&self) -> Result<BTreeMap<Digest, u64>> {
        let error = self.db.error("add up the layers");
        let (layers, blobs) = self.db.read("add up the layers", |tx| {
            let layers: Vec<(String, String, i64)> =
                rows(tx, "SELECT name, diff_id, size FROM layer", (), |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
                    .map_err(error)?;
            let blobs: Vec<(String, String)> =
                rows(tx, "SELECT diff_id, blob FROM layer_blob", (), |r| Ok((r.get(0)?, r.get(1)?))).map_err(error)?;
            Ok((layers, blobs))
        })?;
        let mut usage = BTreeMap::new();
        for (name, diff_id, size) in layers {
            // A form of it for one chain is hard links to it.
            if let Some(diff_id) = diff_id.parse::<Digest>().ok().filter(|id| Layout::layer_name(id) == name) {
                usage.insert(diff_id, u64::try_from(size).unwrap_or(0));
            }
        }
        for (diff_id, blob) in blobs {
            let (Ok(diff_id), Ok(blob)) = (diff_id.parse::<Digest>(), blob.parse::<Digest>()) else { continue };
            let kept = std::fs::metadata(self.layout.blob(&blob)).map_or(0, |meta| meta.len());
            if let Some(bytes) = usage.get_mut(&diff_id) {
                *bytes += kept;
            }
        }
        Ok(usage)
    }
}
