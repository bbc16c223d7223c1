//! A procfs to write through that nobody else can have touched. What a container has at /proc may be a link, another file
//! system, or have other files mounted over its own: labels and settings written there would go elsewhere.

use crate::{CallError, mount};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The magic number of procfs (statfs).
const PROC_SUPER_MAGIC: i128 = 0x9fa0;
/// The inode number of its root folder.
const ROOT_INODE: u64 = 1;

/// A procfs of our own of this process's pid namespace, mounted nowhere. Where the kernel refuses one (in a user namespace all of
/// whose procfs have something mounted over them), what stands at /proc, if it is the root of a procfs.
pub fn open() -> Result<OwnedFd, CallError> {
    match mount::new_filesystem("proc", Some("proc"), &[], mount::NO_SUID | mount::NO_DEV | mount::NO_EXEC) {
        Err(error) if error.errno == Errno::PERM => {}
        done => return done,
    }
    let at = |call| move |errno| CallError::new(call, "/proc", errno);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let proc = rustix::fs::openat(CWD, "/proc", flags, Mode::empty()).map_err(at("open"))?;
    if is_proc(proc.as_fd())? && is_root(proc.as_fd())? {
        return Ok(proc);
    }
    Err(CallError::new("open", "/proc is not a procfs", Errno::NODEV))
}

/// Whether a descriptor stands on a procfs.
pub fn is_proc(file: BorrowedFd<'_>) -> Result<bool, CallError> {
    let stat = rustix::fs::fstatfs(file).map_err(|e| CallError::new("fstatfs", "", e))?;
    Ok(i128::from(stat.f_type) == PROC_SUPER_MAGIC)
}

/// Whether a descriptor that stands on a procfs stands on its root.
pub fn is_root(file: BorrowedFd<'_>) -> Result<bool, CallError> {
    let stat = rustix::fs::fstat(file).map_err(|e| CallError::new("fstat", "", e))?;
    Ok(stat.st_ino == ROOT_INODE)
}

/// Writes to a file of a procfs, given relative to it: nothing that is mounted over a part of it is entered, no link followed
/// out of it.
pub fn write(proc: BorrowedFd<'_>, file: &Path, value: &[u8]) -> Result<(), Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let fd = rustix::fs::openat2(proc, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    // In one go: the kernel takes the whole value with one write.
    rustix::io::write(&fd, value).map(drop)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_files_are_written() {
        let proc = open().unwrap();
        assert!(is_proc(proc.as_fd()).unwrap() && is_root(proc.as_fd()).unwrap());
        write(proc.as_fd(), Path::new("self/comm"), b"procfs-test").unwrap();
        assert_eq!(std::fs::read_to_string("/proc/self/comm").unwrap().trim_end(), "procfs-test");
        for out in ["self/root/etc/passwd", "self/cwd/Cargo.toml", "../etc/passwd", "/etc/passwd"] {
            assert!(matches!(write(proc.as_fd(), Path::new(out), b"x"), Err(Errno::LOOP | Errno::XDEV)), "{out}");
        }
        let here = rustix::fs::open(".", OFlags::PATH, Mode::empty()).unwrap();
        assert!(!is_proc(here.as_fd()).unwrap());
    }
}
