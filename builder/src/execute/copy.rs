//! COPY and ADD: what is copied, where to, under which key – and the copying.

use super::run::said_image;
use super::stage::Position;
use super::state::StageState;
use super::workdir::absolute;
use super::{Build, Step, users};
use crate::cache::Ingredients;
use crate::ignore::IgnoreRules;
use crate::instruction::{Chmod, CopyInstruction, heredoc_of_word};
use crate::layer::{LayerWriter, Placement, view};
use crate::paths::Found;
use crate::step_error::{StepError, StepResult};
use crate::tree::{Attributes, Kind, Manifest, Selected, Tree, is_archive};
use oci::Digest;
use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// A COPY with its variables substituted.
struct Copy<'c> {
    instruction: &'c CopyInstruction,
    sources: Vec<String>,
    destination: Destination,
    owner: Option<(u32, u32)>,
    chmod: Option<Chmod>,
    exclude: IgnoreRules,
    /// What of the above is text, for keys and the history.
    text: String,
}

/// Where a COPY goes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Destination {
    path: PathBuf,
    /// It ends in a slash, or otherwise says that it is a folder.
    is_folder: bool,
}

/// One thing to put into the layer.
enum Item {
    /// A heredoc.
    Bytes {
        name: String,
        bytes: Vec<u8>,
    },
    Files {
        selected: Selected,
        manifest: Manifest,
        relative: Option<PathBuf>,
    },
    Archive {
        selected: Selected,
        digest: Digest,
    },
}

