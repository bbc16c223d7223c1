//! OCI hooks: programs of the user's run at fixed moments of a container's life, with its state on their standard input.

use oci_spec::runtime::Hook;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Runs hooks in order; the first that fails ends it.
pub fn run(hooks: &[Hook], state: &[u8]) -> Result<(), String> {
    hooks
        .iter()
        .try_for_each(|hook| run_one(hook, state).map_err(|why| format!("hook {}: {why}", hook.path().display())))
}

fn run_one(hook: &Hook, state: &[u8]) -> Result<(), String> {
    let mut command = Command::new(hook.path());
    if let Some((name, args)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(args);
    }
    command.env_clear().stdin(Stdio::piped());
    for line in hook.env().iter().flatten() {
        if let Some((name, value)) = line.split_once('=') {
            command.env(name, value);
        }
    }
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read it.
        let _unread = stdin.write_all(state);
    }
    if let Some(seconds) = hook.timeout()
        && !ends_within(child.id(), seconds)
    {
        let _gone = child.kill();
        let _reaped = child.wait();
        return Err(format!("did not end within {seconds} s"));
    }
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(status.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn ends_within(pid: u32, seconds: i64) -> bool {
    let pidfd =
        i32::try_from(pid).ok().and_then(Pid::from_raw).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let Some(pidfd) = pidfd else { return true };
    let time_out = Timespec { tv_sec: seconds.max(0), tv_nsec: 0 };
    !matches!(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&time_out)), Ok(0))
}
