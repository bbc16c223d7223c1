//! Stopping, resuming and killing everything in a group.

use super::{Cgroup, key_of, read, write};
use crate::RuntimeError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long freezing may take: a process in an uninterruptible wait holds it up.
const FREEZE_PATIENCE: Duration = Duration::from_secs(10);
/// Rounds of killing what forks meanwhile, where there is neither cgroup.kill nor a freezer.
const KILL_ROUNDS: usize = 1000;

impl Cgroup {
    /// Stops every process in it and waits until they are (bounded).
    pub fn freeze(&self) -> Result<(), RuntimeError> {
        self.set_frozen(true)
    }

    /// Lets them go on.
    pub fn thaw(&self) -> Result<(), RuntimeError> {
        self.set_frozen(false)
    }

    /// Whether it is frozen.
    pub fn is_frozen(&self) -> Result<bool, RuntimeError> {
        if let Some(folder) = self.v2_folder() {
            return Ok(key_of(&read(&folder.join("cgroup.events"))?, "frozen") == Some(1));
        }
        let Some(folder) = self.v1_folder("freezer") else { return Ok(false) };
        Ok(read(&folder.join("freezer.state"))?.trim() == "FROZEN")
    }

    fn set_frozen(&self, frozen: bool) -> Result<(), RuntimeError> {
        if let Some(folder) = self.v2_folder() {
            let file = folder.join("cgroup.freeze");
            write(&file, if frozen { "1" } else { "0" }).map_err(|e| RuntimeError::file("write", &file, e))?;
            return wait_event(&folder.join("cgroup.events"), "frozen", u64::from(frozen));
        }
        let Some(folder) = self.v1_folder("freezer") else {
            return Err(RuntimeError::Spec("this machine has no freezer: containers can't be paused".to_owned()));
        };
        let file = folder.join("freezer.state");
        let wanted = if frozen { "FROZEN" } else { "THAWED" };
        let deadline = Instant::now() + FREEZE_PATIENCE;
        loop {
            // Written again each time: v1 may stay FREEZING for a process that was between two calls.
            write(&file, wanted).map_err(|e| RuntimeError::file("write", &file, e))?;
            if read(&file)?.trim() == wanted {
                return Ok(());
            }
            if Instant::now() > deadline {
                let _thawed = write(&file, "THAWED");
                return Err(RuntimeError::file("freeze", &file, rustix::io::Errno::TIMEDOUT));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// SIGKILLs every process in it and below; returns without waiting for their end.
    pub fn kill_all(&self) -> Result<(), RuntimeError> {
        if let Some(folder) = self.v2_folder() {
            // 5.14; atomic, also against forks.
            if write(&folder.join("cgroup.kill"), "1").is_ok() {
                return Ok(());
            }
        }
        // A frozen group can't fork; killed while frozen, its processes die as they thaw.
        let frozen = self.freeze().is_ok();
        let mut killed = Ok(());
        for _ in 0..KILL_ROUNDS {
            let pids = match self.processes() {
                Ok(pids) => pids,
                Err(error) => {
                    killed = Err(error);
                    break;
                }
            };
            for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
                // One that is gone already is what we want.
                let _gone = kill_process(pid, Signal::KILL);
            }
            if frozen || pids.is_empty() {
                break;
            }
        }
        if frozen {
            self.thaw()?;
        }
        killed
    }
}

/// Waits until a key of a group's events file has a value; the kernel announces each change (POLLPRI).
fn wait_event(file: &Path, key: &str, value: u64) -> Result<(), RuntimeError> {
    let events = File::open(file).map_err(|e| RuntimeError::file("open", file, e))?;
    let deadline = Instant::now() + FREEZE_PATIENCE;
    loop {
        let mut text = [0u8; 512];
        let length = rustix::io::pread(&events, &mut text, 0).map_err(|e| RuntimeError::file("read", file, e))?;
        if key_of(&String::from_utf8_lossy(&text[..length]), key) == Some(value) {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let time_out =
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(0), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&time_out)) {
            Ok(0) => return Err(RuntimeError::file("freeze", file, rustix::io::Errno::TIMEDOUT)),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(RuntimeError::file("poll", file, errno)),
        }
    }
}
