//! What COPY and ADD take: files of a tree, archives, heredocs, files at URLs, git repositories.

use super::copy::Copy;
use super::state::StageState;
use super::{Build, Step};
use crate::cache::Ingredients;
use crate::event::OutputStream;
use crate::fetch::{GitContext, RemoteFile, is_url, progress};
use crate::ignore::IgnoreRules;
use crate::instruction::heredoc_of_word;
use crate::layer::{LayerWriter, Placement, is_archive};
use crate::step_error::{StepError, StepResult};
use crate::tree::{Attributes, Kind, Manifest, Selected, Tree};
use oci::Digest;
use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// A file that came from a URL has this mode, as docker's.
const REMOTE_MODE: u32 = 0o600;
const HEREDOC_MODE: u32 = 0o644;

/// One thing to put into the layer.
pub(super) enum Item {
    /// A heredoc.
    Bytes { name: String, bytes: Vec<u8> },
    /// Files of the tree the instruction copies from. `relative`: where below the destination, if `--parents` says so.
    Files { selected: Selected, manifest: Manifest, relative: Option<PathBuf> },
    /// An archive of that tree, to be unpacked.
    Archive { selected: Selected, digest: Digest },
    /// A file at a URL.
    Remote { file: RefCell<RemoteFile>, unpack: bool },
    /// The files of a commit.
    Git { source: GitContext, commit: Option<String>, keep_git_dir: bool },
}

