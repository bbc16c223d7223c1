//! A further process in a running container. It has no monitor: a helper of its own – this program, re-executed from a
//! read-only clone – joins the container, carries the streams and tells the exit.

use crate::attach::{Control, socket_pair};
use crate::config::{ContainerConfig, merge_env};
use crate::hidden::{self, Inherited};
use crate::monitor::launch;
use crate::monitor::streams::{Program, Request, Streams};
use crate::ocispec;
use crate::protocol::{self, Failure};
use crate::{AttachOptions, Attached, ContainerSpec, Engine, EngineError, ExitStatus, ProcessId, Result, Status};
use linux::process::send_signal;
use oci::UserSpec;
use oci_spec::runtime::Process;
use runtime::{Cgroup, ExecRequest, Executed, Stdio};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What `exec` runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Laid over the container's; None removes.
    pub env: Vec<(String, Option<String>)>,
    /// `-u`; None: the container's.
    pub user: Option<String>,
    /// `-w`; None: the container's.
    pub workdir: Option<String>,
    /// `-t`.
    pub tty: bool,
    /// `-i`.
    pub open_stdin: bool,
    /// `--privileged`.
    pub privileged: bool,
}

/// A started exec session.
#[derive(Debug)]
pub struct ExecHandle {
    /// Its id.
    pub id: String,
    /// Its streams, unless detached.
    pub attached: Option<Attached>,
}

/// The record of an exec session, in the container's run folder as long as the container runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRecord {
    /// The session's id.
    pub id: String,
    /// What it runs.
    pub spec: ExecSpec,
    /// Its process, on the host.
    pub pid: i32,
    /// None while it runs.
    pub exit_code: Option<i32>,
}

/// What a helper is started with.
#[derive(Debug, Serialize, Deserialize)]
struct HelperRequest {
    id: String,
    spec: ExecSpec,
    config: ContainerConfig,
    init: ProcessId,
    cgroup: String,
    cgroup_parent: String,
    record: PathBuf,
    attached: bool,
}

#[derive(Debug, Serialize, Deserialize)]
enum HelperReport {
    Started { pid: i32 },
    Failed(Failure),
}

/// How long output may still come after the process's end, from children that it left behind.
const DRAIN_LIMIT: Duration = Duration::from_millis(100);
/// A process that has run for so long is not one of those that are gone at once: memory counts now.
const SETTLED: Duration = Duration::from_millis(500);

impl Engine {
    /// Runs a process in a running container. Without `attach` it is detached: its output goes nowhere.
    pub fn exec(&self, container: &str, spec: &ExecSpec, attach: Option<AttachOptions>) -> Result<ExecHandle> {
        if spec.command.first().is_none_or(String::is_empty) {
            return Err(EngineError::Invalid("no command to execute was given".to_owned()));
        }
        let row = self.store().container(container)?;
        let state = self.observe(&row)?;
        if state.status == Status::Paused {
            return Err(EngineError::State(format!(
                "Container {container} is paused, unpause the container before exec"
            )));
        }
        let init = state.init.filter(|_| state.status == Status::Running);
        let init = init.ok_or_else(|| EngineError::NotRunning(row.id.clone()))?;
        let id = store::new_id()?;
        let config = ContainerConfig::load(&self.store().container_dir(&row.id))?;
        let request = HelperRequest {
            spec: spec.clone(),
            init,
            cgroup: self.recorded_cgroup(&row.id, Some(&config), &state),
            config,
            cgroup_parent: self.monitors_parent(),
            record: self.record_path(&row.id, &id),
            attached: attach.is_some(),
            id,
        };
        let attached = start_helper(&request, attach)?;
        Ok(ExecHandle { id: request.id, attached })
    }

    /// The record of an exec session.
    pub fn exec_record(&self, container: &str, session: &str) -> Result<ExecRecord> {
        let row = self.store().container(container)?;
        let known = session.bytes().all(|b| b.is_ascii_hexdigit());
        let bytes = std::fs::read(self.record_path(&row.id, session)).ok().filter(|_| known);
        let record = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        record.ok_or_else(|| EngineError::Invalid(format!("No such exec instance: {session}")))
    }

    fn record_path(&self, container: &str, session: &str) -> PathBuf {
        self.run_dir(container).join(format!("exec-{session}.json"))
    }
}

fn start_helper(request: &HelperRequest, attach: Option<AttachOptions>) -> Result<Option<Attached>> {
    let (ours, theirs) = socket_pair()?;
    let (client, their_client) = socket_pair()?;
    let (control, their_control) = socket_pair()?;
    let attached = Attached::new(client, Control::Socket(Arc::new(control)));
    if let Some(options) = attach {
        attached.announce(options)?;
    }
    hidden::start(
        hidden::EXEC,
        &request.config.id[..12.min(request.config.id.len())],
        [theirs.as_fd(), their_client.as_fd(), their_control.as_fd()],
    )?;
    drop((theirs, their_client, their_control));
    let gone = |e| EngineError::io("talk to", "the exec helper", e);
    protocol::send_message(ours.as_fd(), request).map_err(gone)?;
    match protocol::receive_message(ours.as_fd()).map_err(gone)? {
        Some(HelperReport::Started { .. }) => Ok(attach.map(|_| attached)),
        Some(HelperReport::Failed(failure)) => Err(failure.into()),
        None => Err(EngineError::NotRunning(request.config.id.clone())),
    }
}

