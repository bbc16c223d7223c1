//! Copies of files with all that belongs to them: of an image's folder into a volume, of layers, into a tmpfs. Relative to open
//! folders, no link followed; folders are walked by who copies.

use crate::CallError;
use crate::file::{hard_link, make_node, set_xattr, xattrs};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Below this size, in bytes, a read and a write are cheaper than finding out what else works.
const SMALL_BYTES: u64 = 64 << 10;
const BUFFER_BYTES: u64 = 128 << 10;

/// How a copy differs from what is copied.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// The user and group that get what belongs to these.
    pub owner: &'a dyn Fn(u32, u32) -> (u32, u32),
    /// Which extended attributes come along.
    pub keeps: fn(&[u8]) -> bool,
    /// Attributes that the file system does not take, or that we may not set, are left out.
    pub forgives: bool,
}

/// A copy as it is.
pub const EVERYTHING: Rules<'static> = Rules { owner: &|uid, gid| (uid, gid), keeps: |_| true, forgives: false };

/// A name in an open folder; an empty one is the folder itself.
pub type Place<'a> = (BorrowedFd<'a>, &'a OsStr);

/// A copy under way: it knows where files with several names went first.
pub struct Copier<'a> {
    rules: Rules<'a>,
    /// The folder that everything goes into, at whatever depth.
    root: OwnedFd,
    /// By (device, inode), from the root. (A descriptor each would be too many of them.)
    links: HashMap<(u64, u64), PathBuf>,
    reflinks: bool,
}

impl<'a> Copier<'a> {
    /// Copies nothing yet; what it will copy is to go somewhere below `root`.
    pub fn new(rules: Rules<'a>, root: BorrowedFd<'_>) -> Result<Copier<'a>, CallError> {
        let root = root.try_clone_to_owned().map_err(|e| CallError::new("dup", "", errno(&e)))?;
        Ok(Copier { rules, root, links: HashMap::new(), reflinks: true })
    }

    /// Copies anything but a folder, whose `stat` that is, to a name that is free and is `path` from the root. Another name of a
    /// file copied before becomes another name of its copy.
    pub fn file(&mut self, from: Place<'_>, to: Place<'_>, path: &Path, stat: &Stat) -> Result<(), CallError> {
        let (folder, name) = to;
        if stat.st_nlink > 1 {
            let id = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&id) {
                return hard_link(self.root.as_fd(), first.as_os_str(), folder, name);
            }
            self.links.insert(id, path.to_owned());
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.contents(from, to, stat)?,
            FileType::Symlink => {
                let text = rustix::fs::readlinkat(from.0, from.1, Vec::new()).map_err(failed("readlinkat", from.1))?;
                rustix::fs::symlinkat(text.as_c_str(), folder, name).map_err(failed("symlinkat", name))?;
            }
            kind => {
                let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
                make_node(folder, name, kind, 0o600, major, minor)?;
            }
        }
        self.attributes(from, to, stat)
    }

    fn contents(&mut self, from: Place<'_>, to: Place<'_>, stat: &Stat) -> Result<(), CallError> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let source = rustix::fs::openat(from.0, from.1, flags | OFlags::RDONLY, Mode::empty());
        let source = File::from(source.map_err(failed("openat", from.1))?);
        let new = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let target = rustix::fs::openat(to.0, to.1, new, Mode::RUSR | Mode::WUSR).map_err(failed("openat", to.1))?;
        let size_bytes = u64::try_from(stat.st_size).unwrap_or(0);
        copy_contents(&source, &File::from(target), size_bytes, &mut self.reflinks)
            .map_err(|e| failed("copy", to.1)(errno(&e)))
    }

    /// Gives what is at `to` the owner, mode, extended attributes and time of what is at `from`. For folders it comes last, since
    /// what is put into one changes its time.
    pub fn attributes(&self, from: Place<'_>, to: Place<'_>, stat: &Stat) -> Result<(), CallError> {
        let (folder, name) = to;
        let (uid, gid) = (self.rules.owner)(stat.st_uid, stat.st_gid);
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        // First: a change of owner takes the set-user-ID bit and capabilities away.
        rustix::fs::chownat(folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH)
            .map_err(failed("fchownat", name))?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        match (name.is_empty(), FileType::from_raw_mode(stat.st_mode)) {
            (true, _) => rustix::fs::fchmod(folder, mode).map_err(failed("fchmod", name))?,
            (_, FileType::Symlink) => {}
            _ => rustix::fs::chmodat(folder, name, mode, AtFlags::empty()).map_err(failed("fchmodat", name))?,
        }
        for (key, value) in xattrs(from.0, from.1)? {
            if !(self.rules.keeps)(key.as_bytes()) {
                continue;
            }
            match set_xattr(folder, name, &key, &value) {
                Err(e) if self.rules.forgives && matches!(e.errno, Errno::OPNOTSUPP | Errno::PERM) => {}
                other => other?,
            }
        }
        let modified = Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0) };
        let times = Timestamps { last_access: modified, last_modification: modified };
        match name.is_empty() {
            true => rustix::fs::futimens(folder, &times),
            false => rustix::fs::utimensat(folder, name, &times, AtFlags::SYMLINK_NOFOLLOW),
        }
        .map_err(failed("utimensat", name))
    }
}

