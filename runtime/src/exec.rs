//! A further process in a running container.

use crate::{Cgroup, RuntimeError, Stdio};
use oci_spec::runtime::{LinuxSeccomp, Process};
use rustix::process::Pid;
use std::os::fd::{BorrowedFd, OwnedFd};

/// What to run in which container.
#[derive(Debug)]
pub struct ExecRequest<'a> {
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

/// Runs a process in the container. Returns once its program is executing.
pub fn exec(request: ExecRequest<'_>) -> Result<Executed, RuntimeError> {
    let _ = request;
    todo!()
}
