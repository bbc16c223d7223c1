//! Layers for containers whose users are others outside, where the kernel does not map the ids of files (an ordinary user's
//! file systems): a copy of the layer with other owners. It lies in the layer's own folder and goes with it.

use crate::copy::{LAYER, copy_tree};
use crate::layout::make_dir;
use crate::lock::Wait;
use crate::{ContainerRow, Result, Store, StoreError, lease};
use linux::copy::Rules;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

impl Store {
    /// The folders of a container's layers, lowest first, with each file's user and group replaced by what `owner` says; and how
    /// many of them had to be copied for it. `mapping` names the rule: letters and digits, always the same for the same.
    pub fn mapped_layers(
        &self,
        row: &ContainerRow,
        mapping: &str,
        owner: &dyn Fn(u32, u32) -> (u32, u32),
    ) -> Result<(Vec<PathBuf>, usize)> {
        let mut copied = 0;
        let mut folders = Vec::new();
        for (name, folder) in row.layers.iter().zip(self.container_layers(row)?) {
            // Of an additional store's layer too the copy lies here.
            let place = self.layout.layer(name);
            if !place.exists() {
                make_dir(&place, 0o700)?;
            }
            let mapped = place.join(format!("mapped-{mapping}"));
            if !mapped.exists() {
                // Of several that start at once one copies, the others wait.
                let _lock = lease::lock_name(&self.layout, &format!("{name}.{mapping}"), Wait::Block)?;
                if !mapped.exists() {
                    self.copy_layer(&folder, &mapped, owner)?;
                    copied += 1;
                }
            }
            folders.push(mapped);
        }
        Ok((folders, copied))
    }

    fn copy_layer(&self, from: &Path, to: &Path, owner: &dyn Fn(u32, u32) -> (u32, u32)) -> Result<()> {
        let scratch = self.new_scratch()?;
        let draft = scratch.path().join("fs");
        fs::create_dir(&draft).map_err(StoreError::io("create", &draft))?;
        let source = linux::resolve::open_root(from).map_err(StoreError::io("open", from))?;
        copy_tree(source.as_fd(), &draft, Rules { owner, ..LAYER })?;
        let written = fs::File::open(&draft).map_err(StoreError::io("open", &draft))?;
        // It is believed whole as soon as it has its name.
        rustix::fs::syncfs(&written).map_err(StoreError::io("sync", &draft))?;
        fs::rename(&draft, to).map_err(StoreError::io("create", to))
    }
}
