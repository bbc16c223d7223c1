//! `import`: a root file system becomes an image of one layer.

use super::{LayerFile, Result, scratch_file};
use crate::compression::decompress;
use crate::{ImportOptions, Store, StoreError};
use jiff::Timestamp;
use oci::{Digest, History, ImageConfig, Platform, Reference, RootFs};
use std::io::Read;

impl Store {
    /// Makes an image of one layer out of a tar of a root file system (gzip and zstd are recognised).
    pub fn import_tar(&self, reader: &mut dyn Read, names: &[Reference], options: &ImportOptions) -> Result<Digest> {
        let scratch = self.new_scratch()?;
        let mut plain = decompress(reader).map_err(|e| StoreError::BadArchive(e.to_string()))?;
        let layer = LayerFile::compress(&mut plain, scratch_file(&scratch, 0))?;
        layer.ingest(self)?;
        self.put_built_image(&config_of(&layer, options), names)
    }
}

/// The config the caller began, with its one layer and its history filled in.
fn config_of(layer: &LayerFile, options: &ImportOptions) -> ImageConfig {
    let mut config = options.config.clone();
    let created = config.created.get_or_insert_with(|| Timestamp::now().to_string()).clone();
    let host = Platform::host();
    if config.architecture.is_empty() {
        config.architecture = host.architecture;
    }
    if config.os.is_empty() {
        config.os = host.os;
    }
    config.rootfs = RootFs { diff_ids: vec![layer.diff_id.clone()], ..RootFs::default() };
    let comment = options.message.clone().unwrap_or_else(|| "Imported from -".to_owned());
    config.history = vec![History { created: Some(created), comment: Some(comment), ..History::default() }];
    config
}
