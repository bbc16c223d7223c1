//! ADD's archives: a tar, perhaps compressed, unpacked into a layer. Whatever names and links it holds, nothing is
//! written but beneath the root. The tar is read by the store's reader, which bounds all that a stranger can claim.

use super::archive::{Packing, head};
use super::{LayerWriter, shown};
use crate::step_error::{StepError, StepResult};
use crate::tree::Attributes;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use store::{TarEntry, TarKind, TarReader};

/// More entries than any real archive has.
const MAX_ENTRIES: usize = 5_000_000;

impl LayerWriter {
    /// Unpacks an archive into the folder `to` (resolved, made). Owners are the archive's unless given.
    pub(crate) fn unpack(&mut self, file: &mut File, to: &Path, owner: Option<(u32, u32)>) -> StepResult<()> {
        let fail = |e: io::Error| StepError::io("read the archive", to, e);
        file.rewind().map_err(fail)?;
        let packing = Packing::of(&head(file).map_err(fail)?);
        file.rewind().map_err(fail)?;
        let reader = packing.reader(BufReader::with_capacity(128 << 10, file)).map_err(fail)?;
        self.unpack_tar(&mut TarReader::new(BufReader::with_capacity(128 << 10, reader)), to, owner)
    }

    fn unpack_tar(
        &mut self,
        tar: &mut TarReader<impl BufRead>,
        to: &Path,
        owner: Option<(u32, u32)>,
    ) -> StepResult<()> {
        let fail = |e: io::Error| StepError::io("unpack the archive into", shown(to), e);
        for _ in 0..MAX_ENTRIES {
            let Some(entry) = tar.next_entry().map_err(fail)? else { return Ok(()) };
            let name = beneath(&entry.path)?;
            if !name.as_os_str().is_empty() {
                self.entry(tar, &entry, to, &name, &attributes(&entry, owner))?;
            }
        }
        Err(StepError::wrong(format!("an archive has more than {MAX_ENTRIES} entries")))
    }

    fn entry(
        &mut self,
        tar: &mut TarReader<impl BufRead>,
        entry: &TarEntry,
        to: &Path,
        name: &Path,
        attributes: &Attributes,
    ) -> StepResult<()> {
        let target = self.followed(&to.join(name), entry.kind == TarKind::Dir)?;
        match entry.kind {
            TarKind::Dir => self.folder(&target, attributes, false),
            TarKind::File => {
                let mut out = self.create(&target)?;
                write(tar, entry, &mut out).map_err(|e| StepError::io("write", shown(&target), e))?;
                self.set_attributes(out.as_fd(), attributes).map_err(|e| StepError::io("set up", shown(&target), e))
            }
            TarKind::Symlink => self.link(&target, Path::new(OsStr::from_bytes(&entry.link)), attributes),
            TarKind::Hardlink => {
                let first = self.parent_followed(&to.join(beneath(&entry.link)?))?;
                self.hard_link(&first, &target)
            }
            TarKind::Fifo => self.special(&target, 0o010_000, 0, attributes),
            TarKind::Char | TarKind::Block => {
                let file_type = if entry.kind == TarKind::Char { 0o020_000 } else { 0o060_000 };
                self.special(&target, file_type, rustix::fs::makedev(entry.major, entry.minor), attributes)
            }
        }
    }
}

/// A file's bytes; the holes of a sparse one stay holes.
fn write(tar: &mut TarReader<impl BufRead>, entry: &TarEntry, out: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; 128 << 10];
    let whole = [(0, entry.size)];
    let parts = entry.sparse.as_deref().unwrap_or(&whole);
    for (offset, length) in parts {
        out.seek(SeekFrom::Start(*offset))?;
        let mut left = *length;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            match tar.read_data(&mut buffer[..most])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => {
                    out.write_all(&buffer[..n])?;
                    left -= n as u64;
                }
            }
        }
    }
    if entry.sparse.is_some() { out.set_len(entry.size) } else { Ok(()) }
}

/// A name of an archive as a path that cannot lead up: leading slashes are dropped, `..` is an error.
fn beneath(name: &[u8]) -> StepResult<PathBuf> {
    let mut clean = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(name)).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => {
                let name = String::from_utf8_lossy(name);
                return Err(StepError::wrong(format!("an archive's entry leads out of it: {name}")));
            }
        }
    }
    Ok(clean)
}

fn attributes(entry: &TarEntry, owner: Option<(u32, u32)>) -> Attributes {
    let (uid, gid) = owner.unwrap_or((entry.uid, entry.gid));
    // As of any copy: what is the user's own, and file capabilities.
    let kept = |name: &[u8]| {
        (name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")) || name == b"security.capability"
    };
    let xattrs = entry.xattrs.iter().filter(|(name, _)| kept(name));
    Attributes {
        mode: entry.mode,
        uid,
        gid,
        mtime_s: entry.mtime.0,
        xattrs: xattrs.map(|(name, value)| (OsString::from_vec(name.clone()), value.clone())).collect(),
    }
}