impl Build<'_> {
    /// Lists and digests everything to be copied.
    pub(super) fn items(
        &self,
        copy: &Copy<'_>,
        state: &StageState,
        tree: impl FnOnce() -> StepResult<std::sync::Arc<Tree>>,
        step: &Step<'_, '_>,
        ingredients: &mut Ingredients,
    ) -> StepResult<(Vec<Item>, Option<std::sync::Arc<Tree>>)> {
        let (mut items, mut opened, mut open) = (Vec::new(), None, Some(tree));
        for source in &copy.sources {
            if let Some(heredoc) = heredoc_of_word(source, &copy.instruction.heredocs) {
                let body = if heredoc.expand { state.body(&heredoc.content)? } else { heredoc.content.clone() };
                ingredients.add(format!("text:{}", heredoc.name), body.clone());
                items.push(Item::Bytes { name: heredoc.name.clone(), bytes: body.into_bytes() });
                continue;
            }
            if let Some(item) = self.remote_item(copy, source, step)? {
                ingredients.add(format!("source:{source}"), item.digest(copy));
                items.push(item);
                continue;
            }
            if let Some(open) = open.take() {
                opened = Some(open()?);
            }
            let Some(tree) = &opened else { continue };
            for selected in tree.select(source)? {
                let manifest = Manifest::of(tree, &selected.path, &copy.exclude)?;
                note_files(ingredients, &selected, &manifest);
                let item = local_item(copy, tree, source, selected, manifest)?;
                ingredients.add(format!("source:{}", as_text(&item.name())), item.digest(copy));
                items.push(item);
            }
        }
        if items.is_empty() {
            let said = format!("nothing matches {}: nothing is copied\n", copy.sources.join(" "));
            step.output(OutputStream::Stderr, said.as_bytes());
        }
        Ok((items, opened))
    }

    /// What ADD fetches; None: the source is a path.
    fn remote_item(&self, copy: &Copy<'_>, source: &str, step: &Step<'_, '_>) -> StepResult<Option<Item>> {
        let (instruction, checksum) = (copy.instruction, copy.checksum.as_deref());
        let is_repository = crate::fetch::is_url_of_a_repository(source);
        if !is_repository && !is_url(source) {
            if checksum.is_some() {
                return Err(StepError::wrong("checksum can't be specified for local sources: only for URLs"));
            }
            return Ok(None);
        }
        if !instruction.is_add {
            let hint = "use ADD, which fetches it";
            return Err(StepError::with_hint(format!("source can't be a URL for COPY: {source}"), hint));
        }
        if checksum.is_some() && copy.sources.len() > 1 {
            return Err(StepError::wrong("checksum can't be specified for several sources"));
        }
        if let Some(git) = GitContext::parse(source).filter(|_| is_repository) {
            let source = git.expecting(checksum);
            let commit = source.commit()?;
            let keep_git_dir = instruction.keep_git_dir.unwrap_or_else(|| source.keeps_git_dir());
            return Ok(Some(Item::Git { source, commit, keep_git_dir }));
        }
        let wanted = checksum.map(|text| {
            let hint = "write sha256: and 64 digits";
            text.parse::<Digest>().map_err(|e| StepError::with_hint(format!("--checksum: {e}"), hint))
        });
        let wanted = wanted.transpose()?;
        let report = |done, total| self.event(progress(step.id, done, total));
        let fresh = self.request.no_cache;
        let file = RemoteFile::find(self.engine, source, wanted.as_ref(), fresh, &report)?;
        Ok(Some(Item::Remote { file: RefCell::new(file), unpack: instruction.unpack == Some(true) }))
    }

    /// Writes one thing to the resolved path `target`.
    pub(super) fn put(
        &self,
        writer: &mut LayerWriter,
        copy: &Copy<'_>,
        tree: Option<&Tree>,
        item: &Item,
        target: &Path,
        step: &Step<'_, '_>,
    ) -> StepResult<()> {
        let placement = Placement { owner: copy.owner, chmod: copy.chmod.clone(), ..Placement::default() };
        let (uid, gid) = copy.owner.unwrap_or((0, 0));
        let plain = |mode: u32, mtime_s| {
            let mode = copy.chmod.as_ref().map_or(mode, |chmod| chmod.apply(mode, false));
            Attributes { mode, uid, gid, mtime_s, ..Attributes::default() }
        };
        let tree = || tree.ok_or_else(|| StepError::wrong("nothing to copy from"));
        match item {
            Item::Bytes { bytes, .. } => writer.bytes(target, bytes, &plain(HEREDOC_MODE, copy.time_s)),
            Item::Files { selected, manifest, relative } => {
                let placement = Placement { contents_only: relative.is_none(), ..placement };
                writer.copy(tree()?, &selected.path, manifest, target, &placement)
            }
            Item::Archive { selected, .. } => {
                writer.make_folders(target)?;
                writer.unpack(&mut tree()?.open_file(selected)?, target, copy.owner)
            }
            Item::Remote { file, unpack } => {
                let report = |done, total| self.event(progress(step.id, done, total));
                let mut remote = file.borrow_mut();
                let modified_s = remote.known.modified_s;
                let file = remote.open(self.engine, &report)?;
                if *unpack && is_archive(file).map_err(|e| StepError::io("read", target, e))? {
                    writer.make_folders(target)?;
                    return writer.unpack(file, target, copy.owner);
                }
                writer.stream(target, file, &plain(REMOTE_MODE, modified_s))
            }
            Item::Git { source, commit, keep_git_dir } => {
                let scratch = self.engine.store().new_scratch()?;
                let work = scratch.path().join("repository");
                std::fs::create_dir(&work).map_err(|e| StepError::io("make the folder", &work, e))?;
                let (folder, found, time) = source.check_out(&work, *keep_git_dir)?;
                if commit.as_ref().is_some_and(|commit| *commit != found) {
                    return Err(StepError::with_hint("the repository moved on during the build", "build again"));
                }
                let tree = Tree::context(&folder, IgnoreRules::default())?;
                let manifest = Manifest::of(&tree, Path::new(""), &copy.exclude)?;
                writer.copy(&tree, Path::new(""), &manifest, target, &Placement { time_s: Some(time), ..placement })
            }
        }
    }
}

