//! Making a container: the caller's side. The other is [`crate::init`].

use crate::channel::{self, FromInit, ToInit};
use crate::plan::{Plan, plan};
use crate::systemd::Scope;
use crate::{Cgroup, OCI_VERSION, RuntimeError, birth, detach, hooks, init, net_devices, process};
use linux::process::{Forked, Namespaces};
use linux::userns::{self, IdRange};
use linux::{CallError, resolve};
use oci_spec::runtime::{Hook, Linux, LinuxIdMapping, Spec};
use rustix::fs::OFlags;
use rustix::process::{DumpableBehavior, Pid, Rlimit, Signal};
use std::cell::Cell;
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where the container's root comes from.
#[derive(Debug)]
pub enum Root {
    /// A detached mount ([`linux::mount::overlay`]); attached in the container's own mount namespace alone.
    Mounted(OwnedFd),
    /// A folder; bind-mounted in the container's mount namespace.
    Path(PathBuf),
}

/// Where the program's standard streams go.
#[derive(Debug)]
pub enum Stdio {
    /// These descriptors.
    Fds {
        /// Standard input.
        stdin: OwnedFd,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
    /// A pty opened in the container's own devpts; its master comes back as `console`.
    Terminal {
        /// Rows and columns to begin with.
        size: Option<(u16, u16)>,
    },
}

/// Which control group the container lives in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CgroupRequest {
    /// The caller's own; no limits.
    #[default]
    Inherit,
    /// This path (`/ctr/<id>`) in every hierarchy, made by `create`. Limits come from the spec's `linux.resources`.
    Path(String),
    /// A scope of systemd's, made around the init. Limits come from the spec's `linux.resources`.
    Systemd(Scope),
}

/// The source of a mount given as a detached mount instead of the spec's source path (open_tree with
/// OPEN_TREE_CLONE, or an fsmount).
#[derive(Debug)]
pub struct MountSource {
    /// The `destination` of the spec's mount this is for.
    pub destination: PathBuf,
    /// The detached mount.
    pub mount: OwnedFd,
}

/// Everything a container is made from.
#[derive(Debug)]
pub struct CreateRequest<'a> {
    /// The container's id: hook state and messages.
    pub id: &'a str,
    /// What to run and how.
    pub spec: &'a Spec,
    /// The folder it is described in, for hooks.
    pub bundle: &'a Path,
    /// The root file system.
    pub root: Root,
    /// The program's streams.
    pub stdio: Stdio,
    /// Joined instead of what the spec's network namespace says.
    pub netns: Option<BorrowedFd<'a>>,
    /// Mounts whose source is a descriptor.
    pub mount_sources: Vec<MountSource>,
    /// The control group.
    pub cgroup: CgroupRequest,
    /// SIGKILL the init when the caller dies.
    pub die_with_parent: bool,
    /// `--init`: pid 1 is a small reaper of our own that forwards signals to the program.
    pub init: bool,
    /// Descriptors 3.. the program keeps (`--preserve-fds`), in this order.
    pub extra_fds: Vec<OwnedFd>,
    /// Enter the root by chroot instead of pivot_root, for a host whose own root is a ramfs.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
}

/// A container that is set up and waits for [`Created::start`]. Dropping it un-started makes the init notice and exit.
#[derive(Debug)]
pub struct Created {
    /// The init's pid in the caller's pid namespace. The init is a child of the caller, which reaps it.
    pub pid: Pid,
    /// The init by descriptor; poll it for the exit.
    pub pidfd: OwnedFd,
    /// The pty's master with [`Stdio::Terminal`].
    pub console: Option<OwnedFd>,
    /// The container's control group.
    pub cgroup: Cgroup,
    /// What could not be done but was no reason to fail.
    pub warnings: Vec<String>,
    channel: Option<OwnedFd>,
}

/// Sets a container up. Single-threaded callers only. Nothing is left behind when it fails.
pub fn create(request: CreateRequest<'_>) -> Result<Created, RuntimeError> {
    create_with(request, None)
}

/// As [`create`], for a caller that ends before the container is started: the init waits for a connection to `listener`
/// (a listening seqpacket socket), over which [`start_over`] starts it.
pub fn create_listening(request: CreateRequest<'_>, listener: OwnedFd) -> Result<Created, RuntimeError> {
    let mut created = create_with(request, Some(listener))?;
    created.channel = None;
    Ok(created)
}

