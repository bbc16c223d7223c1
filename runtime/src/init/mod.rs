//! The container's init: the forked side of [`crate::create`], from the fork to the program. Each step stands where the
//! kernel needs it; the order is the story of this file.

mod become_program;
mod devices;
mod mounts;
mod paths;
mod reaper;

pub(crate) use become_program::{Environment, Streams, run_program};

use crate::channel::{self, Failure, FromInit, ToInit, bounded};
use crate::plan::Plan;
use crate::{Root, Stdio, hooks};
use linux::process::Namespaces;
use linux::{mount, pty, resolve};
use rustix::fs::OFlags;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What the steps hand on to one another.
pub(crate) struct Setup<'a> {
    pub(crate) plan: &'a Plan<'a>,
    /// The container's root, attached in this mount namespace.
    pub(crate) root: OwnedFd,
    /// A procfs of our own: what the image or a mount puts at /proc is never written to.
    pub(crate) proc: Option<OwnedFd>,
    pub(crate) terminal: Option<pty::Pty>,
    pub(crate) warnings: Vec<String>,
}

/// The whole life of the init; never returns. Its maker learns of a failure through the channel.
pub(crate) fn run(plan: Plan<'_>, channel: OwnedFd) -> ! {
    let failure = match live(plan, channel.as_fd()) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
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
    plan.membership.enter()?;
    enter_namespaces(plan, channel)?;
    if plan.has_runtime_hooks {
        ask(channel, &FromInit::RunHooks)?;
    }
    // Nothing mounted here may show up outside. Slave, not private: what the host unmounts goes away here as well.
    mount::set_propagation_of_all(if plan.propagation.0 == mount::SHARED { mount::SHARED } else { mount::SLAVE })?;
    let setup = set_up_root(plan)?;
    set_names(plan)?;
    hooks::run(plan.container_hooks, &plan.identity.state("creating", own_pid())).map_err(Failure::set_up)?;
    let Setup { root, proc, terminal, warnings, .. } = setup;
    mount::enter_root(root.as_fd(), !plan.no_pivot)?;
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
        reaper: plan.reaper,
        start_hooks: plan.start_hooks,
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

/// Sends a request and waits until it is done.
pub(crate) fn ask(channel: BorrowedFd<'_>, request: &FromInit) -> Result<(), Failure> {
    channel::send(channel, request, None)?;
    match channel::receive::<ToInit>(channel)? {
        Some((ToInit::Done, _)) => Ok(()),
        _ => Err(Failure::set_up("the process that makes this container is gone")),
    }
}

fn enter_namespaces(plan: &Plan<'_>, channel: BorrowedFd<'_>) -> Result<(), Failure> {
    if let Some(netns) = plan.netns {
        linux::process::join_namespace(netns, Namespaces::NETWORK)
            .map_err(|e| Failure::set_up(format!("join the network namespace: {e}")))?;
    }
    for (kind, path, namespace) in &plan.joined {
        linux::process::join_namespace(namespace.as_fd(), *kind)
            .map_err(|e| Failure::set_up(format!("join namespace {}: {e}", path.display())))?;
    }
    if plan.created.contains(Namespaces::USER) {
        ask(channel, &FromInit::MapIds)?;
        rustix::thread::set_thread_gid(rustix::process::Gid::ROOT)
            .and_then(|()| rustix::thread::set_thread_uid(rustix::process::Uid::ROOT))
            .map_err(|e| Failure::set_up(format!("become root of the user namespace: {e}")))?;
    }
    if plan.new_cgroup_namespace {
        linux::process::unshare(Namespaces::CGROUP)?;
    }
    Ok(())
}

fn set_up_root<'a>(plan: &'a Plan<'a>) -> Result<Setup<'a>, Failure> {
    // Modes are given in full below.
    rustix::process::umask(rustix::fs::Mode::empty());
    let root = attach_root(plan)?;
    let mut setup = Setup { plan, root, proc: None, terminal: None, warnings: Vec::new() };
    mounts::mount_all(&mut setup)?;
    devices::make_all(&mut setup)?;
    paths::write_sysctls(&mut setup)?;
    // Before the root may become read-only: a working directory that is not there is made, as docker does.
    resolve::create_dir(setup.root.as_fd(), &plan.process.cwd, 0o755)
        .map_err(|e| Failure::set_up(format!("working directory {}: {e}", plan.process.cwd.display())))?;
    paths::protect(&setup)?;
    Ok(setup)
}

fn attach_root(plan: &Plan<'_>) -> Result<OwnedFd, Failure> {
    let at = |e: linux::CallError| Failure::set_up(format!("the container's root: {e}"));
    let root = match &plan.root {
        Root::Mounted(mount) => mount.try_clone().map_err(|e| Failure::set_up(format!("the container's root: {e}")))?,
        Root::Path(path) => {
            mount::clone_tree(path, true).map_err(|e| Failure::set_up(format!("rootfs {}: {e}", path.display())))?
        }
    };
    if plan.propagation.0 != mount::SHARED {
        mount::set_attributes(root.as_fd(), mount::Attributes::propagation(mount::PRIVATE), true).map_err(at)?;
    }
    // Over this process's own "/": lookups still start below it, so the host's paths stay in reach until the pivot.
    let slash = resolve::open_host(Path::new("/"), OFlags::PATH | OFlags::DIRECTORY).map_err(at)?;
    mount::attach(root.as_fd(), slash.as_fd()).map_err(at)?;
    Ok(root)
}

/// After the last file was made in it.
fn seal_root(plan: &Plan<'_>, root: BorrowedFd<'_>) -> Result<(), Failure> {
    if plan.root_read_only {
        mount::set_attributes(root, mount::Attributes::read_only(), false)?;
    }
    if plan.propagation.0 != 0 && plan.propagation.0 != mount::PRIVATE {
        let (propagation, recursive) = plan.propagation;
        mount::set_attributes(root, mount::Attributes::propagation(propagation), recursive)?;
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
