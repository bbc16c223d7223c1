//! Unpacking a layer, relative to descriptors.
//!
//! Nothing is resolved by string: the kernel resolves a parent folder as if the layer were `/`
//! (openat2, RESOLVE_IN_ROOT), so links in the tar lead nowhere but into the layer, and the last name is never
//! followed. Whiteouts become overlay's marks. Folders that no header describes are noted (see `chain.rs`).

use super::read::{Entry, Kind, TarReader};
use super::walk::{self, Step};
use crate::{Result, StoreError};
use linux::file;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RawMode, ResolveFlags, Timespec, Timestamps, Uid, chownat, fchmod,
    fchown, futimens, mkdirat, openat, openat2, readlinkat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

/// The most entries of a layer.
const MAX_ENTRIES: u64 = 20_000_000;
/// Open folders kept.
const CACHED_DIRS: usize = 64;

/// Which marks overlay wants and what this process may do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks {
    /// `trusted.overlay.` or, in a user namespace, `user.overlay.`.
    pub(crate) prefix: &'static str,
    /// May make devices and set every attribute.
    pub(crate) privileged: bool,
}

/// What unpacking found out.
#[derive(Debug, Default)]
pub(crate) struct Extracted {
    /// Bytes of the files.
    pub(crate) size: u64,
    /// Mode, uid and gid of the root, if it has a header.
    pub(crate) root: Option<(u32, u32, u32)>,
    /// Folders without a header.
    pub(crate) implied: BTreeSet<Vec<u8>>,
    /// Hard links whose target is in no entry: path and target.
    pub(crate) links: Vec<(Vec<u8>, Vec<u8>)>,
}

struct Extractor {
    root: OwnedFd,
    marks: Marks,
    found: Extracted,
    dirs: HashMap<Vec<u8>, Rc<OwnedFd>>,
    /// Folders' times are set at the end: each new entry changes them.
    times: BTreeMap<Vec<u8>, (i64, u32)>,
    /// One whiteout; the others are links to it.
    whiteout: Option<(Rc<OwnedFd>, Vec<u8>)>,
}

/// An error about one entry.
fn bad(entry: &[u8], why: impl Into<String>) -> StoreError {
    StoreError::BadLayer { entry: String::from_utf8_lossy(entry).into_owned(), why: why.into() }
}

fn failed<'a>(entry: &'a [u8], call: &'a str) -> impl FnOnce(Errno) -> StoreError + 'a {
    move |errno| bad(entry, format!("{call}: {errno}"))
}

fn owner(entry: &Entry) -> (Uid, Gid) {
    let (uid, gid) = linux::userns::file_owner(entry.uid, entry.gid);
    (Uid::from_raw(uid), Gid::from_raw(gid))
}

/// An id that a user namespace lacks is invalid to the kernel.
fn chown_failed(entry: &Entry) -> impl FnOnce(Errno) -> StoreError + '_ {
    let (uid, gid) = (entry.uid, entry.gid);
    let missing = format!("its owner {uid}:{gid} is not among this user's ids: /etc/subuid and /etc/subgid give more");
    move |errno| bad(&entry.path, if errno == Errno::INVAL { missing } else { format!("chown: {errno}") })
}

/// Unpacks all entries of `tar` into the empty folder `root`.
pub(crate) fn extract<R: BufRead>(tar: &mut TarReader<R>, root: &Path, marks: Marks) -> Result<Extracted> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, root, flags, Mode::empty()).map_err(StoreError::io("open", root))?;
    let mut extractor = Extractor {
        root,
        marks,
        found: Extracted::default(),
        dirs: HashMap::new(),
        times: BTreeMap::new(),
        whiteout: None,
    };
    let mut count = 0;
    let mut last = Vec::new();
    loop {
        let next = tar.next_entry().map_err(|e| match last.as_slice() {
            [] => StoreError::BadArchive(e.to_string()),
            last => bad(last, format!("the entry after it cannot be read: {e}")),
        })?;
        let Some(entry) = next else { break };
        count += 1;
        if count > MAX_ENTRIES {
            return Err(bad(&entry.path, format!("the layer has more than {MAX_ENTRIES} entries")));
        }
        extractor.entry(&entry, tar)?;
        last = entry.path;
    }
    extractor.finish()
}

/// Splits a path into its names; `..` is taken back lexically and may not leave the root.
fn components(path: &[u8]) -> Result<Vec<&[u8]>> {
    let mut names = Vec::new();
    for name in path.split(|&b| b == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                names.pop().ok_or_else(|| bad(path, "the path leads out of the layer"))?;
            }
            _ if name.contains(&0) => return Err(bad(path, "a name with a NUL byte")),
            _ => names.push(name),
        }
    }
    Ok(names)
}

