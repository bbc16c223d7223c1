//! ADD's archives: a tar, perhaps compressed, unpacked into a layer. Whatever names and links it holds, nothing is
//! written but beneath the root.

use super::{LayerWriter, shown};
use crate::step_error::{StepError, StepResult};
use crate::tree::Attributes;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Component, Path, PathBuf};
use tar::{Archive, EntryType, Header};

/// More entries than any real archive has.
const MAX_ENTRIES: usize = 5_000_000;

impl LayerWriter {
    /// Unpacks an archive into the folder `to` (resolved, made). Owners are the archive's unless given.
    pub(crate) fn unpack(&mut self, mut file: File, to: &Path, owner: Option<(u32, u32)>) -> StepResult<()> {
        let fail = |e: io::Error| StepError::io("read the archive", to, e);
        let mut head = [0; 6];
        let len = file.read(&mut head).map_err(fail)?;
        file.rewind().map_err(fail)?;
        let reader = BufReader::with_capacity(128 << 10, file);
        match &head[..len] {
            [0x1f, 0x8b, ..] => self.unpack_tar(flate2::bufread::MultiGzDecoder::new(reader), to, owner),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                let decoder = zstd::stream::read::Decoder::with_buffer(reader).map_err(fail)?;
                self.unpack_tar(decoder, to, owner)
            }
            [b'B', b'Z', b'h', ..] | [0xfd, b'7', b'z', ..] => {
                let hint = "compress it with gzip or zstd, or unpack it in a RUN step";
                Err(StepError::with_hint("ADD cannot unpack bzip2 and xz archives yet", hint))
            }
            _ => self.unpack_tar(reader, to, owner),
        }
    }

    fn unpack_tar(&mut self, reader: impl Read, to: &Path, owner: Option<(u32, u32)>) -> StepResult<()> {
        let fail = |e: io::Error| StepError::io("unpack the archive into", shown(to), e);
        let mut archive = Archive::new(reader);
        for (count, entry) in archive.entries().map_err(fail)?.enumerate() {
            if count > MAX_ENTRIES {
                return Err(StepError::wrong(format!("an archive has more than {MAX_ENTRIES} entries")));
            }
            let mut entry = entry.map_err(fail)?;
            let name = beneath(&entry.path().map_err(fail)?)?;
            let attributes = attributes(entry.header(), owner).map_err(fail)?;
            let kind = entry.header().entry_type();
            if name.as_os_str().is_empty() {
                continue;
            }
            let target = self.followed(&to.join(&name), kind == EntryType::Directory)?;
            match kind {
                EntryType::Directory => self.replace_with_folder(&target, &attributes)?,
                EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                    let mut out = self.create(&target)?;
                    io::copy(&mut entry, &mut out).map_err(|e| StepError::io("write", shown(&target), e))?;
                    self.set_attributes(std::os::fd::AsFd::as_fd(&out), &attributes)
                        .map_err(|e| StepError::io("set up", shown(&target), e))?;
                }
                EntryType::Symlink => {
                    let text = link_name(&entry).map_err(fail)?;
                    self.link(&target, &text, &attributes)?;
                }
                EntryType::Link => {
                    let first = beneath(&link_name(&entry).map_err(fail)?)?;
                    let first = self.parent_followed(&to.join(first))?;
                    self.hard_link(&first, &target)?;
                }
                EntryType::Fifo => self.special(&target, 0o010_000, 0, &attributes)?,
                EntryType::Char | EntryType::Block => {
                    let file_type = if kind == EntryType::Char { 0o020_000 } else { 0o060_000 };
                    let header = entry.header();
                    let (major, minor) = (header.device_major().map_err(fail)?, header.device_minor().map_err(fail)?);
                    let device = rustix::fs::makedev(major.unwrap_or(0), minor.unwrap_or(0));
                    self.special(&target, file_type, device, &attributes)?;
                }
                // Global headers and whatever a later tar may invent.
                _ => {}
            }
        }
        Ok(())
    }

    /// A folder of an archive takes the place of a file or link of this layer or below.
    fn replace_with_folder(&mut self, path: &Path, attributes: &Attributes) -> StepResult<()> {
        self.folder(path, attributes, false)
    }
}

/// A name of an archive as a path that cannot lead up: leading slashes are dropped, `..` is an error.
fn beneath(path: &Path) -> StepResult<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => {
                let message = format!("an archive's entry leads out of it: {}", path.display());
                return Err(StepError::wrong(message));
            }
        }
    }
    Ok(clean)
}

fn link_name<R: Read>(entry: &tar::Entry<'_, R>) -> io::Result<PathBuf> {
    let name = entry.link_name()?.ok_or_else(|| io::Error::other("a link without a target"))?;
    Ok(name.into_owned())
}

fn attributes(header: &Header, owner: Option<(u32, u32)>) -> io::Result<Attributes> {
    let id = |value: u64| u32::try_from(value).map_err(|_| io::Error::other("an owner's id is too large"));
    let (uid, gid) = match owner {
        Some(owner) => owner,
        None => (id(header.uid()?)?, id(header.gid()?)?),
    };
    let mtime_s = i64::try_from(header.mtime()?).unwrap_or(0);
    Ok(Attributes { mode: header.mode()? & 0o7777, uid, gid, mtime_s, ..Attributes::default() })
}
