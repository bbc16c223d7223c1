//! The container's init: the forked side of [`crate::create`], from the fork to the program. Each step stands where the
//! kernel needs it; the order is the story of this file.

mod become_program;
mod copy_up;
mod devices;
mod mounts;
mod paths;
mod reaper;

pub(crate) use become_program::{Environment, Streams, run_program};

use crate::channel::{self, Failure, FromInit, ToInit, bounded};
use crate::plan::Plan;
use crate::process::ProcessPlan;
use crate::{Root, Stdio, hooks};
use linux::mount::{self, Attributes};
use linux::process::Namespaces;
use linux::{pty, resolve};
use rustix::fs::OFlags;
use rustix::process::DumpableBehavior;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

pub(crate) const MAKER_IS_GONE: &str = "the process that makes this container is gone";

/// What the steps hand on to one another.
pub(crate) struct Setup<'a> {
    pub(crate) plan: &'a Plan<'a>,
    /// The container's root, attached in this mount namespace.
    pub(crate) root: OwnedFd,
    /// The mount namespace's root, where this process was made in a chroot.
    pub(crate) outer_root: Option<OwnedFd>,
    /// A procfs of our own: what the image or a mount puts at /proc is never written to.
    pub(crate) proc: Option<OwnedFd>,
    pub(crate) terminal: Option<pty::Pty>,
    pub(crate) warnings: Vec<String>,
}

/// The whole life of the init; never returns. Its maker learns of a failure through the channel.
pub(crate) fn run(plan: Plan<'_>, channel: OwnedFd) -> ! {
    match live(plan, channel.as_fd()) {
        Ok(never) => match never {},
        Err(failure) => give_up(failure, channel),
    }
}

/// Tells the maker why there will be no container, and ends.
pub(crate) fn give_up(failure: Failure, channel: OwnedFd) -> ! {
    let failure = Failure { message: bounded(&failure.message), ..failure };
    // If nobody listens any more there is nobody to tell.
    let _told = channel::send(channel.as_fd(), &FromInit::Failed(failure), None);
    linux::process::exit_now(1)
}

fn live(plan: Plan<'_>, channel: BorrowedFd<'_>) -> Result<std::convert::Infallible, Failure> {
    // Never dropped: `run_program` closes what it owns.
    let mut plan = ManuallyDrop::new(plan);
    let plan = &mut *plan;
    // First of all, while this is the only thread in no new cgroup namespace yet: cheap only for oneself.
    if !plan.is_entered {
        enter_group(plan, channel)?;
        join_namespaces(plan)?;
    }
    let pid_outside = pid_outside(&plan.process);
    enter_namespaces(plan, channel)?;
    if plan.awaits_devices {
        ask(channel, &FromInit::MoveDevices)?;
    }
    if plan.has_runtime_hooks {
        ask(channel, &FromInit::RunHooks)?;
    }
    let outer_root = mount::namespace_root()?;
    if plan.created.contains(Namespaces::MOUNT) {
        // Nothing mounted here may show up outside. Slave, not private: what the host unmounts goes away here as well.
        let shared = plan.propagation.0 == mount::SHARED;
        let propagation = if shared { mount::SHARED } else { mount::SLAVE };
        match &outer_root {
            Some(outer) => mount::set_attributes(outer.as_fd(), Attributes::propagation(propagation), true)?,
            None => mount::set_propagation_of_all(propagation)?,
        }
    }
    let setup = set_up_root(plan, outer_root, channel)?;
    set_names(plan)?;
    hooks::run(plan.container_hooks, &plan.identity.state("creating", own_pid())).map_err(Failure::set_up)?;
    let Setup { root, proc, terminal, warnings, outer_root, .. } = setup;
    if let Some(outer_root) = outer_root {
        mount::change_root(outer_root.as_fd())?;
    }
    // In somebody else's mount namespace the root is theirs.
    mount::enter_root(root.as_fd(), plan.created.contains(Namespaces::MOUNT) && !plan.no_pivot)?;
    seal_root(plan, root.as_fd())?;
    drop(root);

    let stdio = std::mem::replace(&mut plan.stdio, Stdio::Terminal { size: None });
    let (streams, console) = match (terminal, stdio) {
        (Some(pty), _) => (Streams::Terminal(pty.slave), Some(pty.master)),
        (None, Stdio::Fds { stdin, stdout, stderr }) => (Streams::Fds([stdin, stdout, stderr]), None),
        (None, Stdio::Terminal { .. }) => return Err(Failure::set_up("there is no terminal")),
    };
    let environment = Environment {
        process: &plan.process,
        proc,
        streams,
        console,
        channel,
        die_with_parent: plan.die_with_parent,
        listener: plan.listener.take(),
        extra_fds: std::mem::take(&mut plan.extra_fds),
        is_on_its_own: false,
        reaper: plan.reaper,
        born_last: false,
        start_hooks: plan.start_hooks,
        agent_state: plan.identity.state("creating", pid_outside),
        pid_outside,
        identity: Some(plan.identity),
        keyring: plan.keyring.take(),
        warnings,
    };
    run_program(environment)
}