pub(crate) fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

impl Extractor {
    fn entry<R: BufRead>(&mut self, entry: &Entry, tar: &mut TarReader<R>) -> Result<()> {
        let names = components(&entry.path)?;
        let Some((name, parents)) = names.split_last() else { return self.root_entry(entry) };
        let parent_path = parents.join(&b'/');
        let (parent, parent_path) = self.parent(&parent_path, &entry.path)?;
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            return self.whiteout(entry, &parent, hidden);
        }
        let path = join(&parent_path, name);
        match entry.kind {
            Kind::Dir => self.dir(entry, &parent, name, &path),
            Kind::File => self.file(entry, &parent, name, &path, tar),
            Kind::Symlink => {
                self.make_room(&parent, name, &path)?;
                symlinkat(os(&entry.link), &parent, os(name)).map_err(failed(&entry.path, "symlink"))?;
                self.attributes_by_name(entry, &parent, name)
            }
            Kind::Hardlink => self.hard_link(entry, &parent, name, &path),
            Kind::Char | Kind::Block | Kind::Fifo => self.node(entry, &parent, name, &path),
        }
    }

    fn root_entry(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != Kind::Dir {
            return Err(bad(&entry.path, "the root can only be a folder"));
        }
        self.found.root = Some((entry.mode, entry.uid, entry.gid));
        let root = self.root.try_clone().map_err(StoreError::io("open", "layer"))?;
        self.owner_and_mode(entry, &root)
    }

    /// The open parent folder and its path with links resolved. What is missing is made, and noted as implied.
    fn parent(&mut self, path: &[u8], entry: &[u8]) -> Result<(Rc<OwnedFd>, Vec<u8>)> {
        if let Some(fd) = self.dirs.get(path) {
            return Ok((Rc::clone(fd), path.to_vec()));
        }
        // Without a link on the way the path as given is the resolved one.
        if let Ok(fd) = open_beneath(self.root.as_fd(), path, ResolveFlags::NO_SYMLINKS) {
            return Ok((self.remember(path, fd), path.to_vec()));
        }
        let resolved = self.make_parents(path, entry)?;
        let fd = open_beneath(self.root.as_fd(), &resolved, ResolveFlags::NO_SYMLINKS)
            .map_err(failed(entry, "open its folder"))?;
        Ok((self.remember(&resolved, fd), resolved))
    }

    fn remember(&mut self, path: &[u8], fd: OwnedFd) -> Rc<OwnedFd> {
        if self.dirs.len() >= CACHED_DIRS {
            self.dirs.clear();
        }
        let fd = Rc::new(fd);
        self.dirs.insert(path.to_vec(), Rc::clone(&fd));
        fd
    }

    /// The folder's path with links followed inside the layer. What is not there is made.
    fn make_parents(&mut self, path: &[u8], entry: &[u8]) -> Result<Vec<u8>> {
        walk::resolve(path, entry, |folder, name| {
            let here = open_beneath(self.root.as_fd(), folder, ResolveFlags::NO_SYMLINKS)
                .map_err(failed(entry, "open its folder"))?;
            match statat(&here, os(name), AtFlags::SYMLINK_NOFOLLOW).map(|s| FileType::from_raw_mode(s.st_mode)) {
                Ok(FileType::Directory) => {}
                Ok(FileType::Symlink) => {
                    let target = readlinkat(&here, os(name), Vec::new()).map_err(failed(entry, "readlink"))?;
                    return Ok(Step::Follow(target.into_bytes()));
                }
                Err(Errno::NOENT) => {
                    mkdirat(&here, os(name), Mode::from_raw_mode(0o755)).map_err(failed(entry, "mkdir"))?;
                    // The umask is the caller's, the layer everyone's.
                    rustix::fs::chmodat(&here, os(name), Mode::from_raw_mode(0o755), AtFlags::empty())
                        .map_err(failed(entry, "chmod"))?;
                    self.found.implied.insert(join(folder, name));
                }
                Ok(FileType::CharacterDevice) if self.is_whiteout(&here, name) => {
                    self.opaque_dir(&here, name, entry)?;
                    self.found.implied.insert(join(folder, name));
                }
                Ok(_) => return Err(bad(entry, "a part of its path is no folder")),
                Err(errno) => return Err(failed(entry, "stat its folder")(errno)),
            }
            Ok(Step::Enter)
        })
    }

    fn is_whiteout(&self, parent: &OwnedFd, name: &[u8]) -> bool {
        statat(parent, os(name), AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::CharacterDevice && s.st_rdev == 0)
    }

    /// A folder in the place of its own whiteout: it hides what is below.
    fn opaque_dir(&mut self, parent: &OwnedFd, name: &[u8], entry: &[u8]) -> Result<()> {
        self.forget_whiteout(parent, name);
        unlinkat(parent, os(name), AtFlags::empty()).map_err(failed(entry, "unlink"))?;
        mkdirat(parent, os(name), Mode::from_raw_mode(0o755)).map_err(failed(entry, "mkdir"))?;
        self.mark_opaque(parent, name, entry)
    }

    fn mark_opaque(&self, parent: &OwnedFd, name: &[u8], entry: &[u8]) -> Result<()> {
        let key = format!("{}opaque", self.marks.prefix);
        file::set_xattr(parent.as_fd(), os(name), OsStr::new(&key), b"y").map_err(|e| bad(entry, e.to_string()))
    }

    /// The links' source may be the one replaced.
    fn forget_whiteout(&mut self, parent: &OwnedFd, name: &[u8]) {
        if let Some((_, known)) = &self.whiteout
            && known == name
            && self.is_whiteout(parent, name)
        {
            self.whiteout = None;
        }
    }

    /// Takes away what an entry replaces. A folder goes only if it is replaced by something else.
    fn make_room(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<()> {
        let stat = match statat(parent, os(name), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            other => other.map_err(failed(path, "stat"))?,
        };
        self.forget_whiteout(parent, name);
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return unlinkat(parent, os(name), AtFlags::empty()).map_err(failed(path, "unlink"));
        }
        remove_dir(parent.as_fd(), name, 0).map_err(failed(path, "remove the folder in its place"))?;
        self.dirs.clear();
        self.whiteout = None;
        let beneath = join(path, b"");
        self.times.retain(|p, _| p != path && !p.starts_with(&beneath));
        self.found.implied.retain(|p| p != path && !p.starts_with(&beneath));
        Ok(())
    }

    fn dir(&mut self, entry: &Entry, parent: &Rc<OwnedFd>, name: &[u8], path: &[u8]) -> Result<()> {
        match mkdirat(parent, os(name), Mode::from_raw_mode(0o700)) {
            Err(Errno::EXIST) => {
                let stat = statat(parent, os(name), AtFlags::SYMLINK_NOFOLLOW).map_err(failed(&entry.path, "stat"))?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    let was_whiteout = self.is_whiteout(parent, name);
                    self.make_room(parent, name, path)?;
                    mkdirat(parent, os(name), Mode::from_raw_mode(0o700)).map_err(failed(&entry.path, "mkdir"))?;
                    if was_whiteout {
                        self.mark_opaque(parent, name, &entry.path)?;
                    }
                }
            }
            other => other.map_err(failed(&entry.path, "mkdir"))?,
        }
        let fd = open_beneath(parent.as_fd(), name, ResolveFlags::NO_SYMLINKS).map_err(failed(&entry.path, "open"))?;
        self.found.implied.remove(path);
        self.owner_and_mode(entry, &fd)?;
        self.xattrs(entry, fd.as_fd(), b"")?;
        self.times.insert(path.to_vec(), entry.mtime);
        self.remember(path, fd);
        Ok(())
    }

    fn file<R: BufRead>(
        &mut self,
        entry: &Entry,
        parent: &Rc<OwnedFd>,
        name: &[u8],
        path: &[u8],
        tar: &mut TarReader<R>,
    ) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let opened = match openat(parent, os(name), flags, mode) {
            Err(Errno::EXIST) => {
                self.make_room(parent, name, path)?;
                openat(parent, os(name), flags, mode)
            }
            other => other,
        };
        let mut file = File::from(opened.map_err(failed(&entry.path, "create"))?);
        match &entry.sparse {
            None => while Extractor::copy_some(entry, tar, u64::MAX, |bytes| file.write_all(bytes))? > 0 {},
            Some(map) => Extractor::sparse_data(entry, map, tar, &file)?,
        }
        self.found.size = self.found.size.saturating_add(entry.size);
        self.owner_and_mode(entry, &file)?;
        self.xattrs(entry, parent.as_fd(), name)?;
        futimens(&file, &times(entry.mtime)).map_err(failed(&entry.path, "utimensat"))
    }

    /// Writes what lies ready of the entry's data, at most `most` bytes, and tells how much that was.
    fn copy_some<R: BufRead>(
        entry: &Entry,
        tar: &mut TarReader<R>,
        most: u64,
        mut write: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<u64> {
        let bytes = loop {
            match tar.data() {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(bad(&entry.path, e.to_string())),
                Ok(bytes) => break bytes,
            }
        };
        let count = bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        write(&bytes[..count]).map_err(|e| write_failed(entry, e))?;
        tar.consume(count);
        Ok(count as u64)
    }

    fn sparse_data<R: BufRead>(entry: &Entry, map: &[(u64, u64)], tar: &mut TarReader<R>, file: &File) -> Result<()> {
        file.set_len(entry.size).map_err(|e| write_failed(entry, e))?;
        for &(mut offset, length) in map {
            let end = offset + length;
            while offset < end {
                let n = Extractor::copy_some(entry, tar, end - offset, |bytes| file.write_all_at(bytes, offset))?;
                if n == 0 {
                    return Err(bad(&entry.path, "the tar ends within it"));
                }
                offset += n;
            }
        }
        Ok(())
    }

    fn hard_link(&mut self, entry: &Entry, parent: &Rc<OwnedFd>, name: &[u8], path: &[u8]) -> Result<()> {
        let names = components(&entry.link)?;
        let Some((target, folders)) = names.split_last() else {
            return Err(bad(&entry.path, "a hard link to the root"));
        };
        if folders.join(&b'/') == path.rsplit_once_slash() && *target == name {
            return Ok(());
        }
        let folder = open_beneath(self.root.as_fd(), &folders.join(&b'/'), ResolveFlags::empty());
        let found = folder.and_then(|f| {
            let stat = statat(&f, os(target), AtFlags::SYMLINK_NOFOLLOW)?;
            if stat.st_rdev == 0 && FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice {
                return Err(Errno::NOENT);
            }
            Ok((f, stat))
        });
        match found {
            Ok((folder, stat)) => {
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    return Err(bad(&entry.path, "a hard link to a folder"));
                }
                let here = statat(parent, os(name), AtFlags::SYMLINK_NOFOLLOW);
                if here.is_ok_and(|h| (h.st_dev, h.st_ino) == (stat.st_dev, stat.st_ino)) {
                    return Ok(());
                }
                self.make_room(parent, name, path)?;
                file::hard_link(folder.as_fd(), os(target), parent.as_fd(), os(name))
                    .map_err(|e| bad(&entry.path, e.to_string()))
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                self.found.links.push((path.to_vec(), names.join(&b'/')));
                Ok(())
            }
            Err(errno) => Err(failed(&entry.path, "find its target")(errno)),
        }
    }

    fn node(&mut self, entry: &Entry, parent: &Rc<OwnedFd>, name: &[u8], path: &[u8]) -> Result<()> {
        let kind = match entry.kind {
            Kind::Char => FileType::CharacterDevice,
            Kind::Block => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let whiteout = kind == FileType::CharacterDevice && entry.major == 0 && entry.minor == 0;
        if kind != FileType::Fifo && !self.marks.privileged && !whiteout {
            return Ok(());
        }
        self.make_room(parent, name, path)?;
        let (major, minor) = if kind == FileType::Fifo { (0, 0) } else { (entry.major, entry.minor) };
        let mode: RawMode = if whiteout { 0 } else { entry.mode };
        file::make_node(parent.as_fd(), os(name), kind, mode, major, minor)
            .map_err(|e| bad(&entry.path, e.to_string()))?;
        if whiteout { Ok(()) } else { self.attributes_by_name(entry, parent, name) }
    }

    /// `.wh.NAME` hides NAME below, `.wh..wh..opq` everything below in its folder. What this layer itself has
    /// under that name stays.
    fn whiteout(&mut self, entry: &Entry, parent: &Rc<OwnedFd>, hidden: &[u8]) -> Result<()> {
        if hidden == b".wh..opq" {
            return self.mark_opaque(parent, b"", &entry.path);
        }
        if hidden.starts_with(b".wh.") {
            // aufs' own bookkeeping.
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(bad(&entry.path, "a whiteout of nothing"));
        }
        match statat(parent, os(hidden), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                return self.mark_opaque(parent, hidden, &entry.path);
            }
            Ok(_) => return Ok(()),
            Err(_) => {}
        }
        if let Some((folder, known)) = &self.whiteout
            && file::hard_link(folder.as_fd(), os(known), parent.as_fd(), os(hidden)).is_ok()
        {
            return Ok(());
        }
        file::make_whiteout(parent.as_fd(), os(hidden)).map_err(|e| bad(&entry.path, e.to_string()))?;
        self.whiteout = Some((Rc::clone(parent), hidden.to_vec()));
        Ok(())
    }

    /// Owner first: chown clears setuid bits and capabilities.
    fn owner_and_mode(&self, entry: &Entry, fd: impl AsFd) -> Result<()> {
        if self.must_chown(entry) {
            let (uid, gid) = owner(entry);
            fchown(&fd, Some(uid), Some(gid)).map_err(chown_failed(entry))?;
        }
        fchmod(&fd, Mode::from_raw_mode(entry.mode)).map_err(failed(&entry.path, "chmod"))
    }

    /// New files are ours already: root's.
    fn must_chown(&self, entry: &Entry) -> bool {
        entry.uid != 0 || entry.gid != 0 || entry.kind == Kind::Dir
    }

    /// Of links and nodes, which can't be opened.
    fn attributes_by_name(&self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> Result<()> {
        if self.must_chown(entry) {
            let (uid, gid) = owner(entry);
            chownat(parent, os(name), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(chown_failed(entry))?;
        }
        if entry.kind != Kind::Symlink {
            // mknod's mode went through the umask. The name is the node just made: nobody else writes here.
            rustix::fs::chmodat(parent, os(name), Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .map_err(failed(&entry.path, "chmod"))?;
        }
        self.xattrs(entry, parent.as_fd(), name)?;
        utimensat(parent, os(name), &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed(&entry.path, "utimensat"))
    }

    fn xattrs(&self, entry: &Entry, dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        for (key, value) in entry.xattrs.iter().filter(|(key, _)| is_kept(key)) {
            match file::set_xattr(dir, os(name), os(key), value) {
                Ok(()) => {}
                // The filesystem has no such attributes, or they are not ours to set.
                Err(e) if e.errno == Errno::OPNOTSUPP => {}
                Err(e) if e.errno == Errno::PERM && (!self.marks.privileged || entry.kind != Kind::File) => {}
                Err(e) => return Err(bad(&entry.path, format!("{}: {e}", String::from_utf8_lossy(key)))),
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Extracted> {
        for (path, mtime) in &self.times {
            let fd = open_beneath(self.root.as_fd(), path, ResolveFlags::NO_SYMLINKS).map_err(failed(path, "open"))?;
            futimens(&fd, &times(*mtime)).map_err(failed(path, "utimensat"))?;
        }
        Ok(self.found)
    }
}

trait RsplitSlash {
    fn rsplit_once_slash(&self) -> Vec<u8>;
}

impl RsplitSlash for [u8] {
    /// Everything before the last slash.
    fn rsplit_once_slash(&self) -> Vec<u8> {
        self.iter().rposition(|&b| b == b'/').map_or_else(Vec::new, |at| self[..at].to_vec())
    }
}

/// Attributes that an image may bring: capabilities, ACLs, users' own. Never overlay's or the host's security marks.
pub(crate) fn is_kept(key: &[u8]) -> bool {
    let named = key == b"security.capability" || key.starts_with(b"system.posix_acl_");
    named || (key.starts_with(b"user.") && !key.starts_with(b"user.overlay."))
}

pub(crate) fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, name].join(&b'/') }
}

fn write_failed(entry: &Entry, error: std::io::Error) -> StoreError {
    StoreError::Io { operation: "write", path: os(&entry.path).into(), source: error }
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanos) };
    Timestamps { last_access: time, last_modification: time }
}

/// Opens a folder as if `root` were `/`.
pub(crate) fn open_beneath(
    root: BorrowedFd<'_>,
    path: &[u8],
    more: ResolveFlags,
) -> std::result::Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
    loop {
        match openat2(root, os(path), flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Removes a folder with all in it; at most a few thousand deep.
fn remove_dir(parent: BorrowedFd<'_>, name: &[u8], depth: usize) -> std::result::Result<(), Errno> {
    if depth > 2048 {
        return Err(Errno::NAMETOOLONG);
    }
    let dir = open_beneath(parent, name, ResolveFlags::NO_SYMLINKS)?;
    let entries: Vec<_> = rustix::fs::Dir::read_from(&dir)?.collect::<std::result::Result<_, _>>()?;
    for entry in entries {
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            child => match unlinkat(&dir, os(child), AtFlags::empty()) {
                Err(Errno::ISDIR | Errno::PERM) => remove_dir(dir.as_fd(), child, depth + 1)?,
                other => other?,
            },
        }
    }
    unlinkat(parent, os(name), AtFlags::REMOVEDIR)
}
