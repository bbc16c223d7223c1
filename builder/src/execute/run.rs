//! RUN: a process in a container of the layers so far, whose writes become the next layer.

use super::base::DEFAULT_PATH;
use super::stage::Position;
use super::state::StageState;
use super::{Build, Step, mounts};
use crate::cache::Ingredients;
use crate::event::OutputStream;
use crate::instruction::{Command, RunInstruction};
use crate::plan::PROXY_ARGS;
use crate::request::BuildNetwork;
use crate::step_error::{StepError, StepResult};
use engine::{LogStream, NetworkMode, StepRequest};
use std::collections::BTreeSet;
use std::path::Path;

/// How many of a failed process's last lines an error shows.
const TAIL_LINES: usize = 20;
/// The longest of those lines, in bytes.
const TAIL_LINE_BYTES: usize = 2_000;

impl Build<'_> {
    pub(super) fn run_instruction(
        &self,
        stage: usize,
        state: &mut StageState,
        run: &RunInstruction,
        step: &Step<'_, '_>,
        position: &Position<'_>,
        unset: &mut BTreeSet<String>,
    ) -> StepResult<bool> {
        if run.insecure && !self.request.allow_insecure {
            let message = "RUN --security=insecure: security.insecure is not allowed";
            return Err(StepError::with_hint(
                message,
                "allow it with --allow security.insecure, if you trust the recipe",
            ));
        }
        let script = Script::new(state, run);
        let mounts = self.prepare_mounts(stage, state, run, step, unset)?;
        let network = run.network.unwrap_or(self.request.network);
        let mut ingredients = Ingredients::new("RUN", &state.diff_ids());
        ingredients.add("command", script.argv.join(" "));
        ingredients.add("arguments", serde_json::to_string(&script.argv).unwrap_or_default());
        if let Some((name, body)) = &script.file {
            ingredients.add(format!("script {name}"), body.clone());
        }
        for (name, value) in environment(state) {
            ingredients.add(format!("env:{name}"), value);
        }
        ingredients.add("working directory", state.working_dir());
        ingredients.add("user", &state.config.config.user);
        ingredients.add("platform", format!("{}/{}", state.config.os, state.config.architecture));
        ingredients.add("network", format!("{network:?}"));
        if run.insecure {
            ingredients.add("security", "insecure");
        }
        ingredients.add("epoch", format!("{:?}", self.request.source_date_epoch));
        for mount in &mounts {
            ingredients.add(format!("mount {}", mount.target), mount.identity.clone());
        }
        let created_by = history_text(state, &script.argv);
        self.layer(state, step, position, &ingredients, created_by, |state, upper| {
            super::emulation::check(&state.config.architecture)?;
            let scratch = upper.parent().unwrap_or(upper);
            let mut request = self.step_request(state, &script, network, upper);
            request.privileged = run.insecure;
            if let Some((name, body)) = &script.file {
                request.mounts.push(mounts::script(scratch, name, body)?);
            }
            let _held = mounts::realise(mounts, self, scratch, &mut request)?;
            if let Err(error) = self.run_process(&request, &script, step) {
                self.show_failed(&error, request, state);
                return Err(error);
            }
            if let Some(epoch) = self.request.source_date_epoch {
                crate::layer::clamp_times(upper, epoch)?;
            }
            Ok(true)
        })
    }

    /// Lets the user look around in what a failed process left, where that is wanted.
    fn show_failed(&self, error: &StepError, mut request: StepRequest, state: &StageState) {
        let (Some(debug), StepError::Run { .. }) = (&self.debug, error) else { return };
        // Other stages' processes end, lest they talk into the user's session.
        self.cancel.cancel();
        request.argv = state.shell().into_iter().take(1).collect();
        request.terminal = true;
        super::lock(debug)(&request);
    }

    fn step_request(&self, state: &StageState, script: &Script, network: BuildNetwork, upper: &Path) -> StepRequest {
        let mut env: Vec<String> = environment(state).map(|(name, value)| format!("{name}={value}")).collect();
        let has = |env: &[String], name: &str| env.iter().any(|line| line.split('=').next() == Some(name));
        let given = self.request.build_args.iter().filter(|(name, _)| PROXY_ARGS.contains(&name.as_str()));
        // By both names: curl wants small letters, others capitals.
        let other_case =
            |name: &str| if name == name.to_uppercase() { name.to_lowercase() } else { name.to_uppercase() };
        for proxies in [given.collect::<Vec<_>>(), self.request.proxies.iter().collect()] {
            let same = proxies.iter().map(|(name, value)| (name.clone(), value));
            let other = proxies.iter().map(|(name, value)| (other_case(name), value));
            for (name, value) in same.chain(other) {
                if !has(&env, &name) {
                    env.push(format!("{name}={value}"));
                }
            }
        }
        if !has(&env, "PATH") {
            env.push(format!("PATH={DEFAULT_PATH}"));
        }
        StepRequest {
            layers: state.folders(),
            upper: upper.to_owned(),
            argv: script.argv.clone(),
            env,
            cwd: state.working_dir().to_owned(),
            user: state.config.config.user.clone(),
            network: match network {
                BuildNetwork::Default => NetworkMode::Bridge,
                BuildNetwork::None => NetworkMode::None,
                BuildNetwork::Host => NetworkMode::Host,
            },
            shm_size_bytes: self.request.shm_size_bytes,
            ulimits: self.request.ulimits.clone(),
            add_hosts: self.request.add_hosts.iter().map(|(name, ip)| format!("{name}:{ip}")).collect(),
            ..StepRequest::default()
        }
    }

    fn run_process(&self, request: &StepRequest, script: &Script, step: &Step<'_, '_>) -> StepResult<()> {
        let mut tail = Tail::default();
        let status = self.engine.run_step(request, &self.cancel, &mut |stream, bytes| {
            tail.add(bytes);
            let stream = match stream {
                LogStream::Stdout => OutputStream::Stdout,
                LogStream::Stderr => OutputStream::Stderr,
            };
            step.output(stream, bytes);
        })?;
        if status.code == 0 {
            return Ok(());
        }
        if self.cancel.is_cancelled() {
            return Err(StepError::Cancelled);
        }
        let mut output_tail = tail.lines();
        if status.oom_killed {
            output_tail.push("the kernel killed it: out of memory".to_owned());
        }
        if !status.error.is_empty() {
            output_tail.push(status.error);
        }
        Err(StepError::Run { command: script.shown(), code: status.code, output_tail })
    }
}

