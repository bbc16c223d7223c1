//! A container's root: its layers and a writable folder as one detached overlay mount.

use crate::{EngineError, Result};
use linux::mount::{OverlayOptions, overlay};
use linux::resolve::open_root;
use std::fs::{DirBuilder, Permissions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Names of overlay's work folders begin so; each mount gets a new one.
const WORK: &str = "work";

/// Mounts the layers (lowest first) with `upper` over them. Work folders lie in `folder`, beside it.
pub(crate) fn mount(layers: &[PathBuf], upper: &Path, folder: &Path) -> Result<OwnedFd> {
    make_upper(layers.last(), upper)?;
    remove_work(folder);
    let work = folder.join(format!("{WORK}.{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&work).map_err(|e| EngineError::io("make", &work, e))?;
    let layers = layers.iter().map(|path| open_root(path)).collect::<Result<Vec<OwnedFd>, _>>()?;
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
    let options = OverlayOptions { user_xattr: !linux::userns::is_initial(), ..OverlayOptions::default() };
    Ok(overlay(&lowers, None, options)?)
}

fn over(lowers: &[std::os::fd::BorrowedFd<'_>], upper: &Path, work: &Path) -> Result<OwnedFd> {
    let upper = open_root(upper)?;
    let work = open_root(work)?;
    let options = OverlayOptions { user_xattr: !linux::userns::is_initial(), ..OverlayOptions::default() };
    Ok(overlay(lowers, Some((upper.as_fd(), work.as_fd())), options)?)
}

/// The root folder's own owner and mode are the upper's: they must be the image's.
fn make_upper(top: Option<&PathBuf>, upper: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o755).create(upper) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        Err(e) => return Err(EngineError::io("make", upper, e)),
    }
    let mode = match top.map(std::fs::metadata) {
        Some(Ok(meta)) => {
            std::os::unix::fs::chown(upper, Some(meta.uid()), Some(meta.gid()))
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
