//! Making a container.

use crate::{Cgroup, RuntimeError};
use oci_spec::runtime::Spec;
use rustix::process::{Pid, Signal};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Where the container's root comes from.
#[derive(Debug)]
pub enum Root {
    /// A detached mount ([`linux::mount::overlay`]); attached in the container's own mount namespace alone.
    Mounted(OwnedFd),
    /// A folder; bind-mounted over itself in the container's mount namespace.
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
}

/// A container that is set up and waits for [`Created::start`]. Dropping it un-started leaves the init to
/// notice and exit.
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
    let _ = request;
    todo!()
}

impl Created {
    /// Executes the program. The error's exit code is 126 or 127 when that is what failed; the init has exited then and
    /// its cgroup is for the caller to remove.
    pub fn start(&mut self) -> Result<(), RuntimeError> {
        let _ = &self.channel;
        todo!()
    }

    /// Signals the init.
    pub fn kill(&self, signal: Signal) -> Result<(), RuntimeError> {
        let _ = signal;
        todo!()
    }

    /// Blocks until the init is gone and reaps it: its exit code, 128 + the signal's number if killed.
    pub fn wait(&self) -> Result<u8, RuntimeError> {
        todo!()
    }
}
