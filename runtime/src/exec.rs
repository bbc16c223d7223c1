//! A further process in a running container.

use crate::cgroup::Membership;
use crate::channel::{self, Failure, FromInit, ToInit, bounded};
use crate::container::{Identity, end, in_pid_namespace};
use crate::init::{Environment, Streams, run_program};
use crate::plan::keyring_name;
use crate::process::ProcessPlan;
use crate::seccomp::Filter;
use crate::{Cgroup, RuntimeError, Stdio};
use linux::process::{Forked, Namespaces};
use linux::{CallError, pty, resolve};
use oci_spec::runtime::{Linux, LinuxSeccomp, Process};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
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
    /// The folder it is described in.
    pub bundle: &'a Path,
    /// The container's init; its namespaces are joined.
    pub init: BorrowedFd<'a>,
    /// The init's pid, to read /proc by.
    pub init_pid: Pid,
    /// Program, user, capabilities, limits.
    pub process: &'a Process,
    /// The container's spec, for what all of its processes have in common.
    pub linux: Option<&'a Linux>,
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
    let mut plan = ProcessPlan::new(request.process, request.seccomp, request.linux, &mut warnings)?;
    plan.attributes = std::mem::take(&mut plan.attributes).on_cpus_of(request.process)?;
    let membership = request.cgroup.membership()?;
    let namespaces = foreign_namespaces(request.init_pid)?;
    // The agent is to be told of the process that is born, not of its helper.
    let born_last = can_trace(request.init_pid) && plan.filter.as_ref().and_then(Filter::agent).is_none();
    let (ours, theirs) = channel::pair()?;
    let fork = || match linux::process::fork_into(Namespaces::none(), membership.v2()) {
        // An ordinary user can't come to a group from everywhere; the process stays in the caller's.
        Err(error) if error.errno == Errno::ACCESS && !linux::userns::is_initial() => {
            linux::process::fork_into(Namespaces::none(), None)
        }
        // The container has split its group up: into the part that its init is in.
        Err(error) if error.errno == Errno::BUSY => {
            let Ok(Some(group)) = request.cgroup.v2_group_of(request.init_pid) else { return Err(error) };
            linux::process::fork_into(Namespaces::none(), Some(group.as_fd()))
        }
        forked => forked,
    };
    let helper = match in_pid_namespace(None, fork)? {
        Forked::Child => {
            let entered = enter(&request, &plan, &membership, namespaces, theirs.as_fd());
            let born = entered.and_then(|()| if born_last { Ok(()) } else { bear(theirs.as_fd()) });
            let Err(failure) = born.and_then(|()| live(request, &plan, theirs.as_fd(), born_last));
            let failure = Failure { message: bounded(&failure.message), ..failure };
            // If nobody listens any more there is nobody to tell.
            let _told = channel::send(theirs.as_fd(), &FromInit::Failed(failure), None);
            linux::process::exit_now(1)
        }
        Forked::Parent { pidfd, .. } => pidfd,
    };
    drop(theirs);
    let mut watch = Watch { channel: ours, born: None, ready: None, born_last };
    let done = watch.until_executed(helper.as_fd());
    linux::process::reap(helper.as_fd())?;
    watch.hear_of_birth();
    match (done, watch.born, watch.ready) {
        (Ok(()), Some((pid, pidfd)), Some((console, more))) => {
            warnings.extend(more);
            Ok(Executed { pid, pidfd, console, warnings })
        }
        (done, born, _) => {
            if let Some((_, pidfd)) = born {
                end(pidfd.as_fd());
            }
            done.and(Err(RuntimeError::Init(DIED.to_owned())))
        }
    }
}

const DIED: &str = "the process died before its program ran; is the container running?";

/// Whether processes of the container may have CAP_SYS_PTRACE: to them a process that was born among them is open, whatever the
/// dumpable flag says, with all that it may still do until it has dropped its privileges.
fn can_trace(init: Pid) -> bool {
    const SYS_PTRACE: u32 = 19;
    let status = fs::read_to_string(format!("/proc/{}/status", init.as_raw_nonzero())).unwrap_or_default();
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bounding = bounding.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    bounding.is_none_or(|set| set >> SYS_PTRACE & 1 == 1)
}