/// This process as its own pid namespace knows it.
fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// This process as the host knows it, where somebody is to be told: only the host's /proc says.
fn pid_outside(process: &ProcessPlan) -> i32 {
    if process.filter.is_none() {
        return 0;
    }
    let link = std::fs::read_link("/proc/self").ok();
    link.and_then(|link| link.to_str()?.parse().ok()).unwrap_or(0)
}

/// Sends a request and waits until it is done.
pub(crate) fn ask(channel: BorrowedFd<'_>, request: &FromInit) -> Result<(), Failure> {
    channel::send(channel, request, None)?;
    match channel::receive::<ToInit>(channel)? {
        Some((ToInit::Done, _)) => Ok(()),
        _ => Err(Failure::set_up(MAKER_IS_GONE)),
    }
}

/// Into the control group, which may be made around this process only now.
pub(crate) fn enter_group(plan: &mut Plan<'_>, channel: BorrowedFd<'_>) -> Result<(), Failure> {
    plan.membership.enter()?;
    if !plan.group_follows {
        return Ok(());
    }
    channel::send(channel, &FromInit::EnterGroup, None)?;
    match channel::receive::<ToInit>(channel)? {
        Some((ToInit::InGroup { path }, _)) => {
            plan.cgroup_folders.iter_mut().for_each(|folder| *folder = folder.of_group(&path));
            Ok(())
        }
        _ => Err(Failure::set_up(MAKER_IS_GONE)),
    }
}

fn join_namespaces(plan: &Plan<'_>) -> Result<(), Failure> {
    if let Some(netns) = plan.netns {
        linux::process::join_namespace(netns, Namespaces::NETWORK)
            .map_err(|e| Failure::set_up(format!("join the network namespace: {e}")))?;
    }
    for (kind, path, namespace) in &plan.joined {
        linux::process::join_namespace(namespace.as_fd(), *kind)
            .map_err(|e| Failure::set_up(format!("join namespace {}: {e}", path.display())))?;
    }
    Ok(())
}

/// Root of the user namespace this process has come to, whoever it was.
pub(crate) fn become_root() -> Result<(), Failure> {
    set_dumpable(DumpableBehavior::NotDumpable)?;
    rustix::thread::set_thread_gid(rustix::process::Gid::ROOT)
        .and_then(|()| rustix::thread::set_thread_uid(rustix::process::Uid::ROOT))
        .map_err(|e| Failure::set_up(format!("become root of the user namespace: {e}")))
}

fn enter_namespaces(plan: &Plan<'_>, channel: BorrowedFd<'_>) -> Result<(), Failure> {
    if plan.created.contains(Namespaces::USER) {
        if plan.by_ordinary_user {
            // Until then its files in /proc are root's, and the maps not this user's to write.
            set_dumpable(DumpableBehavior::Dumpable)?;
        }
        ask(channel, &FromInit::MapIds)?;
        become_root()?;
    }
    if plan.new_cgroup_namespace {
        linux::process::unshare(Namespaces::CGROUP)?;
    }
    if let Some(clocks) = &plan.clocks {
        enter_time_namespace(clocks, plan.in_user_namespace)
            .map_err(|e| Failure::set_up(format!("make a time namespace: {e}")))?;
    }
    Ok(())
}

fn set_dumpable(how: DumpableBehavior) -> Result<(), linux::CallError> {
    rustix::process::set_dumpable_behavior(how).map_err(|e| linux::CallError::new("prctl", "PR_SET_DUMPABLE", e))
}

