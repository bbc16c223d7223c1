//! How a build shows itself: numbered plain lines in a pipe, a redrawn list of steps on a terminal.

use super::table::{printable, printable_lines};
use super::units::{elapsed, size};
use crate::context::Context;
use crate::error::without_numbers;
use builder::{BuildError, BuildEvent, Built, StepId};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use oci::Reference;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines of a running step's output that the live view shows below it.
const TAIL_LINES: usize = 6;
/// The longest line of output kept while its end has not come, in bytes.
const MAX_LINE_BYTES: usize = 16 << 10;

/// A build's face on standard error.
pub(crate) struct BuildView {
    state: Mutex<State>,
}

struct State {
    mode: Mode,
    steps: BTreeMap<StepId, Step>,
    started: Instant,
    colours: bool,
    /// How much of a step's name the live view shows, in characters: a line and its time stay one row of the terminal.
    name_width: usize,
    warnings: Vec<String>,
}

/// What the live view needs of a row beside the step's name.
const MARGIN: usize = 24;

enum Mode {
    Quiet,
    Plain,
    Live { all: MultiProgress, heading: ProgressBar },
}

struct Step {
    name: String,
    started: Instant,
    /// Output whose line has not ended.
    partial: Vec<u8>,
    /// The last lines, for the live view and for a failure.
    tail: Vec<String>,
    bar: Option<ProgressBar>,
    /// What `Progress` events last said, so that plain lines are few.
    progress: BTreeMap<String, u64>,
}

impl BuildView {
    /// A view; `live` redraws.
    pub(crate) fn new(context: &Context, quiet: bool, live: bool) -> BuildView {
        let mode = match (quiet, live) {
            (true, _) => Mode::Quiet,
            (false, false) => Mode::Plain,
            (false, true) => {
                let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(12));
                let heading = all.add(ProgressBar::new_spinner().with_style(style("{msg}")));
                heading.enable_steady_tick(Duration::from_millis(100));
                Mode::Live { all, heading }
            }
        };
        let name_width = context.error_width().unwrap_or(80).saturating_sub(MARGIN).max(MARGIN);
        let state = State {
            mode,
            steps: BTreeMap::new(),
            started: Instant::now(),
            colours: context.colours(),
            name_width,
            warnings: Vec::new(),
        };
        state.heading();
        BuildView { state: Mutex::new(state) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows an event.
    pub(crate) fn event(&self, event: BuildEvent) {
        let mut state = self.state();
        match event {
            BuildEvent::StepStarted { step, name } => state.start(step, name),
            BuildEvent::Output { step, bytes, .. } => state.output(step, &bytes),
            BuildEvent::Progress { step, what, done_bytes, total_bytes } => {
                state.progress(step, &printable(&what), done_bytes, total_bytes);
            }
            BuildEvent::CacheMiss { step, why } => state.line(step, &printable(&format!("not cached: {why}"))),
            BuildEvent::StepDone { step, cached, duration } => {
                let word = if cached { "CACHED".to_owned() } else { format!("DONE {}", elapsed(duration)) };
                state.end(step, &word, cached, None);
            }
            BuildEvent::StepFailed { step, message, duration } => {
                state.end(step, &format!("ERROR: {}", without_numbers(message)), false, Some(duration));
            }
            BuildEvent::Warning(warning) => state.warnings.push(format!("WARNING: {warning}")),
        }
        state.heading();
    }

    /// The build is over: the picture stays.
    pub(crate) fn finish(&self, well: bool) {
        let state = self.state();
        if let Mode::Live { heading, .. } = &state.mode {
            heading.set_message(format!(
                "Building {} {}",
                elapsed(state.started.elapsed()),
                if well { "done" } else { "failed" }
            ));
            heading.abandon();
            for step in state.steps.values() {
                if let Some(bar) = step.bar.as_ref().filter(|bar| !bar.is_finished()) {
                    bar.finish_and_clear();
                }
            }
        }
    }

    /// What was built, and its names.
    pub(crate) fn built(&self, built: &Built, tags: &[Reference]) {
        let state = self.state();
        let mut text = String::new();
        let lines = built.warnings.iter().map(|warning| format!("WARNING: {warning}"));
        let names = tags.iter().map(|tag| format!("naming to {tag}"));
        for line in lines.chain([format!("writing image {}", built.image_id)]).chain(names) {
            let _ = writeln!(text, "{line}");
        }
        state.print(&text);
    }

    /// What stands below a failure's one line: the output's end and the place in the Containerfile.
    pub(crate) fn explain(&self, error: &BuildError) {
        let state = self.state();
        let mut text = String::new();
        // What was warned of may be the reason.
        for line in state.warnings.iter().filter(|_| !matches!(state.mode, Mode::Quiet)) {
            let _ = writeln!(text, "{line}");
        }
        let tail = error.output_tail();
        // In plain mode the output is there already, just above.
        if !tail.is_empty() && !matches!(state.mode, Mode::Plain) {
            let _ = writeln!(text, "------");
            for line in tail {
                let _ = writeln!(text, " > {line}");
            }
            let _ = writeln!(text, "------");
        }
        if let Some(at) = error.source_line() {
            let _ = writeln!(text, "{}:{}\n  >>> {}", at.file, at.line, at.text.trim_end().replace('\n', "\n  >>> "));
        }
        say(&text);
    }
}

/// Recipes, and the names of a context's files, may be a stranger's.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(printable_lines(&text.replace("\r\n", "\n")).as_bytes());
}

