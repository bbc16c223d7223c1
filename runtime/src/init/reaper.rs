//! `--init`: a pid 1 that passes signals on to the program and reaps what is orphaned. It is this very process, forked
//! before the program is executed: nothing of the image runs as pid 1.

use linux::process::{exit_now, kill, wait_signal};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions};

/// SIGCHLD and the signals that come from a terminal's own bookkeeping, which must not be passed on.
const CHILD: i32 = 17;
const TTY_INPUT: i32 = 21;
const TTY_OUTPUT: i32 = 22;

/// Lives until `program` is gone, then exits as it did. Every signal must be blocked already.
pub(super) fn run(program: Pid) -> ! {
    loop {
        match wait_signal() {
            Ok(CHILD) => {
                if let Some(code) = reap(program, WaitOptions::NOHANG) {
                    exit_now(code);
                }
            }
            Ok(TTY_INPUT | TTY_OUTPUT) => {}
            Err(error) if error.errno == Errno::INTR => {}
            // A filter without the call: it still reaps.
            Err(_) => {
                if let Some(code) = reap(program, WaitOptions::empty()) {
                    exit_now(code);
                }
            }
            // It may be gone already; SIGCHLD is on its way then.
            Ok(signal) => drop(kill(program.as_raw_nonzero().get(), signal)),
        }
    }
}

/// Reaps what is dead; the program's exit code once it is among that.
fn reap(program: Pid, options: WaitOptions) -> Option<u8> {
    while let Ok(Some((pid, status))) = rustix::process::wait(options) {
        if pid == program {
            let value = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
            return Some(value.and_then(|value| u8::try_from(value & 0xff).ok()).unwrap_or(255));
        }
    }
    None
}
