//! The commands about containers that exist: state, list, kill, delete, pause, resume, ps; and spec.

use super::args::Args;
use super::state::{State, all};
use super::{CliError, Global, print};
use runtime::hooks;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

/// How long a killed init may take to end, in seconds.
const END_PATIENCE_SECONDS: i64 = 10;

pub(super) fn state(global: &Global, args: &[String]) -> Result<u8, CliError> {
    let args = Args::parse(args, &[], usize::MAX)?;
    let state = State::load(global, args.id()?)?;
    print(&format!("{:#}\n", state.shown()))
}

pub(super) fn list(global: &Global, args: &[String]) -> Result<u8, CliError> {
    let args = Args::parse(args, &[("format", Some('f'), true), ("quiet", Some('q'), false)], usize::MAX)?;
    let containers = all(global);
    if args.flag("quiet") {
        return print(&containers.iter().map(|state| format!("{}\n", state.id)).collect::<String>());
    }
    match args.value("format").unwrap_or("table") {
        "json" => {
            let shown: Vec<_> = containers.iter().map(State::shown).collect();
            print(&format!("{}\n", serde_json::Value::from(shown)))
        }
        "table" => {
            let width = containers.iter().map(|state| state.id.len()).max().unwrap_or(0).max(2);
            let mut text = format!("{:width$}  {:<8}  {:<8}  {:<30}  BUNDLE\n", "ID", "PID", "STATUS", "CREATED");
            for state in containers {
                let status = state.status();
                let pid = if status == "stopped" { 0 } else { state.pid };
                let (id, created, bundle) = (&state.id, &state.created, state.bundle.display());
                text += &format!("{id:width$}  {pid:<8}  {status:<8}  {created:<30}  {bundle}\n");
            }
            print(&text)
        }
        other => Err(CliError::new(format!("invalid format option {other:?}: table or json"))),
    }
}

pub(super) fn kill(global: &Global, args: &[String]) -> Result<u8, CliError> {
    let args = Args::parse(args, &[("all", Some('a'), false), ("signal", Some('s'), true)], usize::MAX)?;
    let (id, signal) = match args.words.as_slice() {
        [id] => (id, args.value("signal").unwrap_or("SIGTERM")),
        [id, signal] => (id, signal.as_str()),
        _ => return Err(CliError::new("usage: ctr-runtime kill ID [SIGNAL]")),
    };
    let number = linux::signal::parse(signal).ok_or_else(|| CliError::new(format!("unknown signal {signal:?}")))?;
    let state = State::load(global, id)?;
    let cgroup = state.cgroup()?;
    if args.flag("all") {
        for pid in cgroup.processes()? {
            // One that ended meanwhile needs no signal.
            let _gone = linux::process::kill(pid, number);
        }
        return Ok(0);
    }
    let (_, init) = state.init().ok_or_else(|| CliError::new("container not running"))?;
    linux::process::send_signal(init.as_fd(), number)?;
    if number == rustix::process::Signal::KILL.as_raw() {
        // A frozen process takes no signal on v1; one without a pid namespace leaves its children behind.
        let _not_frozen = cgroup.thaw();
        if !state.has_pid_namespace() {
            cgroup.kill_all()?;
        }
    }
    Ok(0)
}

pub(super) fn delete(global: &Global, args: &[String]) -> Result<u8, CliError> {
    let args = Args::parse(args, &[("force", Some('f'), false)], usize::MAX)?;
    let (id, force) = (args.id()?, args.flag("force"));
    let state = match State::load(global, id) {
        Err(error) if force && error.message.ends_with("does not exist") => {
            // A create that was killed half-way leaves a folder without a state.
            let _removed = fs::remove_dir_all(State::folder(global, id));
            return Ok(0);
        }
        loaded => loaded?,
    };
    let status = state.status();
    // A created container runs nothing of the user's yet.
    if !force && !matches!(status, "stopped" | "created") {
        return Err(CliError::new(format!("cannot delete container {id} that is not stopped: {status}")));
    }
    remove(global, &state)?;
    Ok(0)
}

