//! What a child that reads bytes of strangers gives up before it reads the first.

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Gid, Uid};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::error::{NetworkError, Result, during};

/// The overflow user and group: nobody.
const NOBODY: u32 = 65534;

/// Gives up every privilege of the calling, single-threaded process for good: groups, user, capabilities, and with
/// no_new_privs the way back through a set-uid program. It dies with its parent.
pub(crate) fn drop_all() -> Result<()> {
    let parent = rustix::process::getppid();
    // An ordinary user, and root of a namespace with a single id, have but one identity.
    if rustix::process::geteuid().is_root() && !linux::userns::has_single_id() {
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        nix::unistd::setgroups(&[]).map_err(failed("groups"))?;
        nix::unistd::setresgid(group, group, group).map_err(failed("group"))?;
        nix::unistd::setresuid(user, user, user).map_err(failed("user"))?;
    }
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(failed("capabilities"))?;
    rustix::thread::set_no_new_privs(true).map_err(failed("no_new_privs"))?;
    // Only now: a change of user clears it.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(failed("parent-death signal"))?;
    if rustix::process::getppid() != parent {
        return Err(NetworkError::Kernel {
            operation: "serve published ports".to_owned(),
            source: std::io::Error::other("the container's monitor is gone"),
        });
    }
    // splice to a closed connection raises it, whatever flags are given.
    let mut pipe = SigSet::empty();
    pipe.add(Signal::SIGPIPE);
    pipe.thread_block().map_err(failed("SIGPIPE"))
}

fn failed<E: Into<std::io::Error>>(what: &'static str) -> impl FnOnce(E) -> NetworkError {
    during(move || format!("drop privileges ({what})"))
}

/// Raises the soft limit of open files to the hard one, and returns it.
pub(crate) fn raise_open_files() -> u64 {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let limit = if rustix::process::setrlimit(Resource::Nofile, raised).is_ok() { raised } else { limit };
    limit.current.unwrap_or(u64::MAX)
}
