//! The modes the binary re-executes itself in. They are no commands: nothing in the help speaks of them.
//!
//! Each begins in a process with one thread that runs from a read-only clone of the binary, with /dev/null as standard
//! streams and three descriptors: 3 to talk with whoever started it, 4 and 5 by mode.

use crate::{EngineError, Result, exec, monitor, step};
use linux::spawn::{Spawn, close_from, spawn, take_inherited};
use rustix::process::{Pid, WaitOptions, waitpid};
use std::ffi::{CStr, OsString};
use std::fs::OpenOptions;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

/// The monitor of a container: 4 is the container's lock, 5 the first client.
pub(crate) const MONITOR: &CStr = c"__monitor";
/// The keeper of an exec session: 4 is its client, 5 the client's second connection.
pub(crate) const EXEC: &CStr = c"__exec";
/// The keeper of a build's step: as for exec.
pub(crate) const STEP: &CStr = c"__step";

/// What a hidden mode starts with.
#[derive(Debug)]
pub(crate) struct Inherited {
    pub(crate) channel: OwnedFd,
    pub(crate) second: OwnedFd,
    pub(crate) third: OwnedFd,
}

/// Runs a hidden mode if the arguments (the program's own name included) ask for one, and returns the exit code.
/// To be called before anything else in `main`.
pub fn hidden_mode(args: &[OsString]) -> Option<i32> {
    let mode = args.get(1)?.to_str()?;
    let run: fn(Inherited) -> Result<()> = match mode {
        "__monitor" => monitor::run,
        "__exec" => exec::run,
        "__step" => step::run,
        _ => return None,
    };
    // Whoever types such a command by hand has no channel at 3: nothing happens.
    let done = inherit().and_then(run);
    Some(i32::from(done.is_err()))
}

fn inherit() -> Result<Inherited> {
    close_from(6)?;
    Ok(Inherited { channel: take_inherited(3)?, second: take_inherited(4)?, third: take_inherited(5)? })
}

/// Starts a hidden mode of this program. `label` shows in process lists.
pub(crate) fn start(mode: &CStr, label: &str, descriptors: [BorrowedFd<'_>; 3]) -> Result<()> {
    reap();
    let program = linux::selfexe::read_only_self()?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    let null = null.map_err(|e| EngineError::io("open", "/dev/null", e))?;
    let label = std::ffi::CString::new(label).unwrap_or_default();
    let [channel, second, third] = descriptors;
    let args = [c"ctr", mode, &label];
    let fds = [null.as_fd(), null.as_fd(), null.as_fd(), channel, second, third];
    let pid = spawn(&Spawn { program: program.as_fd(), args: &args, env: &[], fds: &fds, new_session: true })?;
    if let Ok(mut children) = CHILDREN.lock() {
        children.push(pid);
    }
    Ok(())
}

/// Monitors and helpers this process has started: nobody waits for them, but a caller that lives long must not collect zombies.
static CHILDREN: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

fn reap() {
    if let Ok(mut children) = CHILDREN.lock() {
        children.retain(|pid| matches!(waitpid(Some(*pid), WaitOptions::NOHANG), Ok(None)));
    }
}
