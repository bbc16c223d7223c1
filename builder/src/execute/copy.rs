//! COPY and ADD: what is copied, where to, under which key – and the copying.

use super::items::Item;
use super::stage::Position;
use super::state::StageState;
use super::workdir::absolute;
use super::{Build, Step, users};
use crate::cache::Ingredients;
use crate::ignore::IgnoreRules;
use crate::instruction::{Chmod, CopyInstruction, heredoc_of_word};
use crate::layer::{LayerWriter, view};
use crate::paths::Found;
use crate::step_error::{StepError, StepResult};
use crate::tree::Tree;
use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// A COPY with its variables substituted.
pub(super) struct Copy<'c> {
    pub(super) instruction: &'c CopyInstruction,
    pub(super) sources: Vec<String>,
    destination: Destination,
    pub(super) owner: Option<(u32, u32)>,
    pub(super) chmod: Option<Chmod>,
    pub(super) exclude: IgnoreRules,
    /// The same as it is written.
    pub(super) excluded: Vec<String>,
    pub(super) checksum: Option<String>,
    /// Of folders made on the way, and of heredocs.
    pub(super) time_s: i64,
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
        if instruction.chown.is_some() {
            // Names are looked up in the stage.
            self.make_whole(state)?;
        }
        let mut copy = Copy::new(state, instruction, unset)?;
        if instruction.link {
            copy.time_s = self.request.source_date_epoch.unwrap_or(0);
        }
        let keyword = if instruction.is_add { "ADD" } else { "COPY" };
        let created_by = format!("{keyword} {}", copy.text);
        let below = if instruction.link { Vec::new() } else { state.diff_ids() };
        let mut ingredients = Ingredients::new(keyword, &below);
        ingredients.add("to", copy.destination.path.display().to_string());
        ingredients.add("to a folder", copy.destination.is_folder.to_string());
        ingredients.add("parents", instruction.parents.to_string());
        ingredients.add("owner", format!("{:?}", copy.owner));
        ingredients.add("mode", format!("{:?}", copy.chmod));
        ingredients.add("time", format!("{:?} {}", self.request.source_date_epoch, copy.time_s));
        let source = || self.source(stage, instruction.from.as_deref(), step);
        if instruction.from.is_none() {
            let (items, tree) = self.items(&copy, state, || Ok(source()?.tree), step, &mut ingredients)?;
            return self.layer(state, step, position, &ingredients, created_by, |state, upper| {
                self.fill_copy(state, upper, &copy, tree.as_deref(), &items, step)
            });
        }
        // What earlier stages hold is known by their layers: as long as those are the same, nothing need be read.
        let (mut opened, chain) = match self.stage_chain(stage, instruction.from.as_deref())? {
            Some(chain) => (None, Some(chain)),
            None => {
                let source = source()?;
                (Some(source.tree), source.chain)
            }
        };
        let mut quick = ingredients.clone();
        quick.add("sources", copy.text.clone());
        if let Some(chain) = &chain {
            quick.add("from", chain);
            if let Some(hit) = self.cached(&quick, position)? {
                self.take(state, hit, created_by);
                return Ok(true);
            }
        }
        let tree = || opened.take().map_or_else(|| Ok(source()?.tree), Ok);
        let (items, tree) = self.items(&copy, state, tree, step, &mut ingredients)?;
        let cached = self.layer(state, step, position, &ingredients, created_by, |state, upper| {
            self.fill_copy(state, upper, &copy, tree.as_deref(), &items, step)
        })?;
        // A no-cache build records too; what it made is under the full key now.
        if chain.is_some()
            && let Some(value) = self.engine.store().cache_get(&ingredients.key())?
            && let Ok(record) = serde_json::from_str(&value)
        {
            self.record(&quick.key(), &record)?;
            self.note_record(quick.key(), &record, position);
        }
        Ok(cached)
    }

    fn fill_copy(
        &self,
        state: &StageState,
        upper: &Path,
        copy: &Copy<'_>,
        tree: Option<&Tree>,
        items: &[Item],
        step: &Step<'_, '_>,
    ) -> StepResult<bool> {
        // A linked copy knows nothing of what it will lie on.
        let below = if copy.instruction.link { None } else { view(&state.folders())? };
        let latest = self.request.source_date_epoch;
        let owner = copy.owner.unwrap_or((0, 0));
        let mut writer = LayerWriter::new(upper, below, owner, copy.time_s, latest)?;
        let destination = &copy.destination;
        let found = writer.resolve(&destination.path)?.found;
        let into_folder = destination.is_folder || found == Some(Found::Folder);
        if items.len() > 1 && !into_folder && !copy.instruction.parents {
            return Err(several_sources(copy.instruction.is_add));
        }
        for item in items {
            let target = writer.resolve(&item.place(&destination.path, into_folder)?)?.path;
            self.put(&mut writer, copy, tree, item, &target, step)?;
        }
        Ok(!writer.finish()?)
    }
}

impl<'c> Copy<'c> {
    pub(super) fn new(
        state: &StageState,
        instruction: &'c CopyInstruction,
        unset: &mut BTreeSet<String>,
    ) -> StepResult<Copy<'c>> {
        let mut expand = |text: &String| state.word(text, unset);
        let mut sources = Vec::new();
        for source in &instruction.sources {
            let is_heredoc = heredoc_of_word(source, &instruction.heredocs).is_some();
            sources.push(if is_heredoc { source.clone() } else { expand(source)? });
        }
        let target = expand(&instruction.destination)?;
        let chown = instruction.chown.as_ref().map(&mut expand).transpose()?;
        let chmod = instruction.chmod.as_ref().map(&mut expand).transpose()?;
        let checksum = instruction.checksum.as_ref().map(&mut expand).transpose()?;
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
        for (flag, value) in
            [("from", &instruction.from), ("chown", &chown), ("chmod", &chmod), ("checksum", &checksum)]
        {
            if let Some(value) = value {
                text.push_str(&format!("--{flag}={value} "));
            }
        }
        exclude.iter().for_each(|pattern| text.push_str(&format!("--exclude={pattern} ")));
        text.push_str(&format!("{} {target}", sources.join(" ")));
        Ok(Copy {
            instruction,
            sources,
            destination,
            owner,
            chmod: parsed_chmod,
            exclude: rules,
            excluded: exclude,
            checksum,
            time_s: state.folder_time_s,
            text,
        })
    }
}

impl Destination {
    fn new(working_dir: &str, text: &str) -> Destination {
        let is_folder =
            text.ends_with('/') || matches!(text, "" | "." | "..") || text.ends_with("/.") || text.ends_with("/..");
        Destination { path: absolute(working_dir, text), is_folder }
    }
}

fn several_sources(is_add: bool) -> StepError {
    let keyword = if is_add { "ADD" } else { "COPY" };
    StepError::wrong(format!(
        "When using {keyword} with more than one source file, the destination must be a directory and end with a /"
    ))
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
