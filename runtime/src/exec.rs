//! A further process in a running container.

use crate::channel::{self, Failure, FromInit, ToInit, bounded};
use crate::container::{end, in_pid_namespace};
use crate::init::{Environment, Streams, run_program};
use crate::plan::keyring_name;
use crate::process::ProcessPlan;
use crate::{Cgroup, RuntimeError, Stdio};
use linux::process::{Forked, Namespaces};
use linux::{pty, resolve};
use oci_spec::runtime::{LinuxSeccomp, Process};
use rustix::fs::OFlags;
use rustix::process::Pid;
use std::convert::Infallible;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What to run in which container.
#[derive(Debug)]
pub struct ExecRequest<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The container's init; its namespaces are joined.
    pub init: BorrowedFd<'a>,
    /// The init's pid, to read /proc by.
    pub init_pid: Pid,
    /// Program, user, capabilities, limits.
    pub process: &'a Process,
    /// The container's filter.
    pub seccomp: Option<&'a LinuxSeccomp>,
    /// The program's streams; a terminal's pty comes from the container's devpts.
    pub stdio: Stdio,
    /// The container's control group.
    pub cgroup: &'a Cgroup,
    /// SIGKILL the process when the caller dies.
    pub die_with_parent: bool,
    /// Descriptors 3.. the program keeps (`--preserve-fds`), in this order.
    pub extra_fds: Vec<OwnedFd>,
}

/// A process running in a container, a child of the caller.
#[derive(Debug)]
pub struct Executed {
    /// Its pid in the caller's pid namespace.
    pub pid: Pid,
    /// It by descriptor.
    pub pidfd: OwnedFd,
    /// The pty's master with [`Stdio::Terminal`].
    pub console: Option<OwnedFd>,
    /// What could not be done but was no reason to fail.
    pub warnings: Vec<String>,
}

const NAMESPACES: &[(&str, Namespaces)] = &[
    ("user", Namespaces::USER),
    ("mnt", Namespaces::MOUNT),
    ("pid", Namespaces::PID),
    ("net", Namespaces::NETWORK),
    ("ipc", Namespaces::IPC),
    ("uts", Namespaces::UTS),
    ("cgroup", Namespaces::CGROUP),
    ("time", Namespaces::TIME),
];

/// Runs a process in the container. Returns once its program is executing. Single-threaded callers only.
pub fn exec(request: ExecRequest<'_>) -> Result<Executed, RuntimeError> {
    let threads = linux::process::thread_count()?;
    if threads != 1 {
        return Err(RuntimeError::Threads(threads));
    }
    let mut warnings = Vec::new();
    let plan = ProcessPlan::new(request.process, request.seccomp, &mut warnings)?;
    let membership = request.cgroup.membership()?;
    let namespaces = foreign_namespaces(request.init_pid)?;
    let pid_namespace = if namespaces.contains(Namespaces::PID) {
        let path = PathBuf::from(format!("/proc/{}/ns/pid", request.init_pid.as_raw_nonzero()));
        Some(resolve::open_host(&path, OFlags::RDONLY)?)
    } else {
        None
    };
    let (ours, theirs) = channel::pair()?;
    let fork = || linux::process::fork_into(Namespaces::none(), membership.v2());
    let (pid, pidfd) = match in_pid_namespace(pid_namespace.as_ref().map(AsFd::as_fd), fork)? {
        Forked::Child => {
            drop(ours);
            let entered = membership.enter().map_err(Failure::from);
            let Err(failure) = entered.and_then(|()| live(request, &plan, namespaces, theirs.as_fd()));
            let failure = Failure { message: bounded(&failure.message), ..failure };
            // If nobody listens any more there is nobody to tell.
            let _told = channel::send(theirs.as_fd(), &FromInit::Failed(failure), None);
            linux::process::exit_now(1)
        }
        Forked::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    match accompany(ours.as_fd()) {
        Ok((console, more)) => {
            warnings.extend(more);
            Ok(Executed { pid, pidfd, console, warnings })
        }
        Err(error) => {
            end(pidfd.as_fd());
            Err(error)
        }
    }
}

/// The caller's side: start as soon as it is ready; the end of the stream is the exec.
fn accompany(channel: BorrowedFd<'_>) -> Result<(Option<OwnedFd>, Vec<String>), RuntimeError> {
    let mut ready = None;
    loop {
        match channel::receive::<FromInit>(channel)? {
            Some((FromInit::Ready { warnings }, console)) if ready.is_none() => {
                ready = Some((console, warnings));
                channel::send(channel, &ToInit::Start, None)?;
            }
            Some((FromInit::Failed(failure), _)) => return Err(failure.into()),
            Some(_) => return Err(RuntimeError::Init("it said something unexpected".to_owned())),
            None => {
                let died = || {
                    RuntimeError::Init("the process died before its program ran; is the container running?".to_owned())
                };
                return ready.ok_or_else(died);
            }
        }
    }
}

/// Which of the container's namespaces are not the caller's own; joining one's own is refused for some kinds.
fn foreign_namespaces(init: Pid) -> Result<Namespaces, RuntimeError> {
    let mut foreign = Namespaces::none();
    for (name, kind) in NAMESPACES {
        let path = |pid: &str| PathBuf::from(format!("/proc/{pid}/ns/{name}"));
        let theirs = path(&init.as_raw_nonzero().to_string());
        let link = match fs::read_link(&theirs) {
            // A kernel without namespaces of this kind.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !path("self").exists() => continue,
            link => link.map_err(|e| RuntimeError::file("read", &theirs, e))?,
        };
        if fs::read_link(path("self")).ok() != Some(link) {
            foreign = foreign.with(*kind);
        }
    }
    Ok(foreign)
}

/// The forked side; born in the container's pid namespace already.
fn live(
    request: ExecRequest<'_>,
    plan: &ProcessPlan,
    namespaces: Namespaces,
    channel: BorrowedFd<'_>,
) -> Result<Infallible, Failure> {
    let rest = namespaces.without(Namespaces::PID);
    if !rest.is_empty() {
        linux::process::join_process(request.init, rest)
            .map_err(|e| Failure::set_up(format!("join the container's namespaces: {e}")))?;
    }
    // Joining a mount namespace moves root and working directory to its root.
    let (streams, console) = match request.stdio {
        Stdio::Fds { stdin, stdout, stderr } => (Streams::Fds([stdin, stdout, stderr]), None),
        Stdio::Terminal { size } => {
            let devpts =
                resolve::open_host(Path::new("/dev/pts"), OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW)?;
            let terminal = pty::open(devpts.as_fd())?;
            if let Some((rows, columns)) = size {
                pty::set_size(terminal.slave.as_fd(), rows, columns)?;
            }
            let owner = rustix::fs::Uid::from_raw(plan.uid);
            rustix::fs::fchown(&terminal.slave, Some(owner), None)
                .map_err(|e| linux::CallError::new("fchown", "the terminal", e))?;
            (Streams::Terminal(terminal.slave), Some(terminal.master))
        }
    };
    run_program(Environment {
        process: plan,
        proc: None,
        streams,
        console,
        channel,
        die_with_parent: request.die_with_parent,
        listener: None,
        extra_fds: request.extra_fds,
        reaper: false,
        start_hooks: &[],
        identity: None,
        keyring: Some(keyring_name(request.id)),
        warnings: Vec::new(),
    })
}