/// Executes the program of a container made by [`create_listening`], over a connection to its listener.
pub fn start_over(connection: BorrowedFd<'_>) -> Result<(), RuntimeError> {
    start_through(connection)
}

fn create_with(request: CreateRequest<'_>, listener: Option<OwnedFd>) -> Result<Created, RuntimeError> {
    let threads = linux::process::thread_count()?;
    if threads != 1 {
        return Err(RuntimeError::Threads(threads));
    }
    let mut warnings = Vec::new();
    let mut cgroup = match &request.cgroup {
        CgroupRequest::Inherit | CgroupRequest::Systemd(_) => Cgroup::inherited(),
        CgroupRequest::Path(path) => {
            let resources = request.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
            Cgroup::create(path, resources, &mut warnings)?
        }
    };
    match create_in(request, listener, &mut cgroup, warnings) {
        Ok(created) => Ok(created),
        Err(error) => {
            // The first error is the one to tell; a folder that stays is empty and taken over by the next attempt.
            let _removed = cgroup.remove();
            Err(error)
        }
    }
}

fn create_in(
    request: CreateRequest<'_>,
    listener: Option<OwnedFd>,
    cgroup: &mut Cgroup,
    mut warnings: Vec<String>,
) -> Result<Created, RuntimeError> {
    let spec = request.spec;
    let hooks_of = |pick: fn(&oci_spec::runtime::Hooks) -> &Option<Vec<Hook>>| {
        spec.hooks().as_ref().and_then(|hooks| pick(hooks).as_deref()).unwrap_or_default()
    };
    #[allow(deprecated)] // Deprecated by the spec, still used by GPU toolkits.
    let runtime_hooks = [hooks_of(|h| h.prestart()), hooks_of(|h| h.create_runtime())];
    let identity = Identity { id: request.id, bundle: request.bundle, annotations: spec.annotations().as_ref() };
    let root_path = if let Root::Path(path) = &request.root { Some(path.clone()) } else { None };
    let scope = if let CgroupRequest::Systemd(scope) = &request.cgroup { Some(scope.clone()) } else { None };
    let mut plan = plan(request, cgroup, &mut warnings)?;
    plan.listener = listener;
    let created = plan.created;
    let pid_namespace = plan.joined.iter().find(|(kind, ..)| *kind == Namespaces::PID).map(|(.., fd)| fd.try_clone());
    let pid_namespace = pid_namespace.transpose().map_err(|e| RuntimeError::file("dup", "the pid namespace", e))?;
    let (ours, theirs) = channel::pair()?;
    let mut scope_warnings = Vec::new();
    let mut enter_group = |pid| {
        let Some(scope) = &scope else { return Ok(()) };
        let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        *cgroup = Cgroup::of_scope(&scope.start(pid, resources, spec.annotations().as_ref())?, scope)?;
        cgroup.limit(resources, &mut scope_warnings)?;
        let path = cgroup.path().to_owned();
        Ok(channel::send(ours.as_fd(), &ToInit::InGroup { path }, None)?)
    };
    let (pid, pidfd) = if plan.joins_user_namespace() {
        birth::within(plan, theirs, ours.as_fd(), &mut enter_group, |pid| raise_limits(pid, spec))?
    } else {
        fork_init(plan, theirs, pid_namespace)?
    };
    let maker = Maker { channel: ours.as_fd(), pidfd, pid, attached: Cell::new(false) };
    let ready = maker.accompany(created, spec, &mut enter_group, |pid| {
        let state = identity.state("creating", pid.as_raw_nonzero().get());
        runtime_hooks.iter().try_for_each(|hooks| hooks::run(hooks, &state)).map_err(RuntimeError::Init)
    });
    match ready {
        Ok((console, more)) => {
            let Maker { pidfd, pid, .. } = maker;
            warnings.extend(scope_warnings);
            warnings.extend(more);
            Ok(Created { pid, pidfd, console, cgroup: cgroup.clone(), warnings, channel: Some(ours) })
        }
        Err(error) => {
            end(maker.pidfd.as_fd());
            if let (true, Some(path)) = (maker.attached.get(), &root_path) {
                // The first error is the one to tell.
                let _detached = detach::joined_mount_namespace(spec).map(|ns| detach::detach_root(spec, path, ns));
            }
            Err(error)
        }
    }
}

