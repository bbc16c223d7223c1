//! Birth in a user namespace that is there already. What a container has of its own – mounts, processes, hostname – belongs
//! to the user namespace in which it was made: a helper goes there, makes the rest, and forks the init as its sibling.

use crate::channel::{self, Failure, FromInit, ToInit};
use crate::container::{end, in_pid_namespace};
use crate::plan::Plan;
use crate::{RuntimeError, exec, init};
use linux::process::{Forked, Namespaces, join_namespace};
use rustix::process::Pid;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const DIED: &str = "the process that was to make it died (killed, or out of memory?)";

/// As a plain fork of the init, for a plan that joins a user namespace. `prepare` is what takes privilege out here, done before
/// the init goes on.
pub(crate) fn within(
    mut plan: Plan<'_>,
    channel: OwnedFd,
    ours: BorrowedFd<'_>,
    enter_group: &mut dyn FnMut(Pid) -> Result<(), RuntimeError>,
    prepare: impl FnOnce(Pid) -> Result<(), RuntimeError>,
) -> Result<(Pid, OwnedFd), RuntimeError> {
    let helper = match in_pid_namespace(None, || linux::process::fork_into(Namespaces::none(), plan.membership.v2()))? {
        Forked::Child => match bear(&mut plan, channel.as_fd()) {
            Ok(()) => init::run(Plan { is_entered: true, ..plan }, channel),
            Err(failure) => init::give_up(failure, channel),
        },
        Forked::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop((plan, channel));
    let (helper_pid, helper) = helper;
    let hear = || match channel::has_news(ours, helper.as_fd()) {
        Ok(true) => channel::receive::<FromInit>(ours).map_err(RuntimeError::from),
        Ok(false) => Ok(None),
        Err(error) => Err(error),
    };
    let heard = match hear() {
        Ok(Some((FromInit::EnterGroup, _))) => match enter_group(helper_pid) {
            Ok(()) => hear(),
            Err(error) => {
                end(helper.as_fd());
                return Err(error);
            }
        },
        heard => heard,
    };
    linux::process::reap(helper.as_fd())?;
    match heard? {
        Some((FromInit::Born, Some(pidfd))) => {
            let pid = linux::process::pid_of(pidfd.as_fd())?;
            let begun = prepare(pid).and_then(|()| Ok(channel::send(ours, &ToInit::Done, None)?));
            begun.inspect_err(|_| end(pidfd.as_fd()))?;
            Ok((pid, pidfd))
        }
        Some((FromInit::Failed(failure), _)) => Err(failure.into()),
        _ => Err(RuntimeError::Init(DIED.to_owned())),
    }
}

/// The helper's whole life; returns in its sibling, the init, once its maker knows of that.
fn bear(plan: &mut Plan<'_>, channel: BorrowedFd<'_>) -> Result<(), Failure> {
    init::enter_group(plan, channel)?;
    let netns = plan.netns.map(|fd| (Namespaces::NETWORK, "of the network", fd));
    let joined = plan.joined.iter().map(|(kind, path, fd)| (*kind, path.to_str().unwrap_or_default(), fd.as_fd()));
    let (users, others): (Vec<_>, Vec<_>) =
        netns.into_iter().chain(joined).partition(|(kind, ..)| *kind == Namespaces::USER);
    let join = |(kind, name, fd): (Namespaces, &str, BorrowedFd<'_>)| {
        join_namespace(fd, kind).map_err(|e| Failure::set_up(format!("join namespace {name}: {e}")))
    };
    // What belongs to the outer user namespace can be joined from there alone, and for an ordinary user what belongs to the
    // inner one from within.
    let within: Vec<_> =
        others.into_iter().filter(|(kind, _, fd)| !matches!(join_namespace(*fd, *kind), Ok(()))).collect();
    users.into_iter().try_for_each(join)?;
    init::become_root()?;
    within.into_iter().try_for_each(join)?;
    linux::process::unshare(plan.created)?;
    exec::bear(channel)?;
    match channel::receive::<ToInit>(channel)? {
        Some((ToInit::Done, _)) => Ok(()),
        _ => Err(Failure::set_up(init::MAKER_IS_GONE)),
    }
}
