//! Paths of the kernel's file systems that a container must not read or write, and the settings it may have.

use super::Setup;
use crate::channel::Failure;
use linux::mount::{self, Attributes};
use linux::{CallError, procfs, resolve};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// /dev/null is character device 1:3.
const NULL: (u32, u32) = (1, 3);

pub(super) fn protect(setup: &Setup<'_>) -> Result<(), Failure> {
    for path in setup.plan.read_only_paths {
        make_read_only(setup, Path::new(path))
            .map_err(|e| Failure::set_up(format!("make {path} read-only: {}", e.message)))?;
    }
    let mut covers = Covers::default();
    for path in setup.plan.masked_paths {
        mask(setup, Path::new(path), &mut covers)
            .map_err(|e| Failure::set_up(format!("mask {path}: {}", e.message)))?;
    }
    Ok(())
}

/// What is there, or None: a path this kernel does not have needs no protection.
fn target(setup: &Setup<'_>, path: &Path) -> Result<Option<OwnedFd>, Failure> {
    match resolve::open(setup.root.as_fd(), path, OFlags::PATH) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if matches!(error.errno, Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn make_read_only(setup: &Setup<'_>, path: &Path) -> Result<(), Failure> {
    let Some(target) = target(setup, path)? else { return Ok(()) };
    let cover = mount::clone_fd(target.as_fd(), true)?;
    mount::set_attributes(cover.as_fd(), Attributes { propagation: mount::PRIVATE, ..Attributes::read_only() }, true)?;
    mount::attach(cover.as_fd(), target.as_fd())?;
    // What the name leads to now must be what was just put there.
    let now = resolve::open(setup.root.as_fd(), path, OFlags::PATH)?;
    let flags = rustix::fs::fstatvfs(&now).map_err(|e| CallError::path("fstatvfs", path, e))?.f_flag;
    if flags.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Ok(());
    }
    Err(Failure::set_up("it stayed writable"))
}

/// What masked paths are covered with; made when first needed, shared by all.
#[derive(Default)]
struct Covers {
    null: Option<OwnedFd>,
    /// The empty folder, once it covers something: until 6.15 only what is attached can be cloned.
    empty: Option<OwnedFd>,
}

impl Covers {
    fn cover_file(&mut self, target: BorrowedFd<'_>) -> Result<(), Failure> {
        if self.null.is_none() {
            // The host's: this is still its file system. Verified all the same.
            let null = resolve::open_host(Path::new("/dev/null"), OFlags::PATH | OFlags::NOFOLLOW)?;
            if !is_null(&null)? {
                return Err(Failure::set_up("/dev/null is not the null device"));
            }
            self.null = Some(null);
        }
        let null = self.null.as_ref().ok_or_else(|| Failure::set_up("no cover"))?;
        let cover = mount::clone_fd(null.as_fd(), false)?;
        // It is the host's file: what a container might write through it is nothing, but its owner and mode would be for all.
        let attributes = mount::READ_ONLY | mount::NO_SUID | mount::NO_EXEC;
        mount::set_attributes(cover.as_fd(), Attributes { set: attributes, ..Attributes::default() }, false)?;
        Ok(mount::attach(cover.as_fd(), target)?)
    }

    /// Covers a folder; the cover.
    fn cover_folder(&mut self, target: BorrowedFd<'_>) -> Result<&OwnedFd, Failure> {
        let cover = match &self.empty {
            Some(empty) => mount::clone_fd(empty.as_fd(), false)?,
            None => {
                let attributes = mount::READ_ONLY | mount::NO_SUID | mount::NO_DEV | mount::NO_EXEC;
                mount::new_filesystem("tmpfs", Some("tmpfs"), &[], attributes)?
            }
        };
        mount::attach(cover.as_fd(), target)?;
        Ok(self.empty.get_or_insert(cover))
    }
}

fn is_null(fd: &OwnedFd) -> Result<bool, Failure> {
    let stat = rustix::fs::fstat(fd).map_err(|e| CallError::path("fstat", "/dev/null", e))?;
    let number = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && number == NULL)
}

fn mask(setup: &Setup<'_>, path: &Path, covers: &mut Covers) -> Result<(), Failure> {
    let Some(target) = target(setup, path)? else { return Ok(()) };
    let stat = rustix::fs::fstat(&target).map_err(|e| CallError::path("fstat", path, e))?;
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let look = || resolve::open(setup.root.as_fd(), path, OFlags::PATH);
    let covered = if is_dir {
        let cover = covers.cover_folder(target.as_fd())?;
        let folder = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|s| (s.st_dev, s.st_ino));
        folder(look()?.as_fd()).is_ok_and(|found| folder(cover.as_fd()).is_ok_and(|wanted| wanted == found))
    } else {
        covers.cover_file(target.as_fd())?;
        is_null(&look()?)?
    };
    if covered { Ok(()) } else { Err(Failure::set_up("it stayed visible")) }
}

/// Writes through our own procfs, by paths checked to be in a namespace of the container.
pub(super) fn write_sysctls(setup: &mut Setup<'_>) -> Result<(), Failure> {
    if setup.plan.sysctls.is_empty() {
        return Ok(());
    }
    let proc = match setup.proc.take() {
        Some(proc) => proc,
        None => procfs::open()?,
    };
    let proc = setup.proc.insert(proc);
    for (name, file, value) in &setup.plan.sysctls {
        procfs::write(proc.as_fd(), file, value.as_bytes())
            .map_err(|e| Failure::set_up(format!("sysctl {name}={value}: {e}")))?;
    }
    Ok(())
}
