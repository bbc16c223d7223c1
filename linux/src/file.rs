//! Files as a store needs them: extended attributes of anything that has a name, whiteouts, whole-filesystem sync. All
//! relative to an open directory, none following a link.

use crate::CallError;
use rustix::fs::{AtFlags, FileType, Mode, RawMode, XattrFlags, makedev};
use rustix::io::Errno;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The most bytes a list of attribute names may have: the kernel's XATTR_LIST_MAX.
const MAX_XATTR_LIST: usize = 65536;
/// The most bytes one attribute's value may have: the kernel's XATTR_SIZE_MAX.
const MAX_XATTR_VALUE: usize = 65536;

/// A path to `name` in the open directory `dir` for calls without an *at form. The descriptor link is
/// the kernel's own, so no rename can lead it elsewhere.
fn magic_path(dir: BorrowedFd<'_>, name: &OsStr) -> Result<CString, CallError> {
    let mut path = format!("/proc/self/fd/{}", dir.as_raw_fd()).into_bytes();
    if !name.is_empty() {
        path.push(b'/');
        path.extend_from_slice(name.as_bytes());
    }
    CString::new(path).map_err(|_| CallError::new("xattr", name.to_string_lossy(), Errno::INVAL))
}

/// Sets an extended attribute of `name` in `dir` (a link's own, never its target's).
/// With an empty `name`: of the directory itself.
pub fn set_xattr(dir: BorrowedFd<'_>, name: &OsStr, key: &OsStr, value: &[u8]) -> Result<(), CallError> {
    let path = magic_path(dir, name)?;
    let result = if name.is_empty() {
        rustix::fs::setxattr(path.as_c_str(), key, value, XattrFlags::empty())
    } else {
        rustix::fs::lsetxattr(path.as_c_str(), key, value, XattrFlags::empty())
    };
    result.map_err(|e| CallError::path("lsetxattr", name, e))
}

/// Takes an extended attribute away; one that is not there is no error.
pub fn remove_xattr(dir: BorrowedFd<'_>, name: &OsStr, key: &OsStr) -> Result<(), CallError> {
    let path = magic_path(dir, name)?;
    let result = if name.is_empty() {
        rustix::fs::removexattr(path.as_c_str(), key)
    } else {
        rustix::fs::lremovexattr(path.as_c_str(), key)
    };
    match result {
        Err(Errno::NODATA) | Ok(()) => Ok(()),
        Err(e) => Err(CallError::path("lremovexattr", name, e)),
    }
}

/// All extended attributes of `name` in `dir`, sorted by key. A filesystem without them has none.
pub fn xattrs(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Vec<(OsString, Vec<u8>)>, CallError> {
    let path = magic_path(dir, name)?;
    let list = read_growing(256, MAX_XATTR_LIST, |buffer| list_names(&path, name, buffer))
        .map_err(|e| CallError::path("llistxattr", name, e))?;
    let mut found = Vec::new();
    for key in list.split(|&b| b == 0).filter(|k| !k.is_empty()) {
        let key = OsString::from_vec(key.to_vec());
        match read_growing(256, MAX_XATTR_VALUE, |buffer| get_value(&path, name, &key, buffer)) {
            Ok(value) => found.push((key, value)),
            // Gone, or not for us to see: as if it were not there.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(e) => return Err(CallError::path("lgetxattr", name, e)),
        }
    }
    found.sort();
    Ok(found)
}

fn list_names(path: &CStr, name: &OsStr, buffer: &mut [u8]) -> Result<usize, Errno> {
    let result =
        if name.is_empty() { rustix::fs::listxattr(path, buffer) } else { rustix::fs::llistxattr(path, buffer) };
    match result {
        Err(Errno::OPNOTSUPP) => Ok(0),
        other => other,
    }
}

fn get_value(path: &CStr, name: &OsStr, key: &OsStr, buffer: &mut [u8]) -> Result<usize, Errno> {
    if name.is_empty() { rustix::fs::getxattr(path, key, buffer) } else { rustix::fs::lgetxattr(path, key, buffer) }
}

/// Calls `read` with growing buffers until the answer fits.
fn read_growing(
    first: usize,
    most: usize,
    mut read: impl FnMut(&mut [u8]) -> Result<usize, Errno>,
) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; first];
    loop {
        match read(&mut buffer) {
            Ok(n) => {
                buffer.truncate(n);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < most => buffer.resize((buffer.len() * 4).min(most), 0),
            Err(e) => return Err(e),
        }
    }
}

/// Makes a whiteout – overlay's mark that `name` is gone: a character device 0:0. Needs no privilege
/// since Linux 5.8.
pub fn make_whiteout(dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), CallError> {
    make_node(dir, name, FileType::CharacterDevice, 0, 0, 0)
}

/// Makes a device, fifo or socket. `mode` are the permission bits.
pub fn make_node(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    kind: FileType,
    mode: RawMode,
    major: u32,
    minor: u32,
) -> Result<(), CallError> {
    rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(mode), makedev(major, minor))
        .map_err(|e| CallError::path("mknodat", name, e))
}

/// Writes everything the filesystem of `file` holds to the disk, and waits for it.
pub fn sync_filesystem(file: impl AsFd) -> Result<(), CallError> {
    rustix::fs::syncfs(file).map_err(|e| CallError::new("syncfs", "", e))
}

/// Hard-links `name` in `dir` to `target` in `target_dir`; a link itself, never what it points to.
pub fn hard_link(
    target_dir: BorrowedFd<'_>,
    target: &OsStr,
    dir: BorrowedFd<'_>,
    name: &OsStr,
) -> Result<(), CallError> {
    rustix::fs::linkat(target_dir, target, dir, name, AtFlags::empty()).map_err(|e| CallError::path("linkat", name, e))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn attributes_of_files_and_of_the_directory_itself_are_read_back_sorted() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        std::fs::write(folder.path().join("f"), b"x").unwrap();
        let dir = File::open(folder.path()).unwrap();
        let big = vec![7_u8; 3000];
        set_xattr(dir.as_fd(), OsStr::new("f"), OsStr::new("trusted.b"), &big).unwrap();
        set_xattr(dir.as_fd(), OsStr::new("f"), OsStr::new("trusted.a"), b"").unwrap();
        set_xattr(dir.as_fd(), OsStr::new(""), OsStr::new("trusted.d"), b"1").unwrap();
        let found = xattrs(dir.as_fd(), OsStr::new("f")).unwrap();
        assert_eq!(found, [("trusted.a".into(), vec![]), ("trusted.b".into(), big)]);
        assert_eq!(xattrs(dir.as_fd(), OsStr::new("")).unwrap().len(), 1);
        remove_xattr(dir.as_fd(), OsStr::new("f"), OsStr::new("trusted.a")).unwrap();
        remove_xattr(dir.as_fd(), OsStr::new("f"), OsStr::new("trusted.a")).unwrap();
        assert_eq!(xattrs(dir.as_fd(), OsStr::new("f")).unwrap().len(), 1);
    }

    #[test]
    fn a_link_out_of_the_directory_is_not_followed() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let victim = folder.path().join("victim");
        std::fs::write(&victim, b"x").unwrap();
        std::os::unix::fs::symlink(&victim, folder.path().join("link")).unwrap();
        let dir = File::open(folder.path()).unwrap();
        set_xattr(dir.as_fd(), OsStr::new("link"), OsStr::new("trusted.x"), b"1").unwrap();
        assert!(xattrs(dir.as_fd(), OsStr::new("victim")).unwrap().is_empty());
    }
}
