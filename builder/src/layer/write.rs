//! Putting single things and whole listings into a layer.

use super::{LayerWriter, not_a_folder, shown};
use crate::instruction::Chmod;
use crate::paths::{Found, Lookup};
use crate::step_error::{StepError, StepResult};
use crate::tree::{Attributes, Entry, Kind, Manifest, Stamp, Tree};
use linux::copy::copy_contents;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// How a listing is changed on its way into a layer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Placement {
    pub(crate) owner: Option<(u32, u32)>,
    pub(crate) chmod: Option<Chmod>,
    /// A folder of the listing may stand for a link to a folder in the root (unpacked archives: `lib` → `usr/lib`).
    pub(crate) follow_links: bool,
    /// The time of all that is copied, instead of its own.
    pub(crate) time_s: Option<i64>,
    /// Of a folder only what is in it is copied: where it goes is a folder as any that is made on the way.
    pub(crate) contents_only: bool,
}

impl LayerWriter {
    /// Copies a listing of `tree` that begins at `start` to the resolved path `to`.
    pub(crate) fn copy(
        &mut self,
        tree: &Tree,
        start: &Path,
        manifest: &Manifest,
        to: &Path,
        placement: &Placement,
    ) -> StepResult<()> {
        for entry in &manifest.entries {
            let mut attributes = entry.attributes.changed(placement.owner, placement.chmod.as_ref(), &entry.kind);
            attributes.mtime_s = placement.time_s.unwrap_or(attributes.mtime_s);
            let target = match placement.follow_links {
                true => self.followed(&below(to, &entry.path), entry.kind == Kind::Folder)?,
                false => below(to, &entry.path),
            };
            match &entry.kind {
                Kind::Folder if placement.contents_only && entry.path.as_os_str().is_empty() => {
                    self.make_folders(&target)?;
                }
                Kind::Folder => self.folder(&target, &attributes, entry.path.as_os_str().is_empty())?,
                Kind::File { .. } => self.file(tree, &below(start, &entry.path), entry, &target, &attributes)?,
                Kind::Link { target: text } => self.link(&target, text, &attributes)?,
                Kind::Special { file_type, device } => self.special(&target, *file_type, *device, &attributes)?,
            }
        }
        Ok(())
    }

    /// Writes a new file of these bytes at a resolved path.
    pub(crate) fn bytes(&mut self, path: &Path, bytes: &[u8], attributes: &Attributes) -> StepResult<()> {
        let mut file = self.create(path)?;
        file.write_all(bytes).map_err(|e| StepError::io("write", shown(path), e))?;
        self.set_attributes(file.as_fd(), attributes).map_err(|e| StepError::io("set up", shown(path), e))
    }

    /// Writes a new file of all that `from` holds from its beginning at a resolved path.
    pub(crate) fn stream(&mut self, path: &Path, from: &mut File, attributes: &Attributes) -> StepResult<()> {
        let fail = |e| StepError::io("write", shown(path), e);
        from.rewind().map_err(fail)?;
        let file = self.create(path)?;
        let size = from.metadata().map_err(fail)?.len();
        copy_contents(from, &file, size, &mut self.reflinks).map_err(fail)?;
        self.set_attributes(file.as_fd(), attributes).map_err(|e| StepError::io("set up", shown(path), e))
    }

    /// A folder: made, or, where there is one, given the attributes – but for the copy's start, which keeps its own.
    pub(super) fn folder(&mut self, path: &Path, attributes: &Attributes, is_start: bool) -> StepResult<()> {
        let found = self.look_up(path).map_err(|e| StepError::io("look up", shown(path), e))?;
        match found {
            Some(Found::Folder) if is_start => return self.make_folders(path),
            Some(Found::Folder) | None => {}
            Some(_) => return Err(not_a_folder(path)),
        }
        self.make_folders(path)?;
        if !path.as_os_str().is_empty() {
            self.folders.insert(path.to_owned(), attributes.clone());
        }
        Ok(())
    }