/// Ends what is left of a container and forgets it.
pub(super) fn remove(global: &Global, state: &State) -> Result<(), CliError> {
    let cgroup = state.cgroup()?;
    if let Some((_, init)) = state.init() {
        // A frozen process takes no signal on v1.
        let _thawed = cgroup.thaw();
        linux::process::send_signal(init.as_fd(), rustix::process::Signal::KILL.as_raw())?;
        let patience = Timespec { tv_sec: END_PATIENCE_SECONDS, tv_nsec: 0 };
        let _ended = poll(&mut [PollFd::new(&init, PollFlags::IN)], Some(&patience));
    }
    if !cgroup.is_empty()? {
        cgroup.kill_all()?;
    }
    cgroup.remove_with_parents(state.cgroup_parents)?;
    // Once: of a foreground `run` and a `delete --force`, who comes second would take what lay below.
    if let Some(namespace) = state.mount_namespace
        && fs::remove_file(State::folder(global, &state.id).join("state.json")).is_ok()
        && let Err(error) = runtime::detach_root(&state.config, &state.rootfs, namespace)
    {
        global.log.warn(&error.to_string());
    }
    let folder = State::folder(global, &state.id);
    match fs::remove_dir_all(&folder) {
        // A foreground `run` and a `delete --force` may both clean up.
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(CliError::new(format!("remove {}: {e}", folder.display())));
        }
        _ => {}
    }
    let poststop = state.config.hooks().as_ref().and_then(|hooks| hooks.poststop().as_deref()).unwrap_or_default();
    if let Err(why) = hooks::run(poststop, state.shown().to_string().as_bytes()) {
        global.log.warn(&why);
    }
    Ok(())
}

pub(super) fn freeze(global: &Global, args: &[String], freeze: bool) -> Result<u8, CliError> {
    let args = Args::parse(args, &[], usize::MAX)?;
    let state = State::load(global, args.id()?)?;
    let cgroup = state.cgroup()?;
    match (freeze, state.status()) {
        (true, "running" | "created") => cgroup.freeze()?,
        (true, _) => return Err(CliError::new("container not running")),
        (false, "paused") => cgroup.thaw()?,
        (false, _) => return Err(CliError::new("container not paused")),
    }
    Ok(0)
}

pub(super) fn ps(global: &Global, args: &[String]) -> Result<u8, CliError> {
    // What follows the id is for ps(1).
    let args = Args::parse(args, &[("format", Some('f'), true)], 1)?;
    let (id, rest) = args.words.split_first().ok_or_else(|| CliError::new("container id cannot be empty"))?;
    let format = match rest {
        [option, value] if option == "--format" || option == "-f" => Some(value.as_str()),
        [option] => option.strip_prefix("--format=").or(args.value("format")),
        _ => args.value("format"),
    };
    let pids = State::load(global, id)?.cgroup()?.processes()?;
    match format.unwrap_or("table") {
        "json" => print(&format!("{}\n", serde_json::json!(pids))),
        "table" => {
            let options: &[String] = if format.is_some() && args.value("format").is_none() { &[] } else { rest };
            print(&process_table(&pids, options)?)
        }
        other => Err(CliError::new(format!("invalid format option {other:?}: table or json"))),
    }
}

/// The lines of the machine's ps(1) about these processes; a short table of our own where there is no such program.
fn process_table(pids: &[i32], options: &[String]) -> Result<String, CliError> {
    let mut command = std::process::Command::new("ps");
    if options.is_empty() {
        command.arg("-ef")
    } else {
        command.args(options)
    };
    let output = match command.output() {
        Ok(output) if output.status.success() => output,
        Ok(output) => return Err(CliError::new(format!("ps: {}", String::from_utf8_lossy(&output.stderr).trim()))),
        Err(_) => {
            let line = |pid: &i32| {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                format!("{pid:<8} {}\n", name.trim_end())
            };
            return Ok(format!("PID      CMD\n{}", pids.iter().map(line).collect::<String>()));
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let column = head.split_ascii_whitespace().position(|word| word == "PID");
    let column = column.ok_or_else(|| CliError::new("ps: its output has no column PID"))?;
    let is_ours = |line: &&str| {
        let pid = line.split_ascii_whitespace().nth(column).and_then(|word| word.parse::<i32>().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    Ok(std::iter::once(head).chain(lines.filter(is_ours)).map(|line| format!("{line}\n")).collect())
}

pub(super) fn spec(args: &[String]) -> Result<u8, CliError> {
    let args = Args::parse(args, &[("bundle", Some('b'), true), ("rootless", None, false)], usize::MAX)?;
    let path = Path::new(args.value("bundle").unwrap_or(".")).join("config.json");
    if path.exists() {
        return Err(CliError::new(format!("file {} exists: remove it first", path.display())));
    }
    let text = serde_json::to_string_pretty(&runtime::default_spec()).map_err(|e| CliError::new(e.to_string()))?;
    fs::write(&path, text + "\n").map_err(|e| CliError::new(format!("write {}: {e}", path.display())))?;
    Ok(0)
}