/// Kills and reaps a child that must not go on.
pub(crate) fn end(pidfd: BorrowedFd<'_>) {
    // Already dead is as good.
    let _killed = linux::process::send_signal(pidfd, Signal::KILL.as_raw());
    let _reaped = linux::process::reap(pidfd);
}

/// Forks the init. Before it, this process stops being dumpable: from its first instruction in the container's pid namespace
/// nobody there may look into the child.
fn fork_init(plan: Plan<'_>, channel: OwnedFd, pid_namespace: Option<OwnedFd>) -> Result<(Pid, OwnedFd), RuntimeError> {
    let created = plan.created;
    let forked = in_pid_namespace(pid_namespace.as_ref().map(AsFd::as_fd), || {
        linux::process::fork_into(created, plan.membership.v2())
    })?;
    match forked {
        Forked::Child => init::run(plan, channel),
        Forked::Parent { pid, pidfd } => Ok((pid, pidfd)),
    }
}

/// Runs a fork whose child is born non-dumpable and, if given, in another pid namespace.
pub(crate) fn in_pid_namespace(
    namespace: Option<BorrowedFd<'_>>,
    fork: impl FnOnce() -> Result<Forked, CallError>,
) -> Result<Forked, RuntimeError> {
    let at = |errno| CallError::new("prctl", "PR_SET_DUMPABLE", errno);
    let before = rustix::process::dumpable_behavior().map_err(at)?;
    let own = match namespace {
        Some(namespace) => {
            let own = resolve::open_host(Path::new("/proc/self/ns/pid"), OFlags::RDONLY)?;
            linux::process::join_namespace(namespace, Namespaces::PID)?;
            Some(own)
        }
        None => None,
    };
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(at)?;
    let forked = fork();
    if matches!(forked, Ok(Forked::Child)) {
        return Ok(forked?);
    }
    rustix::process::set_dumpable_behavior(before).map_err(at)?;
    if let Some(own) = own {
        match linux::process::join_namespace(own.as_fd(), Namespaces::PID) {
            // In a user namespace there is no way back into the machine's: later children are in the container's, too.
            Err(error) if error.errno == rustix::io::Errno::PERM && !linux::userns::is_initial() => {}
            back => back?,
        }
    }
    Ok(forked?)
}

/// The caller's side of the conversation with an init.
struct Maker<'a> {
    channel: BorrowedFd<'a>,
    pidfd: OwnedFd,
    pid: Pid,
    /// The root is mounted in a namespace that the container has joined.
    attached: Cell<bool>,
}

impl Maker<'_> {
    /// Does what the init asks for until it is ready: the terminal's master and its warnings.
    fn accompany(
        &self,
        created: Namespaces,
        spec: &Spec,
        enter_group: &mut dyn FnMut(Pid) -> Result<(), RuntimeError>,
        run_hooks: impl Fn(Pid) -> Result<(), RuntimeError>,
    ) -> Result<(Option<OwnedFd>, Vec<String>), RuntimeError> {
        loop {
            match channel::receive::<FromInit>(self.channel)? {
                Some((FromInit::EnterGroup, _)) => enter_group(self.pid)?,
                Some((FromInit::MapIds, _)) if created.contains(Namespaces::USER) => {
                    let of = |pick: fn(&Linux) -> &Option<Vec<LinuxIdMapping>>| {
                        spec.linux().as_ref().and_then(|linux| pick(linux).as_deref()).unwrap_or_default()
                    };
                    map_ids(self.pid, of(Linux::uid_mappings), of(Linux::gid_mappings))?;
                    raise_limits(self.pid, spec)?;
                    channel::send(self.channel, &ToInit::Done, None)?;
                }
                Some((FromInit::Attached, _)) => self.attached.set(true),
                Some((FromInit::MoveDevices, _)) => {
                    let devices = spec.linux().as_ref().and_then(|linux| linux.net_devices().as_ref());
                    devices.map_or(Ok(()), |devices| net_devices::move_all(devices, self.pid))?;
                    channel::send(self.channel, &ToInit::Done, None)?;
                }
                Some((FromInit::RunHooks, _)) => {
                    run_hooks(self.pid)?;
                    channel::send(self.channel, &ToInit::Done, None)?;
                }
                Some((FromInit::Ready { warnings }, console)) => return Ok((console, warnings)),
                Some((FromInit::Failed(failure), _)) => return Err(failure.into()),
                Some((FromInit::MapIds | FromInit::Born, _)) | None => {
                    return Err(RuntimeError::Init(
                        "it died before it was set up (killed, or out of memory?)".to_owned(),
                    ));
                }
            }
        }
    }
}

