//! `export`: what a container's root file system holds, as a tar.

use crate::config::ContainerConfig;
use crate::monitor::launch::UPPER;
use crate::monitor::root::{self, Owners};
use crate::{Engine, Result};
use std::io::Write;
use std::os::fd::AsFd;

impl Engine {
    /// Writes the files of a container, running or not, with the owners they have in there: those of its image and what it made
    /// of them. Volumes and other mounts are left out. What a running one writes meanwhile may be in the tar or not.
    pub fn export(&self, container: &str, out: &mut dyn Write) -> Result<()> {
        let row = self.store().container(container)?;
        let folder = self.store().container_dir(&row.id);
        let config = ContainerConfig::load(&folder)?;
        let map = config.id_map.as_ref().filter(|map| !map.is_identity());
        let outside = |uid, gid| map.map_or((uid, gid), |map| map.outside(uid, gid));
        let inside = |uid, gid| map.map_or((uid, gid), |map| map.inside(uid, gid));
        // An ordinary user's layers are copies with the owners of outside; root's are mapped to them.
        let (layers, users) = match map {
            Some(map) if self.config().rootless.is_some() => {
                (self.store().mapped_layers(&row, &map.name(), &outside)?.0, None)
            }
            Some(map) => (self.store().container_layers(&row)?, Some(map.namespace()?)),
            None => (self.store().container_layers(&row)?, None),
        };
        let owners = Owners::of(&config, users.as_ref().map(AsFd::as_fd));
        let root = root::snapshot(&layers, &folder.join(UPPER), owners)?;
        self.store().live_tar(root.as_ref().map(AsFd::as_fd), &inside, out)?;
        // One that was removed meanwhile took its files away one by one.
        self.store().container(&row.id)?;
        Ok(())
    }
}