impl Build<'_> {
    pub(super) fn copy_instruction(
        &self,
        stage: usize,
        state: &mut StageState,
        instruction: &CopyInstruction,
        step: &Step<'_, '_>,
        position: &Position<'_>,
        unset: &mut BTreeSet<String>,
    ) -> StepResult<bool> {
        let copy = Copy::new(state, instruction, unset)?;
        let keyword = if instruction.is_add { "ADD" } else { "COPY" };
        let created_by = format!("{keyword} {}", copy.text);
        let mut ingredients = Ingredients::new(keyword, &state.diff_ids());
        ingredients.add("to", copy.destination.path.display().to_string());
        ingredients.add("to a folder", copy.destination.is_folder.to_string());
        ingredients.add("parents", instruction.parents.to_string());
        ingredients.add("owner", format!("{:?}", copy.owner));
        ingredients.add("mode", format!("{:?}", copy.chmod));
        ingredients.add("time", format!("{:?} {}", self.request.source_date_epoch, state.folder_time_s));
        let Some(from) = &instruction.from else {
            let tree = self.context()?;
            let items = self.items(&copy, state, &tree, &mut ingredients)?;
            return self.layer(state, step, position, &ingredients, created_by, |state, upper| {
                self.fill_copy(state, upper, &copy, &tree, &items)
            });
        };
        let (tree, chain) = self.named_tree(stage, from, step)?;
        // What earlier stages hold is known by their layers: as long as those are the same, nothing need be read.
        let mut quick = ingredients.clone();
        quick.add("from", chain);
        quick.add("sources", copy.text.clone());
        if let Some(record) = self.cached(&quick)? {
            self.take(state, &record, created_by);
            return Ok(true);
        }
        let items = self.items(&copy, state, &tree, &mut ingredients)?;
        let cached = self.layer(state, step, position, &ingredients, created_by, |state, upper| {
            self.fill_copy(state, upper, &copy, &tree, &items)
        })?;
        // A no-cache build records too; what it made is under the full key now.
        if let Some(value) = self.engine.store().cache_get(&ingredients.key())?
            && let Ok(record) = serde_json::from_str(&value)
        {
            self.record(&quick, &record)?;
        }
        Ok(cached)
    }

    /// The files a `from` names, and what identifies them all.
    pub(super) fn named_tree(&self, stage: usize, from: &str, step: &Step<'_, '_>) -> StepResult<(Tree, String)> {
        let span = self.plan.stages[stage].from.span;
        let (label, layers) = match self.plan.find_stage(from, stage, span)? {
            Some(index) => (format!("stage {from}"), self.stage(index)?.layers.clone()),
            None => {
                let image = self.image(from, self.request.platform.as_ref(), step).map_err(|e| said_image(e, from))?.0;
                (format!("image {from}"), image.layers)
            }
        };
        let folders: Vec<PathBuf> = layers.iter().map(|layer| layer.folder.clone()).collect();
        let chain: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let root = match view(&folders)? {
            Some(root) => root,
            None => self.empty_root()?,
        };
        Ok((Tree::of_root(root, label), Digest::sha256(chain.join("\n")).to_string()))
    }

    /// A folder without anything in it: it stays valid by its descriptor after its name is gone.
    fn empty_root(&self) -> StepResult<std::os::fd::OwnedFd> {
        let scratch = self.engine.store().new_scratch()?;
        Ok(linux::resolve::open_root(scratch.path())?)
    }

    /// Lists and digests everything to be copied.
    fn items(
        &self,
        copy: &Copy<'_>,
        state: &StageState,
        tree: &Tree,
        ingredients: &mut Ingredients,
    ) -> StepResult<Vec<Item>> {
        let mut items = Vec::new();
        for source in &copy.sources {
            if let Some(heredoc) = heredoc_of_word(source, &copy.instruction.heredocs) {
                let body = if heredoc.expand { state.body(&heredoc.content)? } else { heredoc.content.clone() };
                ingredients.add(format!("text:{}", heredoc.name), body.clone());
                items.push(Item::Bytes { name: heredoc.name.clone(), bytes: body.into_bytes() });
                continue;
            }
            refuse_remote(source, copy.instruction.is_add)?;
            for selected in tree.select(source)? {
                let manifest = Manifest::of(tree, &selected.path, &copy.exclude)?;
                note_files(ingredients, &selected, &manifest);
                let item = copy.item(tree, source, selected, manifest)?;
                ingredients.add(format!("source:{}", item.name()), item.digest(copy));
                items.push(item);
            }
        }
        Ok(items)
    }

    fn fill_copy(
        &self,
        state: &StageState,
        upper: &Path,
        copy: &Copy<'_>,
        tree: &Tree,
        items: &[Item],
    ) -> StepResult<bool> {
        let below = view(&state.folders())?;
        let latest = self.request.source_date_epoch;
        let owner = copy.owner.unwrap_or((0, 0));
        let mut writer = LayerWriter::new(upper, below, owner, state.folder_time_s, latest)?;
        let destination = &copy.destination;
        let found = writer.resolve(&destination.path)?.found;
        let into_folder = destination.is_folder || found == Some(Found::Folder);
        if items.len() > 1 && !into_folder && !copy.instruction.parents {
            return Err(several_sources(copy.instruction.is_add));
        }
        let placement = Placement { owner: copy.owner, chmod: copy.chmod.clone(), follow_links: false };
        for item in items {
            let (name, is_folder) = match item {
                Item::Bytes { name, .. } => (PathBuf::from(name), false),
                Item::Files { relative: Some(relative), .. } => (relative.clone(), true),
                Item::Files { selected, .. } => (PathBuf::from(item.name()), selected.is_folder),
                Item::Archive { .. } => (PathBuf::new(), true),
            };
            let target = match item {
                Item::Files { relative: Some(_), .. } => destination.path.join(&name),
                _ if into_folder && !is_folder => destination.path.join(&name),
                _ => destination.path.clone(),
            };
            let target = writer.resolve(&target)?.path;
            match item {
                Item::Bytes { bytes, .. } => {
                    let mode = copy.chmod.as_ref().map_or(0o644, |chmod| chmod.apply(0o644, false));
                    let (uid, gid) = owner;
                    let attributes =
                        Attributes { mode, uid, gid, mtime_s: state.folder_time_s, ..Attributes::default() };
                    writer.bytes(&target, bytes, &attributes)?;
                }
                Item::Files { selected, manifest, .. } => {
                    writer.copy(tree, &selected.path, manifest, &target, &placement)?;
                }
                Item::Archive { selected, .. } => {
                    writer.make_folders(&target)?;
                    writer.unpack(tree.open_file(selected)?, &target, copy.owner)?;
                }
            }
        }
        Ok(!writer.finish()?)
    }
}

