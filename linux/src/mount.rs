//! The new mount API: every mount is made detached, as a file descriptor, and attached to a file
//! descriptor – no path is resolved twice, so nothing can be swapped in between.

use crate::CallError;
pub use crate::overlay::{OverlayOptions, overlay, view};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use std::ffi::c_uint;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr;

/// Messages read of one file system context; the kernel keeps eight.
const MAX_MESSAGES: usize = 16;

/// Attributes of a mount to set and clear; the values of `MOUNT_ATTR_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Set these.
    pub set: u64,
    /// Clear these.
    pub clear: u64,
    /// One of MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE; 0 leaves the propagation as it is.
    pub propagation: u64,
}

/// MOUNT_ATTR_RDONLY
pub const READ_ONLY: u64 = 0x1;
/// MOUNT_ATTR_NOSUID
pub const NO_SUID: u64 = 0x2;
/// MOUNT_ATTR_NODEV
pub const NO_DEV: u64 = 0x4;
/// MOUNT_ATTR_NOEXEC
pub const NO_EXEC: u64 = 0x8;
/// MOUNT_ATTR__ATIME: the bits below form one field.
pub const ATIME_MASK: u64 = 0x70;
/// MOUNT_ATTR_NOATIME
pub const NO_ATIME: u64 = 0x10;
/// MOUNT_ATTR_STRICTATIME
pub const STRICT_ATIME: u64 = 0x20;
/// MOUNT_ATTR_NODIRATIME
pub const NO_DIR_ATIME: u64 = 0x80;
/// MOUNT_ATTR_IDMAP
const ID_MAP: u64 = 0x10_0000;
/// MOUNT_ATTR_NOSYMFOLLOW
pub const NO_SYMFOLLOW: u64 = 0x20_0000;

/// MS_UNBINDABLE
pub const UNBINDABLE: u64 = 1 << 17;
/// MS_PRIVATE
pub const PRIVATE: u64 = 1 << 18;
/// MS_SLAVE
pub const SLAVE: u64 = 1 << 19;
/// MS_SHARED
pub const SHARED: u64 = 1 << 20;

impl Attributes {
    /// Read-only.
    pub const fn read_only() -> Attributes {
        Attributes { set: READ_ONLY, clear: 0, propagation: 0 }
    }

    /// This propagation.
    pub const fn propagation(propagation: u64) -> Attributes {
        Attributes { set: 0, clear: 0, propagation }
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Attributes::default()
    }
}

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Changes the attributes of the mount a descriptor stands on, and of all below it if `recursive`.
pub fn set_attributes(mount: BorrowedFd<'_>, attributes: Attributes, recursive: bool) -> Result<(), CallError> {
    let Attributes { set, clear, propagation } = attributes;
    change(mount, &MountAttr { set, clear, propagation, user_namespace: 0 }, recursive)
        .map_err(|e| CallError::new("mount_setattr", "", e))
}

/// Changes the propagation of the whole mount tree of this namespace.
pub fn set_propagation_of_all(propagation: u64) -> Result<(), CallError> {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| CallError::path("open", "/", e))?;
    set_attributes(root.as_fd(), Attributes::propagation(propagation), true)
}

/// Makes the files of a detached mount (and of all below it if `recursive`) appear as those that the user namespace maps
/// their owners to (5.12). EINVAL where the file system can't, EPERM where the mount is attached already.
pub fn map_ids(mount: BorrowedFd<'_>, namespace: BorrowedFd<'_>, recursive: bool) -> Result<(), CallError> {
    let user_namespace = u64::from(namespace.as_raw_fd().unsigned_abs());
    change(mount, &MountAttr { set: ID_MAP, clear: 0, propagation: 0, user_namespace }, recursive)
        .map_err(|e| CallError::new("mount_setattr", "MOUNT_ATTR_IDMAP", e))
}

fn change(mount: BorrowedFd<'_>, attr: &MountAttr, recursive: bool) -> Result<(), Errno> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string and the attributes are of the size given.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    if answer == 0 { Ok(()) } else { Err(CallError::last("mount_setattr", "").errno) }
}

/// One option of a file system: a flag, or a key with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FsOption<'a> {
    /// The key.
    pub key: &'a str,
    /// None for a flag.
    pub value: Option<&'a str>,
}

/// A new, detached file system.
pub fn new_filesystem(
    kind: &str,
    source: Option<&str>,
    options: &[FsOption<'_>],
    attributes: u64,
) -> Result<OwnedFd, CallError> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| CallError::new("fsopen", kind, e))?;
    if let Some(source) = source {
        // Only for show in mountinfo; not every file system takes it.
        let _shown = fsconfig_set_string(&context, "source", source);
    }
    for option in options {
        match option.value {
            Some(value) => fsconfig_set_string(&context, option.key, value),
            None => fsconfig_set_flag(&context, option.key),
        }
        .map_err(|e| context_error(&context, "fsconfig", format!("{kind} option {}", option.key), e))?;
    }
    make(&context, kind, attributes)
}

