//! A layer's folder as the one tar it stands for: entries sorted, overlay's marks as the image-spec's
//! (`.wh.NAME`, `.wh..wh..opq`), nothing in it that two machines would write differently. The sha256 of
//! these bytes is a built layer's diff id, so every rule here is for ever.
//!
//! Making a layer of an upperdir also puts the folder itself into the state the tar describes
//! ([`Purpose::Normalise`]): what runs from it here and what is unpacked elsewhere must not differ.

use crate::StoreError;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, StatxFlags, Timespec, Timestamps};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use tar::EntryType;

type Result<T> = std::result::Result<T, StoreError>;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE_NAME: &[u8] = b".wh..wh..opq";
/// In a user namespace overlay's marks are the user's own attributes.
const OVERLAY_XATTRS: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
/// Folders in folders; deeper trees can be made but not even named in one call.
const MAX_DEPTH: usize = 512;
/// Linux' own limit of an attribute's value.
const MAX_XATTR_BYTES: usize = 64 << 10;
const MAX_USTAR_ID: u32 = 0o7_777_777;
const MAX_USTAR_SIZE: u64 = 0o77_777_777_777;

/// Why the folder is read.
#[derive(Clone, Copy)]
pub(crate) enum Purpose<'a> {
    /// The layer is in the store: leave it as it is.
    Read,
    /// An upperdir becomes a layer: sockets go, times lose their fractions (and what lies after `clamp`, seconds
    /// since 1970), overlay's private marks go.
    Normalise { clamp: Option<i64> },
    /// Others write in it meanwhile; what `owner` has for its users and groups is written down.
    Live { owner: &'a dyn Fn(u32, u32) -> (u32, u32) },
}

impl Purpose<'_> {
    fn normalises(&self) -> bool {
        matches!(self, Purpose::Normalise { .. })
    }

    fn is_live(&self) -> bool {
        matches!(self, Purpose::Live { .. })
    }
}

/// The end of a tar.
pub(crate) const EMPTY_TAR: [u8; 1024] = [0; 1024];

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// Entries of the tar; 0 is a layer that changes nothing.
    pub(crate) entries: u64,
    /// Bytes in files, hard links counted once.
    pub(crate) bytes: u64,
}

/// Writes the tar of the layer in `root` (its `fs/` or an upperdir nothing is mounted on).
/// `marks` begins the names of overlay's attributes here.
pub(crate) fn write_layer(
    root: BorrowedFd<'_>,
    purpose: Purpose<'_>,
    marks: &str,
    out: &mut dyn Write,
) -> Result<Written> {
    let opaque_xattr = format!("{marks}opaque").into_bytes();
    let mut walk =
        Walk { out, purpose, opaque_xattr, written: Written::default(), links: HashMap::new(), path: Vec::new() };
    if purpose.normalises() {
        walk.strip_private_marks(root, c".")?;
    }
    let folder = open_folder(root, c".").map_err(|e| walk.error("open", e))?;
    walk.folder(&folder, 0)?;
    walk.put(&EMPTY_TAR)?;
    Ok(walk.written)
}

struct Walk<'a> {
    out: &'a mut dyn Write,
    purpose: Purpose<'a>,
    /// The name of the mark of a folder that hides what is below.
    opaque_xattr: Vec<u8>,
    written: Written,
    /// The first path of each file that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Of the entry at hand, without a leading slash.
    path: Vec<u8>,
}

