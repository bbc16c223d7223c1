//! Waiting, always for something and never for ever.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io;
use std::time::{Duration, Instant};

/// How long a test waits for what ought to happen at once. Long, for a busy machine of two cores.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The pause between two questions of [`eventually`].
const STEP: Duration = Duration::from_millis(10);

/// Asks until there is an answer; fails the test, naming `what`, after [`PATIENCE`].
/// For states that give no event; processes and output are awaited by the other helpers.
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(STEP);
    }
}

/// Waits for the end of any process, child or not, by its pidfd. True when it ended (or was gone already).
pub fn wait_for_exit(pid: i32, limit: Duration) -> bool {
    let Some(pid) = Pid::from_raw(pid) else { return true };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return true };
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).expect("a test's limit is short");
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("poll on a pidfd: {}", io::Error::from(error)),
        }
    }
}