fn start_through(channel: BorrowedFd<'_>) -> Result<(), RuntimeError> {
    let died = |_| RuntimeError::Init("it died before it was started".to_owned());
    channel::send(channel, &ToInit::Start { pid: None }, None).map_err(died)?;
    // The end of the stream is the exec: the channel closes by it.
    match channel::receive::<FromInit>(channel)? {
        None => Ok(()),
        Some((FromInit::Failed(failure), _)) => Err(failure.into()),
        Some(_) => Err(RuntimeError::Init("it said something unexpected".to_owned())),
    }
}

impl Created {
    /// Executes the program. The error's exit code is 126 or 127 when that is what failed; the init has exited and is reaped
    /// then, its cgroup is for the caller to remove.
    pub fn start(&mut self) -> Result<(), RuntimeError> {
        let Some(channel) = self.channel.take() else {
            return Err(RuntimeError::Spec("the container is started already".to_owned()));
        };
        start_through(channel.as_fd()).inspect_err(|_| end(self.pidfd.as_fd()))
    }

    /// Signals the init.
    pub fn kill(&self, signal: Signal) -> Result<(), RuntimeError> {
        Ok(linux::process::send_signal(self.pidfd.as_fd(), signal.as_raw())?)
    }

    /// Blocks until the init is gone and reaps it: its exit code, 128 + the signal's number if killed.
    pub fn wait(&self) -> Result<u8, RuntimeError> {
        Ok(linux::process::reap(self.pidfd.as_fd())?)
    }
}

/// Who a container is, for hooks and agents.
#[derive(Clone, Copy)]
pub(crate) struct Identity<'a> {
    pub(crate) id: &'a str,
    pub(crate) bundle: &'a Path,
    pub(crate) annotations: Option<&'a HashMap<String, String>>,
}

impl Identity<'_> {
    /// What hooks read on their standard input: the container's state.
    pub(crate) fn state(&self, status: &str, pid: i32) -> Vec<u8> {
        let state = serde_json::json!({
            "ociVersion": OCI_VERSION,
            "id": self.id,
            "status": status,
            "pid": pid,
            "bundle": self.bundle,
            "annotations": self.annotations.unwrap_or(&HashMap::new()),
        });
        state.to_string().into_bytes()
    }
}

/// Raises a child's hard limits as far as its spec wants them: in a user namespace of its own it may not do so itself.
fn raise_limits(pid: Pid, spec: &Spec) -> Result<(), RuntimeError> {
    let Some(process) = spec.process() else { return Ok(()) };
    for (resource, _, wanted) in process::limits(process)? {
        let now = rustix::process::getrlimit(resource);
        if wanted.maximum.unwrap_or(u64::MAX) > now.maximum.unwrap_or(u64::MAX) {
            // Where this process may not either, the child says what it got.
            let raised = Rlimit { current: now.current, maximum: wanted.maximum };
            let _may = rustix::process::prlimit(Some(pid), resource, raised);
        }
    }
    Ok(())
}

/// Writes the mappings of a child's new user namespace.
pub(crate) fn map_ids(pid: Pid, uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<(), RuntimeError> {
    let range =
        |map: &LinuxIdMapping| IdRange { inside: map.container_id(), outside: map.host_id(), count: map.size() };
    let [users, groups] = [uids, gids].map(|maps| maps.iter().map(range).collect::<Vec<_>>());
    Ok(userns::write_maps(pid.as_raw_nonzero().get(), &users, &groups)?)
}
