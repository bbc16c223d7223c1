//! exec: a further process in a running container.

use super::args::{Args, OptionSpec};
use super::create::{inherited, name_listen_fds, own_streams, terminal_size, write_pid};
use super::state::State;
use super::terminal::{Relay, send_console};
use super::{CliError, Global};
use oci_spec::runtime::Process;
use runtime::{Cgroup, ExecRequest, Stdio, capabilities};
use std::collections::HashSet;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

const OPTIONS: &[OptionSpec] = &[
    ("process", Some('p'), true),
    ("tty", Some('t'), false),
    ("detach", Some('d'), false),
    ("env", Some('e'), true),
    ("cwd", None, true),
    ("user", Some('u'), true),
    ("additional-gids", Some('g'), true),
    ("cap", Some('c'), true),
    ("no-new-privs", None, false),
    ("pid-file", None, true),
    ("console-socket", None, true),
    ("process-label", None, true),
    ("apparmor", None, true),
    ("preserve-fds", None, true),
    ("cgroup", None, true),
    ("ignore-paused", None, false),
];

pub(super) fn exec(global: &Global, arguments: &[String]) -> Result<u8, CliError> {
    let args = Args::parse(arguments, OPTIONS, 2)?;
    let extra_fds = inherited(&args)?;
    let (id, program) = args.words.split_first().ok_or_else(|| CliError::new("container id cannot be empty"))?;
    let state = State::load(global, id)?;
    let (init_pid, init) = match state.status() {
        "running" | "created" => state.init(),
        "paused" if args.flag("ignore-paused") => state.init(),
        "paused" => return Err(CliError::new("cannot exec in a paused container")),
        _ => None,
    }
    .ok_or_else(|| CliError::new("cannot exec in a stopped container"))?;
    let process = process(&args, program, &state)?;
    let terminal = process.terminal() == Some(true);
    let cgroup = group(&args, &state)?;
    let relay = if args.flag("detach") { None } else { Some(Relay::prepare()?) };
    let mut executed = runtime::exec(ExecRequest {
        id: &state.id,
        bundle: &state.bundle,
        linux: state.config.linux().as_ref(),
        init: init.as_fd(),
        init_pid,
        process: &process,
        seccomp: state.config.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()),
        stdio: if terminal { Stdio::Terminal { size: terminal_size(process.console_size()) } } else { own_streams()? },
        cgroup: &cgroup,
        die_with_parent: false,
        extra_fds,
    })?;
    if let Some(file) = args.value("pid-file") {
        write_pid(file, executed.pid)?;
    }
    if let (Some(socket), Some(console)) = (args.value("console-socket"), executed.console.as_ref()) {
        send_console(Path::new(socket), console.as_fd())?;
        executed.console = None;
    }
    match relay {
        Some(relay) => relay.until_exit(executed.pidfd.as_fd(), executed.console.take()),
        None => Ok(0),
    }
}

/// The container's group, or the one below it that `--cgroup [CONTROLLER:]PATH` names.
fn group(args: &Args, state: &State) -> Result<Cgroup, CliError> {
    let Some(name) = args.value("cgroup") else { return state.cgroup() };
    let name = name.rsplit_once(':').map_or(name, |(_, name)| name).trim_matches('/');
    if Path::new(name).components().any(|part| part == std::path::Component::ParentDir) {
        return Err(CliError::new(format!("--cgroup {name}: it must be below the container's own")));
    }
    let group = if name.is_empty() { state.cgroup()? } else { Cgroup::open(&format!("{}/{name}", state.cgroup))? };
    if group.exists() { Ok(group) } else { Err(CliError::new(format!("--cgroup {name}: no such control group"))) }
}

/// The process file, or the container's own process with the options' changes.
fn process(args: &Args, program: &[String], state: &State) -> Result<Process, CliError> {
    if let Some(path) = args.value("process") {
        let text = fs::read(path).map_err(|e| CliError::new(format!("read {path}: {e}")))?;
        let mut process: Process =
            serde_json::from_slice(&text).map_err(|e| CliError::new(format!("parse {path}: {e}")))?;
        name_listen_fds(&mut process);
        return Ok(process);
    }
    if program.is_empty() {
        return Err(CliError::new("process args cannot be empty"));
    }
    let mut process = state.config.process().clone().unwrap_or_default();
    process.set_args(Some(program.to_vec())).set_terminal(Some(args.flag("tty")));
    let mut env = process.env().clone().unwrap_or_default();
    env.extend_from_slice(args.all("env"));
    process.set_env(Some(env));
    name_listen_fds(&mut process);
    if let Some(label) = args.value("process-label") {
        process.set_selinux_label(Some(label.to_owned()));
    }
    if let Some(profile) = args.value("apparmor") {
        process.set_apparmor_profile(Some(profile.to_owned()));
    }
    if let Some(cwd) = args.value("cwd") {
        process.set_cwd(cwd.into());
    }
    if args.flag("no-new-privs") {
        process.set_no_new_privileges(Some(true));
    }
    if let Some(user) = args.value("user") {
        set_user(&mut process, user)?;
    }
    for gid in args.all("additional-gids") {
        let gid = number(gid)?;
        let mut user = process.user().clone();
        let mut gids = user.additional_gids().clone().unwrap_or_default();
        gids.push(gid);
        user.set_additional_gids(Some(gids));
        process.set_user(user);
    }
    let mut extra = HashSet::new();
    for name in args.all("cap") {
        let capability =
            capabilities::by_name(name).ok_or_else(|| CliError::new(format!("unknown capability {name:?}")))?;
        extra.insert(capability);
    }
    if !extra.is_empty() {
        let bounding = process.capabilities().as_ref().and_then(|sets| sets.bounding().clone());
        extra.extend(bounding.unwrap_or_default());
        process.set_capabilities(Some(runtime::capability_sets(&extra)));
    }
    Ok(process)
}

fn number(text: &str) -> Result<u32, CliError> {
    match text.parse::<oci::UserSpec>().map(|spec| (spec.user, spec.group)) {
        Ok((Some(oci::NameOrId::Id(id)), None)) => Ok(id),
        _ => Err(CliError::new(format!("{text:?} is not a numeric id"))),
    }
}

fn set_user(process: &mut Process, text: &str) -> Result<(), CliError> {
    let (uid, gid) = text.split_once(':').map_or((text, None), |(uid, gid)| (uid, Some(gid)));
    let mut user = process.user().clone();
    user.set_uid(number(uid)?);
    if let Some(gid) = gid {
        user.set_gid(number(gid)?);
    }
    process.set_user(user);
    Ok(())
}
