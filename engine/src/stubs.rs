//! Mount points that an image lacks are made in the writable layer before the container starts. In a build they must not
//! become part of the next layer: what was missing before and is still empty afterwards is taken out again.

use oci_spec::runtime::Spec;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, statat, unlinkat};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Paths that were not there, and the folders that were and will hold them.
#[derive(Debug, Default)]
pub(crate) struct Stubs {
    missing: BTreeSet<PathBuf>,
    /// With mode and owner: a folder that is in the upper for a stub's sake alone goes with it.
    parents: BTreeMap<PathBuf, (u32, u32, u32)>,
}

impl Stubs {
    /// What of a spec's mount points is not there in a root.
    pub(crate) fn missing(root: BorrowedFd<'_>, spec: &Spec) -> Stubs {
        let mut stubs = Stubs::default();
        for mount in spec.mounts().iter().flatten() {
            let mut path = mount.destination().as_path();
            // Up to the first ancestor that is there.
            while let Some(parent) = path.parent() {
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match linux::resolve::open(root, path, flags) {
                    Ok(found) => {
                        stubs.keep_parents(root, path, &found);
                        break;
                    }
                    Err(_) => stubs.missing.insert(path.to_owned()),
                };
                path = parent;
            }
        }
        stubs
    }

    fn keep_parents(&mut self, root: BorrowedFd<'_>, path: &Path, found: &OwnedFd) {
        let attributes = |fd: &OwnedFd| rustix::fs::fstat(fd).ok().map(|s| (s.st_mode, s.st_uid, s.st_gid));
        if let Some(found) = attributes(found) {
            self.parents.insert(path.to_owned(), found);
        }
        for ancestor in path.ancestors().skip(1).filter(|path| path.parent().is_some()) {
            let opened = linux::resolve::open(root, ancestor, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC);
            if let Some(found) = opened.ok().as_ref().and_then(attributes) {
                self.parents.insert(ancestor.to_owned(), found);
            }
        }
    }

    /// Takes out of an upper folder, over which nothing is mounted any more, what is there for the mounts alone.
    pub(crate) fn remove(&self, upper: &Path) {
        let Ok(root) = linux::resolve::open_root(upper) else { return };
        // The deepest first.
        for path in self.missing.iter().rev() {
            let _kept = remove_if_empty(root.as_fd(), path, None);
        }
        for (path, attributes) in self.parents.iter().rev() {
            let _kept = remove_if_empty(root.as_fd(), path, Some(*attributes));
        }
    }
}

/// Removes an empty file or folder; one that was there before only if it is what it was.
fn remove_if_empty(root: BorrowedFd<'_>, path: &Path, before: Option<(u32, u32, u32)>) -> rustix::io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let relative = parent.strip_prefix("/").unwrap_or(parent);
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = linux::resolve::open_no_links(root, relative, flags).map_err(|e| e.errno)?;
    let stat = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    match before {
        Some(before) => {
            let same = before == (stat.st_mode, stat.st_uid, stat.st_gid);
            if same && kind == FileType::Directory && !is_opaque(folder.as_fd(), name) {
                unlinkat(&folder, name, AtFlags::REMOVEDIR)?;
            }
        }
        None if kind == FileType::Directory => unlinkat(&folder, name, AtFlags::REMOVEDIR)?,
        None if kind == FileType::RegularFile && stat.st_size == 0 => unlinkat(&folder, name, AtFlags::empty())?,
        None => {}
    }
    Ok(())
}

/// An opaque folder hides what is below it: it means something even though it is empty.
fn is_opaque(folder: BorrowedFd<'_>, name: &std::ffi::OsStr) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(opened) = rustix::fs::openat(folder, name, flags, Mode::empty()) else { return true };
    let mut value = [0u8; 8];
    ["trusted.overlay.opaque", "user.overlay.opaque"]
        .iter()
        .any(|xattr| rustix::fs::fgetxattr(opened.as_fd(), *xattr, &mut value[..]).is_ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn stubs_go_and_what_the_program_made_stays() {
        let image = tempfile::tempdir().unwrap();
        let upper = tempfile::tempdir().unwrap();
        std::fs::create_dir(image.path().join("etc")).unwrap();
        let root = linux::resolve::open_root(image.path()).unwrap();
        let stubs = Stubs::missing(root.as_fd(), &runtime::default_spec());
        for path in ["proc", "dev", "sys", "etc", "dev/shm"] {
            std::fs::create_dir(upper.path().join(path)).unwrap();
        }
        std::fs::write(upper.path().join("dev/made"), "by the program").unwrap();
        stubs.remove(upper.path());
        assert!(!upper.path().join("proc").exists());
        assert!(!upper.path().join("dev/shm").exists());
        assert!(upper.path().join("dev/made").exists());
        assert!(upper.path().join("etc").exists(), "nothing is mounted in it, so it is not ours to take out");
    }
}