fn failed<'n>(call: &'static str, name: &'n OsStr) -> impl Fn(Errno) -> CallError + 'n {
    move |errno| CallError::path(call, name, errno)
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Copies all of `from`, which is `size_bytes` long or was, to the empty file `to` by the shortest way the two file systems allow:
/// shared extents, a copy in the kernel, a loop. `reflinks` is set to false once they refuse the first.
pub fn copy_contents(mut from: &File, mut to: &File, size_bytes: u64, reflinks: &mut bool) -> io::Result<()> {
    if size_bytes > SMALL_BYTES {
        if *reflinks {
            match rustix::fs::ioctl_ficlone(to, from) {
                Ok(()) => return Ok(()),
                Err(_) => *reflinks = false,
            }
        }
        if copy_in_kernel(from, to)? {
            return Ok(());
        }
    }
    // One byte more, so that a file of that size is seen to end by the second read.
    let bytes = size_bytes.saturating_add(1).min(BUFFER_BYTES);
    let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(1)];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(&buffer[..n])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// copy_file_range(2) to the end of the file; false where it does not work between these two.
fn copy_in_kernel(from: &File, to: &File) -> io::Result<bool> {
    let mut copied = false;
    loop {
        match rustix::fs::copy_file_range(from, None, to, None, 1 << 30) {
            Ok(0) => return Ok(copied),
            Ok(_) => copied = true,
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) if !copied => {
                return Ok(false);
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn copy_all(from: &Path, to: &Path) -> Copier<'static> {
        let (source, target) = (File::open(from).unwrap(), File::open(to).unwrap());
        let mut copier = Copier::new(EVERYTHING, target.as_fd()).unwrap();
        let mut names: Vec<_> = fs::read_dir(from).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        for name in &names {
            let stat = rustix::fs::statat(&source, name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
            copier.file((source.as_fd(), name), (target.as_fd(), name), Path::new(name), &stat).unwrap();
        }
        copier
    }

    #[test]
    fn what_is_copied_is_the_same() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let sizes = [0, 1, 4095, SMALL_BYTES - 1, SMALL_BYTES, SMALL_BYTES + 1, BUFFER_BYTES, 3 * BUFFER_BYTES + 7];
        for (n, size) in sizes.iter().enumerate() {
            let bytes: Vec<u8> = (0..*size).map(|byte| u8::try_from(byte % 251).unwrap()).collect();
            fs::write(from.path().join(n.to_string()), bytes).unwrap();
            fs::set_permissions(from.path().join(n.to_string()), PermissionsExt::from_mode(0o4751)).unwrap();
        }
        symlink("/nowhere", from.path().join("link")).unwrap();
        copy_all(from.path(), to.path());
        for (n, size) in sizes.iter().enumerate() {
            let (was, is) = (from.path().join(n.to_string()), to.path().join(n.to_string()));
            assert!(fs::read(&was).unwrap() == fs::read(&is).unwrap(), "{size} bytes");
            let (was, is) = (fs::metadata(was).unwrap(), fs::metadata(is).unwrap());
            assert_eq!((was.mode(), was.mtime_nsec()), (is.mode(), is.mtime_nsec()));
        }
        assert_eq!(fs::read_link(to.path().join("link")).unwrap(), Path::new("/nowhere"));
    }

    /// Seen to fail with an open folder kept for each of the names.
    #[test]
    fn many_linked_files_take_no_descriptors() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for n in 0..200 {
            fs::write(from.path().join(format!("a{n}")), "x").unwrap();
            fs::hard_link(from.path().join(format!("a{n}")), from.path().join(format!("b{n}"))).unwrap();
        }
        let open = || fs::read_dir("/proc/self/fd").unwrap().count();
        let before = open();
        let copier = copy_all(from.path(), to.path());
        assert!(open() < before + 100);
        drop(copier);
        for n in 0..200 {
            let inode = |first: &str| fs::metadata(to.path().join(format!("{first}{n}"))).unwrap().ino();
            assert_eq!(inode("a"), inode("b"));
        }
    }
}