fn local_item(copy: &Copy<'_>, tree: &Tree, source: &str, selected: Selected, manifest: Manifest) -> StepResult<Item> {
    let kind = manifest.entries.first().map(|entry| entry.kind.clone());
    if copy.instruction.is_add
        && copy.instruction.unpack != Some(false)
        && !selected.is_folder
        && let Some(Kind::File { digest }) = kind
    {
        let mut file = tree.open_file(&selected)?;
        if is_archive(&mut file).map_err(|e| StepError::io("read", &selected.path, e))? {
            return Ok(Item::Archive { selected, digest });
        }
    }
    let relative = copy.instruction.parents.then(|| {
        let skipped = source.split_once("/./").map_or(0, |(before, _)| Path::new(before).components().count());
        selected.named.components().skip(skipped).collect::<PathBuf>()
    });
    Ok(Item::Files { selected, manifest, relative })
}

impl Item {
    /// The name it gets in a destination folder; empty where it has none.
    pub(super) fn name(&self) -> OsString {
        match self {
            Item::Bytes { name, .. } => name.into(),
            Item::Files { selected, .. } | Item::Archive { selected, .. } => {
                selected.named.file_name().or_else(|| selected.path.file_name()).unwrap_or_default().to_owned()
            }
            Item::Remote { file, .. } => file.borrow().known.name.clone().unwrap_or_default().into(),
            Item::Git { .. } => OsString::new(),
        }
    }

    /// Where it goes below the destination, and whether what goes there is a folder's content. `into_folder`: the
    /// destination is a folder.
    pub(super) fn place(&self, destination: &Path, into_folder: bool) -> StepResult<PathBuf> {
        let is_folder = match self {
            Item::Files { relative: Some(relative), .. } => return Ok(destination.join(relative)),
            Item::Files { selected, .. } => selected.is_folder,
            Item::Archive { .. } | Item::Git { .. } => true,
            Item::Remote { unpack, .. } => *unpack,
            Item::Bytes { .. } => false,
        };
        if is_folder || !into_folder {
            return Ok(destination.to_owned());
        }
        match self.name() {
            name if name.is_empty() => {
                let hint = "write the file's name into the destination";
                Err(StepError::with_hint("cannot determine filename for the URL", hint))
            }
            name => Ok(destination.join(name)),
        }
    }

    fn digest(&self, copy: &Copy<'_>) -> String {
        match self {
            Item::Bytes { bytes, .. } => Digest::sha256(bytes).to_string(),
            // A folder's own name does not matter: its content is copied.
            Item::Files { manifest, relative, selected } => {
                let digest = manifest.digest(copy.owner, copy.chmod.as_ref());
                format!("{digest} {relative:?} {}", if selected.is_folder { "folder" } else { "file" })
            }
            Item::Archive { digest, .. } => format!("{digest} archive"),
            Item::Remote { file, unpack } => {
                let known = &file.borrow().known;
                format!("{} {:?} {unpack}", known.digest, known.name)
            }
            // What only fetching would tell is never a hit: the clock is its key.
            Item::Git { source, commit, keep_git_dir } => match commit {
                Some(commit) => format!("{commit} {} {keep_git_dir} {:?}", source.identity(), copy.excluded),
                None => format!("unknown commit at {:?}", std::time::SystemTime::now()),
            },
        }
    }
}

/// The name for keys: one that is no text in quotes, each byte told.
fn as_text(name: &OsStr) -> String {
    name.to_str().map_or_else(|| format!("{name:?}"), str::to_owned)
}

/// Names and digests for the explanation of a later miss.
fn note_files(ingredients: &mut Ingredients, selected: &Selected, manifest: &Manifest) {
    for entry in &manifest.entries {
        let mut path = selected.named.display().to_string();
        if !entry.path.as_os_str().is_empty() {
            path = Path::new(&path).join(&entry.path).display().to_string();
        }
        let what = match &entry.kind {
            Kind::File { digest } => digest.short().to_owned(),
            Kind::Link { target } => target.display().to_string(),
            Kind::Folder => "folder".to_owned(),
            Kind::Special { device, .. } => device.to_string(),
        };
        ingredients.note_file(path, &format!("{what} {:o}", entry.attributes.mode));
    }
}