impl State {
    fn number(step: StepId) -> usize {
        step.0 + 1
    }

    /// Plain text to standard error, unless quiet.
    fn print(&self, text: &str) {
        match &self.mode {
            Mode::Quiet => {}
            Mode::Plain | Mode::Live { .. } => say(text),
        }
    }

    fn heading(&self) {
        if let Mode::Live { heading, .. } = &self.mode {
            let done = self.steps.values().filter(|s| s.bar.as_ref().is_none_or(ProgressBar::is_finished)).count();
            heading.set_message(format!(
                "Building {} ({done}/{} steps)",
                elapsed(self.started.elapsed()),
                self.steps.len()
            ));
        }
    }

    fn start(&mut self, id: StepId, name: String) {
        let mut name = printable(&name);
        if let (Mode::Live { .. }, Some((end, _))) = (&self.mode, name.char_indices().nth(self.name_width)) {
            name.truncate(end);
            name.push('…');
        }
        let mut step = Step {
            name,
            started: Instant::now(),
            partial: Vec::new(),
            tail: Vec::new(),
            bar: None,
            progress: BTreeMap::new(),
        };
        match &self.mode {
            Mode::Quiet => {}
            Mode::Plain => self.print(&format!("#{} {}\n", Self::number(id), first_line(&step.name))),
            Mode::Live { all, .. } => {
                let bar = all.add(ProgressBar::new_spinner().with_style(style("{msg}")));
                bar.set_message(step.picture("=>", None));
                step.bar = Some(bar);
            }
        }
        self.steps.insert(id, step);
    }