fn open_folder(at: BorrowedFd<'_>, name: &CStr) -> std::result::Result<OwnedFd, Errno> {
    rustix::fs::openat(at, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn sorted_names(folder: &OwnedFd) -> std::result::Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_owned();
        if name.as_bytes() != b"." && name.as_bytes() != b".." {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

impl Walk<'_> {
    fn error(&self, operation: &'static str, source: impl Into<io::Error>) -> StoreError {
        StoreError::io(operation, PathBuf::from(OsStr::from_bytes(&self.path)))(source)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(StoreError::io("write", "the tar"))
    }

    fn folder(&mut self, folder: &OwnedFd, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(self.error("read", Errno::NAMETOOLONG));
        }
        let own_length = self.path.len();
        for name in sorted_names(folder).map_err(|e| self.error("read", e))? {
            if own_length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.as_bytes());
            self.entry(folder.as_fd(), &name, depth)?;
            self.path.truncate(own_length);
        }
        Ok(())
    }

    fn entry(&mut self, folder: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<()> {
        let stat = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) if self.purpose.is_live() => return Ok(()),
            stat => stat.map_err(|e| self.error("stat", e))?,
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            return self.whiteout();
        }
        if name.to_bytes().starts_with(WHITEOUT) {
            let entry = String::from_utf8_lossy(&self.path).into_owned();
            let why = "names beginning with .wh. are reserved for whiteouts in image layers".to_owned();
            return Err(StoreError::BadLayer { entry, why });
        }
        let done = match kind {
            FileType::Socket if self.purpose.normalises() => {
                rustix::fs::unlinkat(folder, name, AtFlags::empty()).map_err(|e| self.error("remove", e))
            }
            FileType::Socket => Ok(()),
            FileType::Directory => self.subfolder(folder, name, &stat, depth),
            _ => self.file(folder, name, &stat, kind).and_then(|()| self.normalise(folder, name, &stat)),
        };
        match done {
            Err(StoreError::Io { source, .. }) if self.purpose.is_live() && is_gone(&source) => Ok(()),
            done => done,
        }
    }

    /// `.wh.NAME` beside what it hides.
    fn whiteout(&mut self) -> Result<()> {
        let at = self.path.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
        let mut path = self.path.clone();
        path.splice(at..at, WHITEOUT.iter().copied());
        self.header(&path, &Header::marker())
    }

    fn subfolder(&mut self, at: BorrowedFd<'_>, name: &CStr, stat: &Stat, depth: usize) -> Result<()> {
        let xattrs = self.xattrs(at, name)?;
        let opaque = xattrs.iter().any(|(key, value)| *key == self.opaque_xattr && value == b"y");
        let mut path = self.path.clone();
        path.push(b'/');
        self.header(&path, &self.header_of(stat, EntryType::Directory, xattrs))?;
        if opaque {
            path.extend_from_slice(OPAQUE_NAME);
            self.header(&path, &Header::marker())?;
        }
        let folder = open_folder(at, name).map_err(|e| self.error("open", e))?;
        self.folder(&folder, depth + 1)?;
        self.normalise(at, name, stat)
    }

    fn file(&mut self, at: BorrowedFd<'_>, name: &CStr, stat: &Stat, kind: FileType) -> Result<()> {
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key).cloned() {
                let header = Header { link: first, ..self.header_of(stat, EntryType::Link, Vec::new()) };
                return self.header(&self.path.clone(), &header);
            }
        }
        let xattrs = self.xattrs(at, name)?;
        let path = self.path.clone();
        match kind {
            FileType::RegularFile => {
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                let file = self.open_file(at, name)?;
                let header = Header { size, ..self.header_of(stat, EntryType::Regular, xattrs) };
                self.header(&path, &header)?;
                self.content(file, size)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(at, name, Vec::new()).map_err(|e| self.error("read link", e))?;
                let header = Header { link: target.into_bytes(), ..self.header_of(stat, EntryType::Symlink, xattrs) };
                self.header(&path, &header)
            }
            FileType::Fifo => self.header(&path, &self.header_of(stat, EntryType::Fifo, xattrs)),
            FileType::CharacterDevice => self.header(&path, &self.header_of(stat, EntryType::Char, xattrs)),
            FileType::BlockDevice => self.header(&path, &self.header_of(stat, EntryType::Block, xattrs)),
            _ => Err(self.error("archive", Errno::INVAL)),
        }?;
        if stat.st_nlink > 1 {
            self.links.insert((stat.st_dev, stat.st_ino), path);
        }
        Ok(())
    }

    fn open_file(&self, at: BorrowedFd<'_>, name: &CStr) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOATIME;
        let open = |flags| rustix::fs::openat(at, name, flags, Mode::empty());
        let file = open(flags).or_else(|_| open(flags - OFlags::NOATIME)).map_err(|e| self.error("open", e))?;
        Ok(File::from(file))
    }

    fn content(&mut self, file: File, size: u64) -> Result<()> {
        let mut content = file.take(size);
        let mut left = size;
        let mut buffer = vec![0; 128 << 10];
        while left > 0 {
            let read = content.read(&mut buffer).map_err(|e| self.error("read", e))?;
            let read = match read {
                0 if self.purpose.is_live() => {
                    buffer.fill(0);
                    usize::try_from(left).unwrap_or(buffer.len()).min(buffer.len())
                }
                0 => return Err(self.error("read (it shrank)", io::ErrorKind::UnexpectedEof)),
                read => read,
            };
            self.put(&buffer[..read])?;
            left -= read as u64;
        }
        self.written.bytes += size;
        let padding = usize::try_from((512 - size % 512) % 512).unwrap_or(0);
        self.put(&[0; 512][..padding])
    }

    fn header_of(&self, stat: &Stat, kind: EntryType, xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Header {
        let device = matches!(kind, EntryType::Char | EntryType::Block);
        let (uid, gid) = match self.purpose {
            Purpose::Live { owner } => owner(stat.st_uid, stat.st_gid),
            _ => (stat.st_uid, stat.st_gid),
        };
        Header {
            kind,
            mode: stat.st_mode & 0o7777,
            uid,
            gid,
            mtime: self.clamped(stat.st_mtime),
            size: 0,
            link: Vec::new(),
            device: device.then(|| (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))),
            xattrs: xattrs.into_iter().filter(|(key, _)| !key.starts_with(b"trusted.") && !is_overlays(key)).collect(),
        }
    }

    fn clamped(&self, mtime: i64) -> i64 {
        match self.purpose {
            Purpose::Normalise { clamp: Some(limit) } => mtime.min(limit),
            _ => mtime,
        }
    }

    /// Attributes of an entry, sorted by name. Links are not followed; most file systems have none on links.
    fn xattrs(&self, at: BorrowedFd<'_>, name: &CStr) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let path = xattr_path(at, name);
        let mut names = vec![0u8; MAX_XATTR_BYTES];
        let length = match rustix::fs::llistxattr(&path, &mut names[..]) {
            Ok(length) => length,
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(error) => return Err(self.error("list attributes of", error)),
        };
        let mut found = Vec::new();
        for key in names[..length].split(|b| *b == 0).filter(|key| !key.is_empty()) {
            let mut value = vec![0u8; MAX_XATTR_BYTES];
            let length = rustix::fs::lgetxattr(&path, OsStr::from_bytes(key), &mut value[..])
                .map_err(|e| self.error("read an attribute of", e))?;
            value.truncate(length);
            found.push((key.to_vec(), value));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Takes away the marks overlay keeps for itself; an opaque folder stays opaque.
    fn strip_private_marks(&self, at: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        for (key, _) in self.xattrs(at, name)? {
            if is_overlays(&key) && key != self.opaque_xattr {
                rustix::fs::lremovexattr(xattr_path(at, name), OsStr::from_bytes(&key))
                    .map_err(|e| self.error("remove an attribute of", e))?;
            }
        }
        Ok(())
    }

    /// Makes the entry on disk what its header says. Times last: all else changes them.
    fn normalise(&self, at: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<()> {
        if !self.purpose.normalises() {
            return Ok(());
        }
        self.strip_private_marks(at, name)?;
        let mtime = self.clamped(stat.st_mtime);
        let now = rustix::fs::statx(at, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MTIME);
        if now.is_ok_and(|now| now.stx_mtime.tv_sec == mtime && now.stx_mtime.tv_nsec == 0) {
            return Ok(());
        }
        let time = Timespec { tv_sec: mtime, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(at, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| self.error("set times of", e))
    }

    fn header(&mut self, path: &[u8], header: &Header) -> Result<()> {
        self.written.entries += 1;
        let bytes = header.encode(path);
        self.put(&bytes)
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Whether an attribute is overlay's, of either kind.
fn is_overlays(key: &[u8]) -> bool {
    OVERLAY_XATTRS.iter().any(|prefix| key.starts_with(prefix))
}

/// An entry's attributes can be had by path alone; this one goes through the open folder, so no link on the way is followed.
fn xattr_path(at: BorrowedFd<'_>, name: &CStr) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", at.as_raw_fd())).join(OsStr::from_bytes(name.to_bytes()))
}

/// One entry's header: ustar, with PAX records (POSIX.1-2001) for what ustar can't hold.
struct Header {
    kind: EntryType,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    size: u64,
    link: Vec<u8>,
    device: Option<(u32, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Header {
    /// Of a whiteout: an empty file without owner or time.
    fn marker() -> Header {
        Header {
            kind: EntryType::Regular,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: 0,
            size: 0,
            link: Vec::new(),
            device: None,
            xattrs: Vec::new(),
        }
    }

    fn encode(&self, path: &[u8]) -> Vec<u8> {
        let mut records = Vec::new();
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(self.kind);
        header.set_mode(self.mode);
        fill(&mut header.as_old_mut().name, path, b"path", &mut records);
        fill(&mut header.as_old_mut().linkname, &self.link, b"linkpath", &mut records);
        header.set_uid(or_record(self.uid.into(), MAX_USTAR_ID.into(), b"uid", &mut records));
        header.set_gid(or_record(self.gid.into(), MAX_USTAR_ID.into(), b"gid", &mut records));
        header.set_size(or_record(self.size, MAX_USTAR_SIZE, b"size", &mut records));
        match u64::try_from(self.mtime) {
            Ok(mtime) => header.set_mtime(or_record(mtime, MAX_USTAR_SIZE, b"mtime", &mut records)),
            Err(_) => {
                header.set_mtime(0);
                record(b"mtime", self.mtime.to_string().as_bytes(), &mut records);
            }
        }
        if let (Some((major, minor)), Some(ustar)) = (self.device, header.as_ustar_mut()) {
            ustar.set_device_major(major);
            ustar.set_device_minor(minor);
        }
        for (key, value) in &self.xattrs {
            record(&[b"SCHILY.xattr.", &key[..]].concat(), value, &mut records);
        }
        header.set_cksum();
        let mut bytes = pax_entry(&records);
        bytes.extend_from_slice(header.as_bytes());
        bytes
    }
}

/// Puts a name into its field; one too long goes into a record, and its beginning into the field.
fn fill(field: &mut [u8; 100], name: &[u8], key: &[u8], records: &mut Vec<u8>) {
    let length = name.len().min(field.len());
    field[..length].copy_from_slice(&name[..length]);
    if name.len() > field.len() {
        record(key, name, records);
    }
}

/// The number, or 0 in the field and the number in a record.
fn or_record(number: u64, limit: u64, key: &[u8], records: &mut Vec<u8>) -> u64 {
    if number <= limit {
        return number;
    }
    record(key, number.to_string().as_bytes(), records);
    0
}

/// `LENGTH key=value\n`, where the length counts its own digits.
fn record(key: &[u8], value: &[u8], records: &mut Vec<u8>) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    for part in [b" ", key, b"=", value, b"\n"] {
        records.extend_from_slice(part);
    }
}

fn pax_entry(records: &[u8]) -> Vec<u8> {
    if records.is_empty() {
        return Vec::new();
    }
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.as_old_mut().name[..9].copy_from_slice(b"PaxHeader");
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(records.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(records);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

#[cfg(test)]
mod tests;