/// What is executed.
struct Script {
    argv: Vec<String>,
    /// A heredoc with a first line of its own (`#!`): its name and text, to be found at /dev/pipes.
    file: Option<(String, String)>,
}

impl Script {
    fn new(state: &StageState, run: &RunInstruction) -> Script {
        let text = match &run.command {
            Command::Exec(argv) => return Script { argv: argv.clone(), file: None },
            Command::Shell(text) => text,
        };
        let in_shell = |text: String| state.shell().into_iter().chain([text]).collect();
        if let [only] = run.heredocs.as_slice()
            && text.trim_start().starts_with("<<")
            && text.split_whitespace().count() == 1
        {
            if only.content.starts_with("#!") {
                // The shell starts it: a SHELL as `conda run …` is wanted for its environment.
                let path = format!("/dev/pipes/{}", only.name);
                return Script { argv: in_shell(path), file: Some((only.name.clone(), only.content.clone())) };
            }
            return Script { argv: in_shell(only.content.clone()), file: None };
        }
        let mut text = text.clone();
        for heredoc in &run.heredocs {
            text.push('\n');
            text.push_str(&heredoc.content);
            text.push_str(&heredoc.name);
        }
        Script { argv: in_shell(text), file: None }
    }

    /// For messages: one line.
    fn shown(&self) -> String {
        let text = self.argv.join(" ");
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        if lines.next().is_some() { format!("{first} …") } else { first.to_owned() }
    }
}

/// ENV and ARGs, of which the later counts.
fn environment(state: &StageState) -> impl Iterator<Item = (String, String)> {
    let args = || state.args.iter().filter(|(name, _)| !PROXY_ARGS.contains(&name.as_str()));
    let env = state.config.config.env.iter().filter_map(|line| line.split_once('='));
    let env = env.filter(move |(name, _)| !args().any(|(hiding, _)| hiding == name));
    env.map(|(name, value)| (name.to_owned(), value.to_owned())).chain(args().map(|(n, v)| (n.clone(), v.clone())))
}

/// `RUN |2 A=1 B=2 /bin/sh -c make`, as docker's history has it.
fn history_text(state: &StageState, argv: &[String]) -> String {
    let args: Vec<String> = (state.declared.iter())
        .filter(|name| !PROXY_ARGS.contains(&name.as_str()))
        .map(|name| format!("{name}={}", state.variable(name).unwrap_or_default()))
        .collect();
    match args.len() {
        0 => format!("RUN {}", argv.join(" ")),
        n => format!("RUN |{n} {} {}", args.join(" "), argv.join(" ")),
    }
}

/// An image that a `from` names may have been meant as a stage.
pub(super) fn said_image(error: StepError, name: &str, near: Option<&str>) -> StepError {
    match error {
        StepError::Wrong { message, .. } => {
            let near = near.map(|near| format!(": did you mean {near}?")).unwrap_or_default();
            StepError::with_hint(message, format!("{name} is no earlier stage, so it was taken for an image{near}"))
        }
        other => other,
    }
}

/// The last lines of an output.
#[derive(Default)]
struct Tail {
    lines: std::collections::VecDeque<Vec<u8>>,
    open: Vec<u8>,
}

impl Tail {
    fn add(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&b| b == b'\n') {
            let (text, ended) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            let room = TAIL_LINE_BYTES.saturating_sub(self.open.len());
            self.open.extend_from_slice(&text[..text.len().min(room)]);
            if ended {
                self.lines.push_back(std::mem::take(&mut self.open));
                if self.lines.len() > TAIL_LINES {
                    self.lines.pop_front();
                }
            }
        }
    }

    fn lines(self) -> Vec<String> {
        let last = (!self.open.is_empty()).then_some(self.open);
        let lines = self.lines.into_iter().chain(last);
        lines.map(|line| String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_lines_whole() {
        let mut tail = Tail::default();
        for n in 0..30 {
            tail.add(b"li");
            tail.add(format!("ne {n}\n").as_bytes());
        }
        tail.add(b"open");
        let lines = tail.lines();
        assert_eq!((lines.len(), lines[0].as_str(), lines[20].as_str()), (21, "line 10", "open"));
    }
}