    fn file(
        &mut self,
        tree: &Tree,
        source: &Path,
        entry: &Entry,
        target: &Path,
        attributes: &Attributes,
    ) -> StepResult<()> {
        let inode = (entry.stamp.device, entry.stamp.inode);
        if entry.is_hard_linked
            && let Some(first) = self.links.get(&inode).cloned()
        {
            return self.hard_link(&first, target);
        }
        let from = File::from(tree.open(source, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK)?);
        let before = rustix::fs::fstat(&from).map_err(|e| StepError::io("stat", source, e))?;
        if FileType::from_raw_mode(before.st_mode) != FileType::RegularFile {
            let hint = "build again when nothing writes to the context";
            return Err(StepError::with_hint(format!("{} changed while it was copied", source.display()), hint));
        }
        let to = self.create(target)?;
        let size = u64::try_from(before.st_size).unwrap_or(0);
        copy_contents(&from, &to, size, &mut self.reflinks).map_err(|e| StepError::io("write", shown(target), e))?;
        let after = rustix::fs::fstat(&from).map_err(|e| StepError::io("stat", source, e))?;
        // An overlay numbers files by whichever layer they are in, so only times and size are compared.
        let same = |stamp: Stamp| {
            (stamp.size_bytes, stamp.mtime, stamp.ctime)
                == (entry.stamp.size_bytes, entry.stamp.mtime, entry.stamp.ctime)
        };
        self.source_changed |= !(same(Stamp::of(&before)) && same(Stamp::of(&after)));
        self.set_attributes(to.as_fd(), attributes).map_err(|e| StepError::io("set up", shown(target), e))?;
        if entry.is_hard_linked {
            self.links.insert(inode, target.to_owned());
        }
        Ok(())
    }

    pub(super) fn hard_link(&mut self, first: &Path, target: &Path) -> StepResult<()> {
        let (first_folder, first_name) = split(first)?;
        let from = self.open_folder(first_folder)?;
        let (folder, name) = split(target)?;
        let to = self.open_folder(folder)?;
        self.make_room(to.as_fd(), name, target)?;
        rustix::fs::linkat(&from, first_name, &to, name, AtFlags::empty())
            .map_err(|e| StepError::io("link", shown(target), e))
    }

    pub(super) fn link(&mut self, path: &Path, text: &Path, attributes: &Attributes) -> StepResult<()> {
        let (folder, name) = split(path)?;
        let folder = self.open_folder(folder)?;
        self.make_room(folder.as_fd(), name, path)?;
        let fail = |e: rustix::io::Errno| StepError::io("make the link", shown(path), e);
        rustix::fs::symlinkat(text, &folder, name).map_err(fail)?;
        self.name_attributes(folder.as_fd(), name, attributes).map_err(fail)
    }

    pub(super) fn special(
        &mut self,
        path: &Path,
        file_type: u32,
        device: u64,
        attributes: &Attributes,
    ) -> StepResult<()> {
        let (folder, name) = split(path)?;
        let folder = self.open_folder(folder)?;
        self.make_room(folder.as_fd(), name, path)?;
        let fail = |e: rustix::io::Errno| StepError::io("make the node", shown(path), e);
        let mode = Mode::from_raw_mode(attributes.mode);
        rustix::fs::mknodat(&folder, name, FileType::from_raw_mode(file_type), mode, device).map_err(fail)?;
        self.name_attributes(folder.as_fd(), name, attributes).map_err(fail)?;
        rustix::fs::chmodat(&folder, name, mode, AtFlags::empty()).map_err(fail)
    }

    /// Owner and time of what cannot be opened.
    fn name_attributes(&self, folder: BorrowedFd<'_>, name: &OsStr, attributes: &Attributes) -> rustix::io::Result<()> {
        let (uid, gid) = linux::userns::file_owner(attributes.uid, attributes.gid);
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::fs::chownat(folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        rustix::fs::utimensat(folder, name, &self.times(attributes.mtime_s), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// A new, empty file at a resolved path.
    pub(super) fn create(&mut self, path: &Path) -> StepResult<File> {
        let (folder, name) = split(path)?;
        let folder = self.open_folder(folder)?;
        self.make_room(folder.as_fd(), name, path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| StepError::io("write", shown(path), e))?;
        Ok(File::from(file))
    }

    /// The path with the links of its parents, and its own if it is to be a folder, followed inside the root.
    pub(super) fn followed(&self, path: &Path, is_folder: bool) -> StepResult<PathBuf> {
        if is_folder {
            let resolved = self.resolve(path)?;
            return Ok(if resolved.found == Some(Found::Folder) { resolved.path } else { self.parent_followed(path)? });
        }
        self.parent_followed(path)
    }

    pub(super) fn parent_followed(&self, path: &Path) -> StepResult<PathBuf> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(path.to_owned()) };
        Ok(self.resolve(parent)?.path.join(name))
    }
}

/// `path` below `start`, which may be empty: joining an empty path would add a slash.
fn below(start: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { start.to_owned() } else { start.join(path) }
}

fn split(path: &Path) -> StepResult<(&Path, &OsStr)> {
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => Ok((folder, name)),
        _ => Err(StepError::wrong("cannot replace the root directory with a file")),
    }
}