pub(crate) fn make(context: &OwnedFd, kind: &str, attributes: u64) -> Result<OwnedFd, CallError> {
    fsconfig_create(context).map_err(|e| context_error(context, "fsconfig", format!("create {kind}"), e))?;
    let attributes = MountAttrFlags::from_bits_retain(c_uint::try_from(attributes).unwrap_or(0));
    fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(|e| CallError::new("fsmount", kind, e))
}

/// The error with what the file system itself said about it: the last of its messages, the others are of what was tried before.
pub(crate) fn context_error(context: &OwnedFd, call: &'static str, target: String, errno: Errno) -> CallError {
    let mut said = [0u8; 512];
    let mut last = String::new();
    for _ in 0..MAX_MESSAGES {
        match rustix::io::read(context, &mut said) {
            Ok(length @ 1..) => last = String::from_utf8_lossy(&said[..length]).trim().to_owned(),
            _ => break,
        }
    }
    if last.is_empty() {
        CallError::new(call, target, errno)
    } else {
        CallError::new(call, format!("{target} ({last})"), errno)
    }
}

/// A detached copy of what is mounted at (or is) a path, with all mounts below it if `recursive`.
pub fn clone_tree(path: &Path, recursive: bool) -> Result<OwnedFd, CallError> {
    clone_tree_at(CWD, path, recursive)
}

/// As [`clone_tree`], of a path relative to `dir`.
pub fn clone_tree_at(dir: BorrowedFd<'_>, path: impl AsRef<Path>, recursive: bool) -> Result<OwnedFd, CallError> {
    let path = path.as_ref();
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if path.as_os_str().is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    open_tree(dir, path, flags).map_err(|e| CallError::path("open_tree", path, e))
}

/// A detached copy of the mount of what a descriptor stands on.
pub fn clone_fd(fd: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd, CallError> {
    clone_tree_at(fd, "", recursive)
}

/// Attaches a detached mount onto what a descriptor stands on.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), CallError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags).map_err(|e| CallError::new("move_mount", "", e))
}

/// Makes `root`, a mount attached over the root of this namespace, the root of this process, and drops the old one with all its
/// mounts. The working directory is `/` then.
///
/// Where the old root can't be swapped – it is the kernel's own ramfs, or `pivot` is false – this process is put into the new
/// one by chroot. What lies below stays in the namespace but out of reach: every way up from `root` leads back onto it.
pub fn enter_root(root: BorrowedFd<'_>, pivot: bool) -> Result<(), CallError> {
    let at = |call| move |errno| CallError::new(call, "the container's root", errno);
    rustix::process::fchdir(root).map_err(at("fchdir"))?;
    // Both names the same: the old root is stacked on the new one, and unmounted from there.
    match if pivot { rustix::process::pivot_root(".", ".") } else { Err(Errno::INVAL) } {
        Ok(()) => rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(at("umount2"))?,
        Err(Errno::INVAL) => rustix::process::chroot(".").map_err(at("chroot"))?,
        Err(errno) => return Err(at("pivot_root")(errno)),
    }
    rustix::process::chdir("/").map_err(at("chdir"))
}

/// The root of this mount namespace where it is not this process's own: None unless this process lives in a chroot.
///
/// What is mounted over such a `/` can be left again by `..` from the mount below, so a container must not be put there.
pub fn namespace_root() -> Result<Option<OwnedFd>, CallError> {
    let at = |call| move |errno| CallError::new(call, "/", errno);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let own = rustix::fs::open("/", flags, Mode::empty()).map_err(at("open"))?;
    let stat = rustix::fs::statx(&own, c"", AtFlags::EMPTY_PATH, StatxFlags::empty()).map_err(at("statx"))?;
    if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(None);
    }
    let here = rustix::fs::open(".", flags, Mode::empty()).map_err(at("open"))?;
    let this = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())
        .map_err(at("pidfd_open"))?;
    // Entering the namespace one is in leads to its root.
    crate::process::join_process(this.as_fd(), crate::process::Namespaces::MOUNT)?;
    let root = rustix::fs::open("/", flags, Mode::empty()).map_err(at("open"))?;
    change_root(own.as_fd())?;
    rustix::process::fchdir(&here).map_err(at("fchdir"))?;
    Ok(Some(root))
}

/// Makes a folder the root and the working directory of this process.
pub fn change_root(root: BorrowedFd<'_>) -> Result<(), CallError> {
    let at = |call| move |errno| CallError::new(call, "/", errno);
    rustix::process::fchdir(root).map_err(at("fchdir"))?;
    rustix::process::chroot(".").map_err(at("chroot"))
}

/// Unmounts what is mounted at a path, once nobody uses it any more.
pub fn unmount_lazily(path: &Path) -> Result<(), CallError> {
    rustix::mount::unmount(path, UnmountFlags::DETACH).map_err(|e| CallError::path("umount2", path, e))
}