/// The helper's first part: it goes where the process is to be, and lets go of all that leads back. Whoever is in the container and
/// has CAP_SYS_PTRACE may see the process's root, working directory and descriptors from its first moment on.
fn enter(
    request: &ExecRequest<'_>,
    plan: &ProcessPlan,
    membership: &Membership,
    namespaces: Namespaces,
    channel: BorrowedFd<'_>,
) -> Result<(), Failure> {
    plan.attributes.apply_first()?;
    // Before a new cgroup namespace is joined: what delegates by namespaces would refuse it.
    membership.enter()?;
    if !namespaces.is_empty() {
        // Joining a mount namespace moves root and working directory to its root.
        linux::process::join_process(request.init, namespaces)
            .map_err(|e| Failure::set_up(format!("join the container's namespaces: {e}")))?;
    }
    let mut keep: Vec<_> = request.extra_fds.iter().map(AsFd::as_fd).collect();
    keep.push(channel);
    keep.extend(plan.filter.as_ref().and_then(Filter::agent));
    if let Stdio::Fds { stdin, stdout, stderr } = &request.stdio {
        keep.extend([stdin, stdout, stderr].map(AsFd::as_fd));
    }
    Ok(linux::process::close_others(&keep)?)
}

/// The helper's end: returns in the process, its sibling, born in the container's pid namespace.
pub(crate) fn bear(channel: BorrowedFd<'_>) -> Result<(), Failure> {
    match linux::process::fork_sibling()? {
        Forked::Child => Ok(()),
        Forked::Parent { pidfd, .. } => {
            let told = channel::send(channel, &FromInit::Born, Some(pidfd.as_fd()));
            linux::process::exit_now(u8::from(told.is_err()))
        }
    }
}

/// The caller's side of it.
struct Watch {
    channel: OwnedFd,
    born: Option<(Pid, OwnedFd)>,
    ready: Option<(Option<OwnedFd>, Vec<String>)>,
    /// It is born when it was told to start.
    born_last: bool,
}

impl Watch {
    /// Starts the process as soon as it is born and ready, in whichever order that is heard; the end of the stream is the exec.
    fn until_executed(&mut self, helper: BorrowedFd<'_>) -> Result<(), RuntimeError> {
        loop {
            if self.born.is_none() && !channel::has_news(self.channel.as_fd(), helper)? {
                return Err(RuntimeError::Init(DIED.to_owned()));
            }
            match channel::receive::<FromInit>(self.channel.as_fd())? {
                Some((FromInit::Born, Some(pidfd))) if self.born.is_none() => {
                    self.born = Some((linux::process::pid_of(pidfd.as_fd())?, pidfd));
                    if self.born_last {
                        continue;
                    }
                }
                Some((FromInit::Ready { warnings }, console)) if self.ready.is_none() => {
                    self.ready = Some((console, warnings));
                    if self.born_last {
                        channel::send(self.channel.as_fd(), &ToInit::Start { pid: None }, None)?;
                    }
                }
                Some((FromInit::Failed(failure), _)) => return Err(failure.into()),
                Some(_) => return Err(RuntimeError::Init("it said something unexpected".to_owned())),
                None => return Ok(()),
            }
            if let (Some((pid, _)), Some(_)) = (&self.born, &self.ready) {
                let pid = Some(pid.as_raw_nonzero().get());
                channel::send(self.channel.as_fd(), &ToInit::Start { pid }, None)?;
            }
        }
    }

    /// The process may have failed before its birth was heard of; it is to be reaped all the same. The helper is gone by now, so
    /// what it said is there.
    fn hear_of_birth(&mut self) {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let said =
            |channel: &OwnedFd| poll(&mut [PollFd::new(channel, PollFlags::IN)], Some(&now)).is_ok_and(|n| n > 0);
        while self.born.is_none() && said(&self.channel) {
            match channel::receive::<FromInit>(self.channel.as_fd()) {
                Ok(Some((FromInit::Born, Some(pidfd)))) => {
                    self.born = linux::process::pid_of(pidfd.as_fd()).ok().zip(Some(pidfd));
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return,
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

/// The forked side, in the container's namespaces.
fn live(
    request: ExecRequest<'_>,
    plan: &ProcessPlan,
    channel: BorrowedFd<'_>,
    born_last: bool,
) -> Result<Infallible, Failure> {
    let identity = Identity { id: request.id, bundle: request.bundle, annotations: None };
    let agent_state = identity.state("running", request.init_pid.as_raw_nonzero().get());
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
                .map_err(|e| CallError::new("fchown", "the terminal", e))?;
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
        is_on_its_own: false,
        reaper: false,
        born_last,
        start_hooks: &[],
        identity: None,
        agent_state,
        pid_outside: 0,
        keyring: Some(keyring_name(request.id)),
        warnings: Vec::new(),
    })
}
