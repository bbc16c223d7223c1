//! WORKDIR: the folder later instructions are in, made where missing.

use super::stage::Position;
use super::state::StageState;
use super::{Build, Step, users};
use crate::cache::Ingredients;
use crate::layer::{LayerWriter, view};
use crate::paths::Found;
use crate::step_error::{StepError, StepResult};
use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

impl Build<'_> {
    pub(super) fn workdir_instruction(
        &self,
        state: &mut StageState,
        text: &str,
        step: &Step<'_, '_>,
        position: &Position<'_>,
        unset: &mut BTreeSet<String>,
    ) -> StepResult<bool> {
        let text = state.word(text, unset)?;
        // Of variables that are empty it is the folder it was: what was not set is warned of.
        let path = absolute(state.working_dir(), &text);
        state.config.config.working_dir = path.display().to_string();
        let user = state.config.config.user.clone();
        let mut ingredients = Ingredients::new("WORKDIR", &state.diff_ids());
        ingredients.add("path", path.display().to_string());
        ingredients.add("user", &user);
        let latest = self.request.source_date_epoch;
        ingredients.add("time", state.folder_time_s.to_string());
        let created_by = format!("WORKDIR {}", path.display());
        self.layer(state, step, position, &ingredients, created_by, |state, upper| {
            let below = view(&state.folders())?;
            let owner = users::owner(&user, below.as_ref().map(AsFd::as_fd))?;
            let mut writer = LayerWriter::new(upper, below, owner, state.folder_time_s, latest)?;
            let resolved = writer.resolve(&path)?;
            match resolved.found {
                Some(Found::Folder) => {}
                None => writer.make_folders(&resolved.path)?,
                Some(_) => return Err(StepError::wrong(format!("WORKDIR {}: not a directory", path.display()))),
            }
            writer.finish()?;
            Ok(true)
        })
    }
}

/// `path` in `folder`, with `.` and `..` undone as text, as docker does.
pub(super) fn absolute(folder: &str, path: &str) -> PathBuf {
    let mut done = PathBuf::from("/");
    for component in Path::new(folder).join(path).components() {
        match component {
            Component::Normal(name) => done.push(name),
            Component::ParentDir => {
                done.pop();
            }
            _ => {}
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_folders_add_up() {
        for (folder, path, expected) in [
            ("/", "a", "/a"),
            ("/a", "b/c", "/a/b/c"),
            ("/a", "/b", "/b"),
            ("/a/b", "../c/./d", "/a/c/d"),
            ("/", "..", "/"),
        ] {
            assert_eq!(absolute(folder, path), Path::new(expected));
        }
    }
}
