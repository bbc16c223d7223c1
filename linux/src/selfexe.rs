//! Our own binary as something no container can write: a read-only detached clone of the mount of
//! its file. A process that enters a container while its `/proc/PID/exe` is writable gives the
//! binary away (CVE-2019-5736).

use crate::{CallError, mount};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use rustix::io::Errno;
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

const SELF: &str = "/proc/self/exe";

/// A descriptor of the running binary that cannot be opened for writing; hand it to [`exec`].
pub fn read_only_self() -> Result<OwnedFd, CallError> {
    let file = rustix::fs::open(SELF, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| CallError::path("open", SELF, e))?;
    if is_protected_file(file.as_fd()) {
        return Ok(file);
    }
    let found = mount::clone_tree_at(rustix::fs::CWD, SELF, false).or_else(|_| clone_by_name(file.as_fd()));
    let clone = found.and_then(|clone| {
        mount::set_attributes(clone.as_fd(), mount::Attributes::read_only(), false)?;
        Ok(clone)
    });
    match clone {
        Ok(clone) => Ok(clone),
        // No privilege to mount, and so no container of ours that could write a file of root's.
        Err(_) if belongs_to_another(file.as_fd()) => Ok(file),
        Err(_) => sealed_copy(),
    }
}

/// After a move into another mount namespace, the running file is still that of the old one: the same file is looked for in
/// the new one by its name.
fn clone_by_name(running: BorrowedFd<'_>) -> Result<OwnedFd, CallError> {
    let at = |call| move |errno| CallError::path(call, SELF, errno);
    let name = rustix::fs::readlink(SELF, Vec::new()).map_err(at("readlink"))?;
    let clone = mount::clone_tree_at(rustix::fs::CWD, OsStr::from_bytes(name.as_bytes()), false)?;
    let identity = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    if identity(clone.as_fd()).map_err(at("fstat"))? == identity(running).map_err(at("fstat"))? {
        return Ok(clone);
    }
    Err(at("open")(Errno::STALE))
}

/// Returns where this process runs from a binary that no container can write, and else executes it again as such, with the
/// same arguments, environment and descriptors: for the first moments of `main`.
pub fn seal(args: &[&CStr], env: &[&CStr]) -> Result<(), CallError> {
    let program = read_only_self()?;
    if is_protected() || belongs_to_another(program.as_fd()) {
        return Ok(());
    }
    Err(exec(program.as_fd(), args, env))
}

/// Whether this process already runs from a binary that cannot be opened for writing.
pub fn is_protected() -> bool {
    rustix::fs::open(SELF, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .is_ok_and(|file| is_protected_file(file.as_fd()))
}

/// A sealed copy, or a file on a read-only mount that has no place in any tree: one that has (a read-only /usr) can be
/// made writable again, and a container may wait for that with the file in its hand.
fn is_protected_file(file: BorrowedFd<'_>) -> bool {
    let read_only = rustix::fs::fstatvfs(file).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY));
    let detached = || rustix::fs::readlink(SELF, Vec::new()).is_ok_and(|name| name.to_bytes() == b"/");
    let sealed = || {
        // Seals are asked of an open file; a mere path has none.
        let open = rustix::fs::open(SELF, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        open.and_then(rustix::fs::fcntl_get_seals).is_ok_and(|seals| seals.contains(SealFlags::WRITE))
    };
    read_only && detached() || sealed()
}

/// Whether the file is root's and this process is an ordinary user who may not write it: a user namespace that such a one
/// makes has no say over files of root.
fn belongs_to_another(file: BorrowedFd<'_>) -> bool {
    let roots = rustix::fs::fstat(file).is_ok_and(|stat| stat.st_uid == 0 && stat.st_mode & 0o022 == 0);
    roots && !rustix::process::geteuid().is_root()
}

fn sealed_copy() -> Result<OwnedFd, CallError> {
    let at = |call| move |errno| CallError::path(call, SELF, errno);
    let file = rustix::fs::open(SELF, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(at("open"))?;
    let copy =
        rustix::fs::memfd_create("ctr", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).map_err(at("memfd_create"))?;
    while rustix::fs::sendfile(&copy, &file, None, 1 << 30).map_err(at("sendfile"))? != 0 {}
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals).map_err(at("fcntl"))?;
    Ok(copy)
}

/// Replaces this process by the binary behind `exe` (execveat). Returns only on failure.
pub fn exec(exe: BorrowedFd<'_>, args: &[&CStr], env: &[&CStr]) -> CallError {
    CallError::path("execveat", SELF, crate::process::execute_fd(exe, args, env))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_cannot_be_opened_for_writing() {
        use std::os::fd::AsRawFd;
        for fd in [read_only_self().unwrap(), sealed_copy().unwrap()] {
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            let error = rustix::fs::open(path.as_str(), OFlags::WRONLY, Mode::empty()).map(|fd| {
                // A memfd opens, but its seals refuse the write.
                rustix::io::write(&fd, b"x").unwrap_err()
            });
            assert!(matches!(error, Ok(Errno::PERM) | Err(Errno::ROFS | Errno::TXTBSY | Errno::PERM)), "{error:?}");
        }
    }
}
