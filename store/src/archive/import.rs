//! `import`: a root file system becomes an image of one layer.

use super::Result;
use crate::compression::decompress;
use crate::layer::extract::extract;
use crate::layer::read::TarReader;
use crate::layer::stream::Primed;
use crate::{CommittedLayer, ImportOptions, Store, StoreError};
use jiff::Timestamp;
use oci::{Digest, History, ImageConfig, Platform, Reference, RootFs};
use std::io::{BufReader, Read};

impl Store {
    /// Makes an image of one layer out of a tar of a root file system (gzip and zstd are recognised).
    pub fn import_tar(&self, reader: &mut dyn Read, names: &[Reference], options: &ImportOptions) -> Result<Digest> {
        let unreadable = |e: std::io::Error| StoreError::BadArchive(e.to_string());
        let scratch = self.new_scratch()?;
        let (_, root) = Store::new_layer_folder(scratch.path())?;
        let plain = decompress(Primed::new(reader).map_err(unreadable)?).map_err(unreadable)?;
        let mut tar = TarReader::new(BufReader::with_capacity(128 << 10, plain));
        let extracted = extract(&mut tar, &root, self.marks())?;
        if let Some((path, target)) = extracted.links.first() {
            let [path, target] = [path, target].map(|name| String::from_utf8_lossy(name).into_owned());
            let why = format!("it is a hard link to {target:?}, which is not in the archive");
            return Err(StoreError::BadLayer { entry: path, why });
        }
        // Unpacked and committed: no compressed form is made before a push or save asks for it.
        let layer = self.commit_upper(&root)?;
        self.put_built_image(&config_of(&layer, options), names)
    }
}

/// The config the caller began, with its one layer and its history filled in.
fn config_of(layer: &CommittedLayer, options: &ImportOptions) -> ImageConfig {
    let mut config = options.config.clone();
    let created = config.created.get_or_insert_with(|| Timestamp::now().to_string()).clone();
    let host = Platform::host();
    if config.architecture.is_empty() {
        config.architecture = host.architecture;
    }
    if config.os.is_empty() {
        config.os = host.os;
    }
    config.rootfs =
        RootFs { diff_ids: (!layer.empty).then(|| layer.diff_id.clone()).into_iter().collect(), ..RootFs::default() };
    let comment = options.message.clone().unwrap_or_else(|| "Imported from -".to_owned());
    config.history = vec![History { created: Some(created), comment: Some(comment), ..History::default() }];
    config
}
