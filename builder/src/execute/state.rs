//! A stage on its way: its layers, its config, and the variables its instructions see.

use crate::expand::{ExpandError, Expander, MAX_ALL_BYTES};
use crate::instruction::nearest;
use oci::{Digest, History, ImageConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A layer: its digest and the `fs` folder it lies in.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) diff_id: Digest,
    pub(super) folder: PathBuf,
}

/// What a stage has become so far, and at its end its result.
#[derive(Clone, Debug)]
pub(crate) struct StageState {
    pub(super) layers: Vec<Layer>,
    /// The image's config, all but its layers and dates.
    pub(super) config: ImageConfig,
    /// ARGs that have a value here and no later ENV's.
    pub(super) args: BTreeMap<String, String>,
    /// The names of all ARGs there were, with a value or without, in order.
    pub(super) declared: Vec<String>,
    /// This stage set CMD itself: its ENTRYPOINT leaves it alone.
    pub(super) cmd_set: bool,
    /// History entries whose date is that of the whole image.
    pub(super) undated: Vec<usize>,
    pub(super) base: Below,
    /// Layers that are known, but not here, by their cache keys: other machines' results that nobody has asked a file of yet.
    pub(super) missing: Vec<(String, Option<Digest>)>,
    /// The time folders made by the builder get, in seconds since 1970.
    pub(super) folder_time_s: i64,
    pub(super) escape: char,
    /// Of all that was substituted so far, here and in the stages this one is built on.
    pub(super) expanded_bytes: Arc<AtomicUsize>,
}

/// What of a stage is its FROM's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Below {
    /// How many of the layers.
    pub(super) layers: usize,
    /// How many of the history's entries.
    pub(super) entries: usize,
    /// The image it is, if it is one.
    pub(super) image: Option<Digest>,
}

impl StageState {
    /// What a stage FROM this one begins with: its ARGs too, but what ENV says comes first again.
    pub(super) fn inherited(&self) -> StageState {
        let mut args = self.args.clone();
        args.retain(|name, _| self.env(name).is_none());
        StageState { args, cmd_set: false, base: Below::default(), ..self.clone() }
    }

    pub(super) fn diff_ids(&self) -> Vec<Digest> {
        self.layers.iter().map(|layer| layer.diff_id.clone()).collect()
    }

    pub(super) fn folders(&self) -> Vec<PathBuf> {
        self.layers.iter().map(|layer| layer.folder.clone()).collect()
    }

    /// The value of a variable: of ENV and ARG the later counts.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        self.args.get(name).cloned().or_else(|| self.env(name).map(str::to_owned))
    }

    pub(super) fn env(&self, name: &str) -> Option<&str> {
        let entry = |line: &'_ String| line.split_once('=').is_some_and(|(key, _)| key == name);
        self.config.config.env.iter().rev().find(|line| entry(line)).and_then(|line| Some(line.split_once('=')?.1))
    }

    /// The variable that was meant by a name that none has.
    pub(super) fn near(&self, name: &str) -> Option<&str> {
        let env = self.config.config.env.iter().filter_map(|line| Some(line.split_once('=')?.0));
        nearest(name, env.chain(self.args.keys().map(String::as_str)))
    }

    pub(super) fn set_env(&mut self, name: &str, value: &str) {
        self.args.remove(name);
        let line = format!("{name}={value}");
        let env = &mut self.config.config.env;
        match env.iter_mut().find(|old| old.split_once('=').is_some_and(|(key, _)| key == name)) {
            Some(old) => *old = line,
            None => env.push(line),
        }
    }

    /// Expands one text, adding to `unset` what it asked for in vain.
    pub(super) fn word(&self, text: &str, unset: &mut BTreeSet<String>) -> Result<String, ExpandError> {
        let lookup = |name: &str| self.variable(name);
        let expander = Expander::new(self.escape, &lookup);
        let word = expander.word(text)?;
        unset.extend(expander.unset());
        self.count(word.len())?;
        Ok(word)
    }

    /// Expands one text to words.
    pub(super) fn words(&self, text: &str, unset: &mut BTreeSet<String>) -> Result<Vec<String>, ExpandError> {
        let lookup = |name: &str| self.variable(name);
        let expander = Expander::new(self.escape, &lookup);
        let words = expander.words(text)?;
        unset.extend(expander.unset());
        self.count(words.iter().map(String::len).sum())?;
        Ok(words)
    }

    /// Each text has its limit, but a recipe may have many of them.
    fn count(&self, bytes: usize) -> Result<(), ExpandError> {
        let before = self.expanded_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > MAX_ALL_BYTES { Err(ExpandError::AllTooLong) } else { Ok(()) }
    }

    /// A heredoc's body.
    pub(super) fn body(&self, text: &str) -> Result<String, ExpandError> {
        let lookup = |name: &str| self.variable(name);
        let body = Expander::new(self.escape, &lookup).keeping_quotes().word(text)?;
        self.count(body.len())?;
        Ok(body)
    }

    /// The shell of shell-form commands.
    pub(super) fn shell(&self) -> Vec<String> {
        match &self.config.config.shell {
            Some(shell) if !shell.is_empty() => shell.clone(),
            _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
        }
    }

    /// The folder relative paths are relative to.
    pub(super) fn working_dir(&self) -> &str {
        if self.config.config.working_dir.is_empty() { "/" } else { &self.config.config.working_dir }
    }

    /// Adds a history entry. Without a date it gets the image's; without a layer it says so.
    pub(super) fn add_history(&mut self, created_by: String, created: Option<String>, has_layer: bool) {
        if created.is_none() {
            self.undated.push(self.config.history.len());
        }
        let author = self.config.author.clone().filter(|author| !author.is_empty());
        let created_by = Some(created_by);
        self.config.history.push(History { created, created_by, author, comment: None, empty_layer: !has_layer });
    }
}