impl<'c> Copy<'c> {
    fn new(state: &StageState, instruction: &'c CopyInstruction, unset: &mut BTreeSet<String>) -> StepResult<Copy<'c>> {
        let mut expand = |text: &String| state.word(text, unset);
        let mut sources = Vec::new();
        for source in &instruction.sources {
            let is_heredoc = heredoc_of_word(source, &instruction.heredocs).is_some();
            sources.push(if is_heredoc { source.clone() } else { expand(source)? });
        }
        let target = expand(&instruction.destination)?;
        let chown = instruction.chown.as_ref().map(&mut expand).transpose()?;
        let chmod = instruction.chmod.as_ref().map(&mut expand).transpose()?;
        let exclude = instruction.exclude.iter().map(&mut expand).collect::<Result<Vec<_>, _>>()?;
        let destination = Destination::new(state.working_dir(), &target);
        if sources.len() > 1 && !destination.is_folder {
            return Err(several_sources(instruction.is_add));
        }
        let owner = match &chown {
            None => None,
            Some(text) => {
                let root = view(&state.folders())?;
                Some(users::owner(text, root.as_ref().map(AsFd::as_fd))?)
            }
        };
        let parse_chmod = |text: &String| {
            let hint = "write octal digits as 755, or letters as u+x";
            Chmod::parse(text).ok_or_else(|| StepError::with_hint(format!("invalid chmod parameter: {text:?}"), hint))
        };
        let parsed_chmod = chmod.as_ref().map(parse_chmod).transpose()?;
        let rules =
            IgnoreRules::parse(&exclude.join("\n")).map_err(|error| StepError::wrong(format!("--exclude: {error}")))?;
        let mut text = String::new();
        for (flag, value) in [("from", &instruction.from), ("chown", &chown), ("chmod", &chmod)] {
            if let Some(value) = value {
                text.push_str(&format!("--{flag}={value} "));
            }
        }
        exclude.iter().for_each(|pattern| text.push_str(&format!("--exclude={pattern} ")));
        text.push_str(&format!("{} {target}", sources.join(" ")));
        Ok(Copy { instruction, sources, destination, owner, chmod: parsed_chmod, exclude: rules, text })
    }

    fn item(&self, tree: &Tree, source: &str, selected: Selected, manifest: Manifest) -> StepResult<Item> {
        if self.instruction.is_add && !selected.is_folder && self.instruction.unpack != Some(false) {
            let mut file = tree.open_file(&selected)?;
            let archive = is_archive(&mut file).map_err(|e| StepError::io("read", &selected.path, e))?;
            if archive && let Some(Kind::File { digest }) = manifest.entries.first().map(|entry| entry.kind.clone()) {
                return Ok(Item::Archive { selected, digest });
            }
        }
        let relative = self.instruction.parents.then(|| {
            let skipped = source.split_once("/./").map_or(0, |(before, _)| Path::new(before).components().count());
            selected.named.components().skip(skipped).collect::<PathBuf>()
        });
        Ok(Item::Files { selected, manifest, relative })
    }
}

impl Item {
    /// The name it gets in a destination folder.
    fn name(&self) -> String {
        match self {
            Item::Bytes { name, .. } => name.clone(),
            Item::Files { selected, .. } | Item::Archive { selected, .. } => {
                let name = selected.named.file_name().or_else(|| selected.path.file_name()).unwrap_or_default();
                name.to_string_lossy().into_owned()
            }
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
        }
    }
}

impl Destination {
    fn new(working_dir: &str, text: &str) -> Destination {
        let is_folder =
            text.ends_with('/') || matches!(text, "" | "." | "..") || text.ends_with("/.") || text.ends_with("/..");
        Destination { path: absolute(working_dir, text), is_folder }
    }
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

fn several_sources(is_add: bool) -> StepError {
    let keyword = if is_add { "ADD" } else { "COPY" };
    StepError::wrong(format!(
        "When using {keyword} with more than one source file, the destination must be a directory and end with a /"
    ))
}

fn refuse_remote(source: &str, is_add: bool) -> StepResult<()> {
    let lower = source.to_ascii_lowercase();
    let remote = ["http://", "https://", "git://", "ssh://", "git@"].iter().any(|scheme| lower.starts_with(scheme));
    if is_add && remote {
        let hint = "fetch it in a RUN step, or beforehand into the context";
        return Err(StepError::with_hint(format!("ADD from a URL is not supported yet: {source}"), hint));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_says_whether_it_is_a_folder() {
        for (folder, text, path, is_folder) in [
            ("/", "a", "/a", false),
            ("/", "a/", "/a", true),
            ("/w", ".", "/w", true),
            ("/w", "./", "/w", true),
            ("/w", "./x", "/w/x", false),
            ("/w", "..", "/", true),
            ("/w", "/x/.", "/x", true),
            ("/w", "/x/../y", "/y", false),
            ("/w", "../../../y", "/y", false),
        ] {
            let expected = Destination { path: PathBuf::from(path), is_folder };
            assert_eq!(Destination::new(folder, text), expected, "{folder} {text}");
        }
    }
}
