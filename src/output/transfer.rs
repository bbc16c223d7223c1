//! How pulls and pushes show their progress: a bar a layer on a terminal, a line a change elsewhere.

use super::units;
use crate::context::Context;
use engine::{CopyEvent, CopyState, LayerInfo, PullEvent, PullState, PushEvent, PushState};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// `--progress`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ProgressKind {
    /// Bars on a terminal, lines elsewhere.
    #[default]
    Auto,
    /// Lines.
    Plain,
    /// One object a line, as docker's API sends them.
    Json,
}

/// What of a transfer is shown, and where.
#[derive(Clone, Copy)]
pub(crate) struct Show {
    /// Nothing.
    pub(crate) quiet: bool,
    /// On standard output, where people look for what `pull` and `push` say; else on standard error.
    pub(crate) to_stdout: bool,
    /// In which form.
    pub(crate) kind: ProgressKind,
}

impl Show {
    /// As `pull` and `push` do unless told otherwise.
    pub(crate) fn lines(quiet: bool) -> Show {
        Show { quiet, to_stdout: true, kind: ProgressKind::Auto }
    }
}

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
    /// Objects to standard output.
    Json,
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
    /// When its progress was last told to a program.
    told: Option<Instant>,
}

/// Programs hear of each layer this often at most.
const TELL_EVERY: Duration = Duration::from_millis(100);

impl Bars {
    fn new(context: &Context, show: Show) -> Bars {
        let Show { quiet, to_stdout, kind } = show;
        let draws = || context.draws_progress() && (!to_stdout || context.width().is_some());
        let mode = match kind {
            _ if quiet => Mode::Quiet,
            ProgressKind::Json => Mode::Json,
            ProgressKind::Auto if draws() => Mode::Bars,
            _ if to_stdout => Mode::Stdout,
            _ => Mode::Stderr,
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
            Mode::Json => writeln!(std::io::stdout(), "{}", json!({ "status": text })),
        };
    }

    /// An object for a program.
    fn tell(&self, object: &Value) {
        let _ = writeln!(std::io::stdout(), "{object}");
    }

    /// The transfer failed: for programs. People read it on standard error.
    fn failed(&self, error: &dyn std::fmt::Display) {
        if self.mode == Mode::Json {
            let text = error.to_string();
            self.tell(&json!({ "errorDetail": { "message": text }, "error": text }));
        }
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
            layers.insert(info.id.clone(), Layer { bar, state: String::new(), told: None });
        }
    }

    /// A layer's state in words; in a pipe a line where it is a new one.
    fn state(&self, id: &str, words: &str, ended: bool) {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let layer = layers.entry(id.to_owned()).or_insert_with(|| Layer {
            bar: self.all.add(ProgressBar::new(0).with_style(plain()).with_prefix(id.to_owned())),
            state: String::new(),
            told: None,
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
        } else if self.mode == Mode::Json {
            self.tell(&json!({ "status": words, "progressDetail": {}, "id": id }));
        } else {
            drop(layers);
            self.line(&format!("{id}: {words}"));
        }
    }

    /// How far a layer has come.
    fn progress(&self, id: &str, words: &str, done: u64, total: Option<u64>) {
        if !matches!(self.mode, Mode::Bars | Mode::Json) {
            return;
        }
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(layer) = layers.get_mut(id) else { return };
        if self.mode == Mode::Json {
            if layer.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                layer.told = Some(Instant::now());
                let total = total.or(layer.bar.length());
                let detail = json!({ "current": done, "total": total });
                self.tell(&json!({ "status": words, "progressDetail": detail, "id": id }));
            }
            return;
        }
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
    ProgressStyle::with_template("{prefix}: {msg:28} [{bar:14}] {bytes_per_sec:>11} {eta:>4}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// A pull's progress.
pub(crate) struct PullView(Bars);

impl PullView {
    /// For `ctr pull` on standard output, for other commands on standard error.
    pub(crate) fn new(context: &Context, show: Show) -> PullView {
        PullView(Bars::new(context, show))
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

    /// Tells a program why there is no more.
    pub(crate) fn failed(&self, error: &dyn std::fmt::Display) {
        self.0.failed(error);
    }
}

/// A push's progress.
pub(crate) struct PushView(Bars);

impl PushView {
    /// On standard output.
    pub(crate) fn new(context: &Context, show: Show) -> PushView {
        PushView(Bars::new(context, show))
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

    /// Tells a program why there is no more.
    pub(crate) fn failed(&self, error: &dyn std::fmt::Display) {
        self.0.failed(error);
    }
}

/// A copy's progress.
pub(crate) struct CopyView(Bars);

impl CopyView {
    /// On standard output.
    pub(crate) fn new(context: &Context, show: Show) -> CopyView {
        CopyView(Bars::new(context, show))
    }

    /// Shows an event.
    pub(crate) fn event(&self, event: &CopyEvent) {
        match event {
            CopyEvent::Blobs(list) => self.0.layers(list, "Waiting"),
            CopyEvent::Warning(text) => self.0.line(&format!("WARNING: {text}")),
            CopyEvent::Blob { id, state } => match state {
                CopyState::Copying { done_bytes } => self.0.progress(id, "Copying", *done_bytes, None),
                CopyState::Copied => self.0.state(id, "Copied", true),
                CopyState::AlreadyExists => self.0.state(id, "Already exists", true),
                CopyState::Mounted { from } => self.0.state(id, &format!("Mounted from {from}"), true),
            },
        }
    }

    /// Leaves the bars as they are.
    pub(crate) fn finish(&self) {
        self.0.finish();
    }

    /// Tells a program why there is no more.
    pub(crate) fn failed(&self, error: &dyn std::fmt::Display) {
        self.0.failed(error);
    }
}
