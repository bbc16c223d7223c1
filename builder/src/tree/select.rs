//! COPY's source texts → what they name: globs, links, and what to say where there is nothing.

use super::{Tree, sorted_names};
use crate::ignore::Glob;
use crate::paths::{Found, Resolved};
use crate::step_error::{StepError, StepResult};
use rustix::fs::OFlags;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

/// How many matches a glob may have.
const MAX_MATCHES: usize = 100_000;

/// One thing to copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selected {
    /// As the user named it (or the glob matched it): its last part is the copy's name.
    pub(crate) named: PathBuf,
    /// Where it is, links followed.
    pub(crate) path: PathBuf,
    pub(crate) is_folder: bool,
}

impl Tree {
    /// What a source text names, in order. A plain path that is not there is an error, a glob without a match is not –
    /// `COPY app.toml app.lock* ./` takes what there is – but the folder that it looks into has to be there.
    pub(crate) fn select(&self, source: &str) -> StepResult<Vec<Selected>> {
        let mut globs = Vec::new();
        for component in Path::new(source).components() {
            match component {
                Component::Normal(name) => globs.push(name.to_string_lossy().into_owned()),
                // Going up from the root stays there.
                Component::ParentDir => drop(globs.pop()),
                _ => {}
            }
        }
        let parsed = globs.iter().map(|text| Glob::parse(text)).collect::<Result<Vec<_>, _>>();
        let parsed = parsed.map_err(|why| StepError::wrong(format!("{source:?} is no pattern: {why}")))?;
        let mut named = vec![PathBuf::new()];
        for glob in &parsed {
            named = match glob.literal() {
                Some(name) => named.into_iter().map(|path| path.join(&name)).collect(),
                None => self.matches(&named, glob)?,
            };
            if named.len() > MAX_MATCHES {
                return Err(StepError::wrong(format!("{source:?} matches more than {MAX_MATCHES} files")));
            }
        }
        let mut selected = Vec::new();
        for path in named {
            let Resolved { path: real, found } = self.resolve(&path)?;
            let ignored = self.rules.prunes(&real) || (self.rules.ignores(&real) && found != Some(Found::Folder));
            let Some(found) = found.filter(|_| !ignored) else { continue };
            selected.push(Selected { named: path, path: real, is_folder: found == Found::Folder });
        }
        let plain: PathBuf = parsed.iter().map_while(Glob::literal).collect();
        let is_glob = plain.components().count() < parsed.len();
        let may_be_empty = is_glob && self.resolve(&plain)?.found == Some(Found::Folder);
        if selected.is_empty() && !may_be_empty { Err(self.not_found(source)) } else { Ok(selected) }
    }

    fn matches(&self, folders: &[PathBuf], glob: &Glob) -> StepResult<Vec<PathBuf>> {
        let mut found = Vec::new();
        for folder in folders {
            let resolved = self.resolve(folder)?;
            if resolved.found != Some(Found::Folder) {
                continue;
            }
            let fd = self.open(&resolved.path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            let names = sorted_names(fd.as_fd()).map_err(|e| StepError::io("read", &resolved.path, e))?;
            let matching = names.into_iter().filter(|name| glob.matches(&name.to_string_lossy()));
            let visible = matching.map(|name| folder.join(name)).filter(|path| !self.rules.ignores(path));
            found.extend(visible);
        }
        Ok(found)
    }

    /// `"/x": not found`, with what would explain it.
    fn not_found(&self, source: &str) -> StepError {
        let shown = format!("/{}", source.trim_start_matches("./").trim_start_matches('/'));
        let message = format!("{shown:?}: not found in the {}", self.label);
        let path = Path::new(shown.trim_start_matches('/'));
        if path.starts_with("..") {
            return StepError::with_hint(message, format!("nothing outside of the {} can be copied", self.label));
        }
        if self.resolve(path).is_ok_and(|resolved| resolved.found.is_some()) {
            return StepError::with_hint(message, "the ignore file excludes it".to_owned());
        }
        let parent = path.parent().unwrap_or(Path::new(""));
        let near = self.resolve(parent).ok().filter(|resolved| resolved.found == Some(Found::Folder));
        let names = near.and_then(|resolved| {
            let fd = self.open(&resolved.path, OFlags::RDONLY | OFlags::DIRECTORY).ok()?;
            sorted_names(fd.as_fd()).ok()
        });
        let Some(names) = names else { return StepError::wrong(message) };
        let names: Vec<String> = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        let wanted = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let place = if parent.as_os_str().is_empty() { "it".to_owned() } else { parent.display().to_string() };
        let hint = match crate::instruction::nearest(&wanted, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near:?}?"),
            None if names.is_empty() => format!("{place} is empty"),
            None => {
                let shown: Vec<&str> = names.iter().take(8).map(String::as_str).collect();
                let more = if names.len() > 8 { ", …" } else { "" };
                format!("{place} holds {}{more}", shown.join(", "))
            }
        };
        StepError::with_hint(message, hint)
    }

    /// Opens a selected file for reading: a regular one, never a device.
    pub(crate) fn open_file(&self, selected: &Selected) -> StepResult<File> {
        let opened = linux::resolve::open_regular(self.root.as_fd(), &selected.path);
        opened.map(File::from).map_err(|e| StepError::io("open", &selected.path, e))
    }
}