/// A new time namespace is for children first: it is given its offsets, then entered by its file.
fn enter_time_namespace(clocks: &str, in_user_namespace: bool) -> Result<(), linux::CallError> {
    linux::process::unshare(Namespaces::TIME)?;
    if !clocks.is_empty() {
        let path = Path::new("/proc/self/timens_offsets");
        // The files of a process that can't be looked into belong to the host's root.
        if in_user_namespace {
            set_dumpable(DumpableBehavior::Dumpable)?;
        }
        let file = resolve::open_host(path, OFlags::WRONLY);
        set_dumpable(DumpableBehavior::NotDumpable)?;
        rustix::io::write(file?, clocks.as_bytes()).map_err(|e| linux::CallError::path("write", path, e))?;
    }
    let fresh = resolve::open_host(Path::new("/proc/self/ns/time_for_children"), OFlags::RDONLY)?;
    linux::process::join_namespace(fresh.as_fd(), Namespaces::TIME)
}

fn set_up_root<'a>(
    plan: &'a Plan<'a>,
    outer_root: Option<OwnedFd>,
    channel: BorrowedFd<'_>,
) -> Result<Setup<'a>, Failure> {
    // Modes are given in full below.
    rustix::process::umask(rustix::fs::Mode::empty());
    let root = attach_root(plan, outer_root.as_ref())?;
    if !plan.created.contains(Namespaces::MOUNT) {
        // Whatever goes wrong from here on, its maker has to take it away again.
        channel::send(channel, &FromInit::Attached, None)?;
    }
    let mut setup = Setup { plan, root, outer_root, proc: None, terminal: None, warnings: Vec::new() };
    mounts::mount_all(&mut setup)?;
    devices::make_all(&mut setup)?;
    paths::write_sysctls(&mut setup)?;
    // Before the root may become read-only: a working directory that is not there is made, as docker does.
    resolve::create_dir(setup.root.as_fd(), &plan.process.cwd, 0o755)
        .map_err(|e| Failure::set_up(format!("working directory {}: {e}", plan.process.cwd.display())))?;
    paths::protect(&setup)?;
    Ok(setup)
}

fn attach_root(plan: &Plan<'_>, outer_root: Option<&OwnedFd>) -> Result<OwnedFd, Failure> {
    let at = |e: linux::CallError| Failure::set_up(format!("the container's root: {e}"));
    let root = match &plan.root {
        Root::Mounted(mount) => mount.try_clone().map_err(|e| Failure::set_up(format!("the container's root: {e}")))?,
        Root::Path(path) => {
            mount::clone_tree(path, true).map_err(|e| Failure::set_up(format!("rootfs {}: {e}", path.display())))?
        }
    };
    if plan.propagation.0 != mount::SHARED {
        mount::set_attributes(root.as_fd(), Attributes::propagation(mount::PRIVATE), true).map_err(at)?;
    }
    let target = match (&plan.root, outer_root) {
        // Where others live only the folder itself may be mounted over.
        (Root::Path(path), _) if !plan.created.contains(Namespaces::MOUNT) => Some(path.as_path()),
        (_, Some(outer_root)) => {
            mount::attach(root.as_fd(), outer_root.as_fd()).map_err(at)?;
            None
        }
        // Over this process's own "/": lookups still start below it, so the host's paths stay in reach until the pivot.
        _ => Some(Path::new("/")),
    };
    if let Some(target) = target {
        let target = resolve::open_host(target, OFlags::PATH | OFlags::DIRECTORY).map_err(at)?;
        mount::attach(root.as_fd(), target.as_fd()).map_err(at)?;
    }
    Ok(root)
}

/// After the last file was made in it.
fn seal_root(plan: &Plan<'_>, root: BorrowedFd<'_>) -> Result<(), Failure> {
    if plan.root_read_only {
        mount::set_attributes(root, Attributes::read_only(), false)?;
    }
    if plan.propagation.0 != 0 && plan.propagation.0 != mount::PRIVATE {
        let (propagation, recursive) = plan.propagation;
        mount::set_attributes(root, Attributes::propagation(propagation), recursive)?;
    }
    Ok(())
}

fn set_names(plan: &Plan<'_>) -> Result<(), Failure> {
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes())
            .map_err(|e| Failure::set_up(format!("set the hostname {name:?}: {e}")))?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes())
            .map_err(|e| Failure::set_up(format!("set the domain name {name:?}: {e}")))?;
    }
    Ok(())
}
