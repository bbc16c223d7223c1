//! How pulls and pushes show their progress: a bar a layer on a terminal, a line a change elsewhere.

use super::units;
use crate::context::Context;
use engine::{LayerInfo, PullEvent, PullState, PushEvent, PushState};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

/// Where lines go.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    /// Nowhere.
    Quiet,
    /// Bars on the terminal.
    Bars,
    /// Plain lines to standard output.
    Stdout,
    /// Plain lines to standard error.
    Stderr,
}

/// The bars of a transfer's layers.
struct Bars {
    mode: Mode,
    all: MultiProgress,
    layers: Mutex<BTreeMap<String, Layer>>,
}

struct Layer {
    bar: ProgressBar,
    state: String,
}

impl Bars {
    fn new(context: &Context, quiet: bool, to_stdout: bool) -> Bars {
        let mode = match (quiet, context.draws_progress() && (!to_stdout || context.width().is_some()), to_stdout) {
            (true, ..) => Mode::Quiet,
            (_, true, _) => Mode::Bars,
            (.., true) => Mode::Stdout,
            (.., false) => Mode::Stderr,
        };
        let target =
            if mode == Mode::Bars { ProgressDrawTarget::stderr_with_hz(15) } else { ProgressDrawTarget::hidden() };
        Bars { mode, all: MultiProgress::with_draw_target(target), layers: Mutex::default() }
    }

    /// A line of its own; above the bars where there are some.
    fn line(&self, text: &str) {
        let _ = match self.mode {
            Mode::Quiet => Ok(()),
            Mode::Bars => self.all.println(text),
            Mode::Stdout => writeln!(std::io::stdout(), "{text}"),
            Mode::Stderr => writeln!(std::io::stderr(), "{text}"),
        };
    }

    fn layers(&self, list: &[LayerInfo], first: &str) {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        for info in list {
            if layers.contains_key(&info.id) {
                continue;
            }
            let bar = self.all.add(ProgressBar::new(info.size_bytes));
            bar.set_style(plain());
            bar.set_prefix(info.id.clone());
            bar.set_message(first.to_owned());
            layers.insert(info.id.clone(), Layer { bar, state: String::new() });
        }
    }

    /// A layer's state in words; in a pipe a line where it is a new one.
    fn state(&self, id: &str, words: &str, ended: bool) {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let layer = layers.entry(id.to_owned()).or_insert_with(|| Layer {
            bar: self.all.add(ProgressBar::new(0).with_style(plain()).with_prefix(id.to_owned())),
            state: String::new(),
        });
        if layer.state == words {
            return;
        }
        layer.state = words.to_owned();
        if self.mode == Mode::Bars {
            layer.bar.set_style(plain());
            layer.bar.set_message(words.to_owned());
            if ended {
                layer.bar.abandon();
            } else {
                layer.bar.tick();
            }
        } else {
            drop(layers);
            self.line(&format!("{id}: {words}"));
        }
    }

    /// How far a layer has come.
    fn progress(&self, id: &str, words: &str, done: u64, total: Option<u64>) {
        if self.mode != Mode::Bars {
            return;
        }
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(layer) = layers.get_mut(id) else { return };
        if layer.state != words {
            layer.state = words.to_owned();
            layer.bar.set_style(moving());
        }
        if let Some(total) = total {
            layer.bar.set_length(total);
        }
        let length = layer.bar.length().unwrap_or(0);
        layer.bar.set_message(match length {
            0 => format!("{words} {}", units::size(done)),
            _ => format!("{words} {}/{}", units::size(done), units::size(length)),
        });
        layer.bar.set_position(done.min(length));
    }

    fn finish(&self) {
        let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in layers.values().filter(|layer| !layer.bar.is_finished()) {
            layer.bar.abandon();
        }
    }
}

fn plain() -> ProgressStyle {
    ProgressStyle::with_template("{prefix}: {msg}").unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn moving() -> ProgressStyle {
    ProgressStyle::with_template("{prefix}: {msg:32} [{bar:30}]")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// A pull's progress.
pub(crate) struct PullView(Bars);

impl PullView {
    /// For `ctr pull` on standard output, for other commands on standard error.
    pub(crate) fn new(context: &Context, quiet: bool, to_stdout: bool) -> PullView {
        PullView(Bars::new(context, quiet, to_stdout))
    }

    /// Shows an event.
    pub(crate) fn event(&self, event: &PullEvent) {
        match event {
            PullEvent::Started { version, repository } => {
                self.0.line(&format!("{version}: Pulling from {repository}"));
            }
            PullEvent::Layers(list) => self.0.layers(list, "Waiting"),
            PullEvent::Warning(text) => self.0.line(&format!("WARNING: {text}")),
            PullEvent::Layer { id, state } => match state {
                PullState::AlreadyExists => self.0.state(id, "Already exists", true),
                PullState::Waiting => {}
                PullState::Downloading { done_bytes } => self.0.progress(id, "Downloading", *done_bytes, None),
                PullState::Complete => self.0.state(id, "Pull complete", true),
            },
        }
    }

    /// Leaves the bars as they are.
    pub(crate) fn finish(&self) {
        self.0.finish();
    }
}

/// A push's progress.
pub(crate) struct PushView(Bars);

impl PushView {
    /// On standard output.
    pub(crate) fn new(context: &Context, quiet: bool) -> PushView {
        PushView(Bars::new(context, quiet, true))
    }

    /// Shows an event.
    pub(crate) fn event(&self, event: &PushEvent) {
        match event {
            PushEvent::Started { repository } => {
                self.0.line(&format!("The push refers to repository [{repository}]"));
            }
            PushEvent::Layers(list) => self.0.layers(list, "Waiting"),
            PushEvent::Warning(text) => self.0.line(&format!("WARNING: {text}")),
            PushEvent::Layer { id, state } => match state {
                PushState::Waiting => {}
                PushState::Preparing => self.0.state(id, "Preparing", false),
                PushState::Pushing { done_bytes, total_bytes } => {
                    self.0.progress(id, "Pushing", *done_bytes, Some(*total_bytes));
                }
                PushState::Pushed => self.0.state(id, "Pushed", true),
                PushState::AlreadyExists => self.0.state(id, "Layer already exists", true),
                PushState::Mounted { from } => self.0.state(id, &format!("Mounted from {from}"), true),
            },
        }
    }

    /// Leaves the bars as they are.
    pub(crate) fn finish(&self) {
        self.0.finish();
    }
}