/// Entry of the hidden mode.
pub(crate) fn run(inherited: Inherited) -> Result<()> {
    let Inherited { channel, second: client, third: control } = inherited;
    let request: Option<HelperRequest> =
        protocol::receive_message(channel.as_fd()).map_err(|e| EngineError::io("read", "the exec request", e))?;
    let Some(request) = request else { return Ok(()) };
    launch::leave_caller(&request.cgroup_parent);
    let mut streams = Streams::new(None, None, true);
    if request.attached {
        streams.add_client(client, true);
        streams.add_client(control, true);
        streams.turn(&[], Some(Instant::now())).map_err(|e| EngineError::io("poll", "the client", e))?;
    }
    let executed = match execute(&request, &mut streams) {
        Ok(executed) => executed,
        Err(error) => {
            let _gone = protocol::send_message(channel.as_fd(), &HelperReport::Failed(Failure::of(&error)));
            return Err(error);
        }
    };
    let pid = executed.pid.as_raw_nonzero().get();
    let record = |exit_code| {
        let record = ExecRecord { id: request.id.clone(), spec: request.spec.clone(), pid, exit_code };
        if let Ok(json) = serde_json::to_vec(&record) {
            // The container may have ended, and the folder with it.
            let _ended = std::fs::write(&request.record, json);
        }
    };
    record(None);
    let _gone = protocol::send_message(channel.as_fd(), &HelperReport::Started { pid });
    drop(channel);
    let code = carry(&executed.pidfd, &mut streams)?;
    streams.drain(DRAIN_LIMIT);
    record(Some(code.into()));
    streams.finish(&ExitStatus { code: code.into(), ..ExitStatus::default() });
    Ok(())
}

/// Moves what flows until the process ends; its exit code.
pub(crate) fn carry(process: &OwnedFd, streams: &mut Streams) -> Result<u8> {
    let mut shed_at = Some(Instant::now() + SETTLED);
    loop {
        let turned = streams.turn(&[process.as_fd()], shed_at);
        let (ready, requests) = turned.map_err(|e| EngineError::io("poll", "the process's streams", e))?;
        if ready.first() == Some(&true) {
            return Ok(linux::process::reap(process.as_fd())?);
        }
        if shed_at.is_some_and(|at| at <= Instant::now()) {
            shed_at = None;
            linux::memory::shed();
        }
        for request in requests {
            if let Request::Signal { signal, .. } = request {
                // It may have ended this moment.
                let _gone = send_signal(process.as_fd(), signal);
            }
        }
    }
}

fn execute(request: &HelperRequest, streams: &mut Streams) -> Result<Executed> {
    let not_running = || EngineError::NotRunning(request.config.id.clone());
    let init_pid = Pid::from_raw(request.init.pid).ok_or_else(not_running)?;
    let init = pidfd_open(init_pid, PidfdFlags::empty()).map_err(|_| not_running())?;
    // Now that the descriptor holds it: is it still the one?
    if !request.init.lives() {
        return Err(not_running());
    }
    let root = linux::resolve::open_root(Path::new(&format!("/proc/{}/root", request.init.pid)))?;
    let spec = &request.spec;
    let user = spec.user.as_ref().unwrap_or(&request.config.user);
    let user: UserSpec = user.parse().map_err(|e| EngineError::Invalid(format!("{e}")))?;
    let user = runtime::resolve_user(root.as_fd(), &user).map_err(runtime::RuntimeError::from)?;
    let groups = &request.config.spec.group_add;
    let groups = runtime::resolve_groups(root.as_fd(), groups).map_err(runtime::RuntimeError::from)?;
    drop(root);
    let (process, seccomp) = process(request, &user, &groups)?;
    let (stdio, pipes) = if spec.tty {
        (Stdio::Terminal { size: streams.initial_size() }, None)
    } else {
        let (stdio, program) =
            launch::pipes(spec.open_stdin && request.attached, request.config.outside(user.uid, user.gid))?;
        (stdio, Some(program))
    };
    let mut executed = runtime::exec(ExecRequest {
        id: &request.config.id,
        bundle: Path::new("/"),
        linux: None,
        init: init.as_fd(),
        init_pid,
        process: &process,
        seccomp: seccomp.as_ref(),
        stdio,
        cgroup: &Cgroup::open(&request.cgroup)?,
        die_with_parent: true,
        extra_fds: Vec::new(),
    })?;
    if let Some(program) = pipes.or_else(|| executed.console.take().map(Program::Console)) {
        streams.set_program(program).map_err(|e| EngineError::io("connect", "the process's streams", e))?;
    }
    Ok(executed)
}

fn process(
    request: &HelperRequest,
    user: &runtime::ResolvedUser,
    groups: &[u32],
) -> Result<(Process, Option<oci_spec::runtime::LinuxSeccomp>)> {
    let (spec, config) = (&request.spec, &request.config);
    let mut with_env = config.clone();
    with_env.env = merge_env(&config.env, &spec.env);
    with_env.spec.tty = spec.tty;
    let privileged = spec.privileged || config.spec.privileged;
    let asked = ContainerSpec { privileged, ..config.spec.clone() };
    let mut process = Process::default();
    process
        .set_terminal(Some(spec.tty))
        .set_user(ocispec::oci_user(user, groups))
        .set_args(Some(spec.command.clone()))
        .set_env(Some(ocispec::process_env(&with_env, &user.home)))
        .set_cwd(ocispec::working_dir(spec.workdir.as_ref().unwrap_or(&config.workdir)));
    let seccomp = ocispec::confine(&asked, &mut process)?;
    process.set_rlimits(Some(ocispec::rlimits(&config.spec.ulimits)?));
    process.set_oom_score_adj(config.spec.oom_score_adj);
    Ok((process, seccomp))
}