    fn output(&mut self, id: StepId, bytes: &[u8]) {
        let Some(step) = self.steps.get_mut(&id) else { return };
        let mut lines = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' => lines.push(std::mem::take(&mut step.partial)),
                _ if step.partial.len() >= MAX_LINE_BYTES => {}
                _ => step.partial.push(*byte),
            }
        }
        for line in lines {
            self.line(id, &clean(&line));
        }
    }

    /// A whole line of a step's.
    fn line(&mut self, id: StepId, text: &str) {
        let Some(step) = self.steps.get_mut(&id) else { return };
        let since = step.started.elapsed().as_secs_f64();
        step.tail.push(text.to_owned());
        if step.tail.len() > TAIL_LINES {
            step.tail.remove(0);
        }
        match (&self.mode, &step.bar) {
            (Mode::Plain, _) => self.print(&format!("#{} {since:.3} {text}\n", Self::number(id))),
            (Mode::Live { .. }, Some(bar)) => bar.set_message(step.picture("=>", None)),
            _ => {}
        }
    }

    fn progress(&mut self, id: StepId, what: &str, done: u64, total: u64) {
        let Some(step) = self.steps.get_mut(&id) else { return };
        let before = step.progress.insert(what.to_owned(), done);
        let ended = total > 0 && done >= total && before.is_none_or(|before| before < total);
        match (&self.mode, &step.bar) {
            // One line a piece, when it is done.
            (Mode::Plain, _) if ended => {
                self.print(&format!("#{} {what} {} / {} done\n", Self::number(id), size(done), size(total)));
            }
            (Mode::Live { .. }, Some(bar)) => {
                let amount = if total > 0 {
                    format!("{what} {} / {}", size(done), size(total))
                } else {
                    format!("{what} {}", size(done))
                };
                bar.set_message(step.picture("=>", Some(&amount)));
            }
            _ => {}
        }
    }

    fn end(&mut self, id: StepId, word: &str, cached: bool, failed: Option<Duration>) {
        let Some(step) = self.steps.get_mut(&id) else { return };
        let rest = std::mem::take(&mut step.partial);
        if !rest.is_empty() {
            self.line(id, &clean(&rest));
        }
        let Some(step) = self.steps.get(&id) else { return };
        match (&self.mode, &step.bar) {
            (Mode::Plain, _) => self.print(&format!("#{} {word}\n\n", Self::number(id))),
            (Mode::Live { .. }, Some(bar)) => {
                let name = first_line(&step.name);
                let (mark, text) = match (cached, failed) {
                    (true, _) => ("=>", format!("CACHED {name}")),
                    (_, Some(_)) => ("=> ERROR", name.to_owned()),
                    _ => ("=>", format!("{name}  {}", elapsed(step.started.elapsed()))),
                };
                let colour = if failed.is_some() { "31" } else { "34" };
                let line = format!(" {mark} {text}");
                bar.abandon_with_message(if self.colours { format!("\x1b[{colour}m{line}\x1b[0m") } else { line });
            }
            _ => {}
        }
    }
}

impl Step {
    /// The step as the live view draws it: its name, and below the last lines it wrote.
    fn picture(&self, mark: &str, extra: Option<&str>) -> String {
        let mut text = format!(" {mark} {}  {}", first_line(&self.name), elapsed(self.started.elapsed()));
        if let Some(extra) = extra {
            let _ = write!(text, "  {extra}");
        }
        for line in &self.tail {
            let _ = write!(text, "\n    # {line}");
        }
        text
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn first_line(name: &str) -> &str {
    name.lines().next().unwrap_or_default()
}

/// A line as it may be shown: what a carriage return overwrote is left out, and so is what would move the cursor.
fn clean(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let shown = line.rsplit(|b| *b == b'\r').next().unwrap_or(line);
    let text = String::from_utf8_lossy(shown);
    let mut made = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => {
                // An escape sequence: ESC [ parameters letter. Others lose their ESC only.
                if chars.next_if_eq(&'[').is_some() {
                    while chars.next_if(|c| !('@'..='~').contains(c)).is_some() {}
                    chars.next();
                }
            }
            '\t' => made.push_str("    "),
            c if c.is_control() => {}
            c => made.push(c),
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_cannot_move_the_cursor() {
        for (line, shown) in [
            (&b"plain"[..], "plain"),
            (b"a\rbc\r", "bc"),
            (b"\x1b[31mred\x1b[0m", "red"),
            (b"\x1b[2Jx\x07", "x"),
            (b"a\tb", "a    b"),
            (b"\xff", "\u{fffd}"),
        ] {
            assert_eq!(clean(line), shown);
        }
    }
}
