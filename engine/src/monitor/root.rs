//! A container's root: its layers and a writable folder as one detached overlay mount.

use crate::config::ContainerConfig;
use crate::idmap::IdMap;
use crate::{EngineError, Result};
use linux::mount::{OverlayOptions, clone_tree, map_ids, overlay};
use linux::resolve::open_root;
use std::fs::{DirBuilder, Permissions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Names of overlay's work folders begin so; each mount gets a new one.
const WORK: &str = "work";

/// Whose the layers' files are to be.
#[derive(Clone, Copy)]
pub(crate) enum Owners<'a> {
    /// As they lie on the disk.
    Own,
    /// Those that this user namespace has for them. (The writable layer holds them as they are outside: overlay makes its files
    /// as this process, which has no id in there.)
    Mapped { namespace: BorrowedFd<'a>, map: &'a IdMap },
}

impl<'a> Owners<'a> {
    /// An ordinary user's layers are copies with the right owners already.
    pub(crate) fn of(config: &'a ContainerConfig, users: Option<BorrowedFd<'a>>) -> Owners<'a> {
        match (&config.id_map, users) {
            (Some(map), Some(namespace)) if !map.is_identity() && linux::userns::is_initial() => {
                Owners::Mapped { namespace, map }
            }
            _ => Owners::Own,
        }
    }

    fn open(self, layer: &Path) -> Result<OwnedFd> {
        let Owners::Mapped { namespace, .. } = self else { return Ok(open_root(layer)?) };
        let mount = clone_tree(layer, false)?;
        map_ids(mount.as_fd(), namespace, false).map_err(|error| {
            EngineError::Invalid(format!(
                "--userns auto: the ids of {} cannot be mapped: {error}: its file system or this kernel may not support it",
                layer.display()
            ))
        })?;
        Ok(mount)
    }
}

/// Mounts the layers (lowest first) with `upper` over them. Work folders lie in `folder`, beside it.
pub(crate) fn mount(layers: &[PathBuf], upper: &Path, folder: &Path, owners: Owners<'_>) -> Result<OwnedFd> {
    make_upper(layers.last(), upper, owners)?;
    remove_work(folder);
    let work = folder.join(format!("{WORK}.{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&work).map_err(|e| EngineError::io("make", &work, e))?;
    let layers = layers.iter().map(|path| owners.open(path)).collect::<Result<Vec<OwnedFd>>>()?;
    let lowers: Vec<_> = layers.iter().map(AsFd::as_fd).collect();
    if lowers.is_empty() {
        // An image without layers: overlay needs one, so an empty folder stands in.
        let empty = folder.join("empty");
        std::fs::create_dir_all(&empty).map_err(|e| EngineError::io("make", &empty, e))?;
        let empty = open_root(&empty)?;
        return over(&[empty.as_fd()], upper, &work);
    }
    over(&lowers, upper, &work)
}

/// Mounts folders, the lowest first, read-only as one.
pub(crate) fn view(folders: &[PathBuf]) -> Result<OwnedFd> {
    let opened = folders.iter().map(|path| open_root(path)).collect::<Result<Vec<OwnedFd>, _>>()?;
    let lowers: Vec<_> = opened.iter().map(AsFd::as_fd).collect();
    Ok(overlay(&lowers, None, OverlayOptions::default())?)
}

/// What [`mount`] shows, read-only and beside it: `upper` may be another mount's, and need not be there yet. None where there is
/// nothing at all.
pub(crate) fn snapshot(layers: &[PathBuf], upper: &Path, owners: Owners<'_>) -> Result<Option<OwnedFd>> {
    let mut folders = layers.iter().map(|path| owners.open(path)).collect::<Result<Vec<OwnedFd>>>()?;
    if upper.exists() {
        folders.push(open_root(upper)?);
    }
    Ok(linux::mount::view(folders)?)
}

fn over(lowers: &[BorrowedFd<'_>], upper: &Path, work: &Path) -> Result<OwnedFd> {
    let upper = open_root(upper)?;
    let work = open_root(work)?;
    Ok(overlay(lowers, Some((upper.as_fd(), work.as_fd())), OverlayOptions::default())?)
}

/// The root folder's own owner and mode are the upper's: they must be the image's.
fn make_upper(top: Option<&PathBuf>, upper: &Path, owners: Owners<'_>) -> Result<()> {
    match DirBuilder::new().mode(0o755).create(upper) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        Err(e) => return Err(EngineError::io("make", upper, e)),
    }
    let mode = match top.map(std::fs::metadata) {
        Some(Ok(meta)) => {
            let (uid, gid) = match owners {
                Owners::Own => (meta.uid(), meta.gid()),
                Owners::Mapped { map, .. } => map.outside(meta.uid(), meta.gid()),
            };
            std::os::unix::fs::chown(upper, Some(uid), Some(gid))
                .map_err(|e| EngineError::io("change the owner of", upper, e))?;
            meta.mode() & 0o7777
        }
        _ => 0o755,
    };
    std::fs::set_permissions(upper, Permissions::from_mode(mode))
        .map_err(|e| EngineError::io("change the mode of", upper, e))
}

/// Removes work folders of mounts that are gone.
pub(crate) fn remove_work(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(WORK.as_bytes()) {
            // One that is still in use stays, and goes next time.
            let _in_use = std::fs::remove_dir_all(entry.path());
        }
    }
}
