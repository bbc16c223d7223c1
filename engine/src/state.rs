//! A container's state on disk, `state.json`: written by its monitor (by rename), believed by commands only while
//! the processes it names are really there.

use crate::{EngineError, Result};
use jiff::Timestamp;
use network::PortSpec;
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::OnceLock;

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Never started.
    #[default]
    Created,
    /// Its program runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Between an exit and the restart its policy asks for.
    Restarting,
    /// Its program has ended.
    Exited,
    /// It could not be removed wholly.
    Dead,
}

impl Status {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Restarting => "restarting",
            Status::Exited => "exited",
            Status::Dead => "dead",
        }
    }

    /// A monitor looks after it.
    pub fn is_active(self) -> bool {
        matches!(self, Status::Running | Status::Paused | Status::Restarting)
    }
}

/// A process, told apart from a later one of the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its pid.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat: clock ticks after boot.
    pub start_time: u64,
}

/// The record of a container's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The record's format.
    pub version: u32,
    /// Where it is in its life.
    pub status: Status,
    /// The container's init, while it runs.
    pub init: Option<ProcessId>,
    /// The monitor, while there is one.
    pub monitor: Option<ProcessId>,
    /// The boot the two belong to.
    pub boot_id: String,
    /// When the program was last started.
    pub started_at: Option<Timestamp>,
    /// When it last ended.
    pub finished_at: Option<Timestamp>,
    /// How it last ended: its code, 128+n if a signal killed it.
    pub exit_code: i32,
    /// Why it could not be started, or was lost.
    pub error: String,
    /// The kernel killed it for lack of memory.
    pub oom_killed: bool,
    /// How often its policy has restarted it.
    pub restart_count: u32,
    /// The user stopped it: no restart after a reboot with `unless-stopped`.
    pub stopped_by_user: bool,
    /// Its address in the default network.
    pub address: Option<Ipv4Addr>,
    /// Its control group; empty: none of its own. None: an older monitor's, where the engine would put it.
    pub cgroup: Option<String>,
    /// Its published ports as they came to be.
    pub ports: Vec<PortSpec>,
}

/// The format of `state.json`.
pub(crate) const STATE_VERSION: u32 = 1;
/// Its name in the container's folder.
pub(crate) const STATE_FILE: &str = "state.json";
/// What a state file's size is a multiple of, in bytes: a block of the usual file systems.
const STATE_BLOCK: usize = 4096;
/// The largest state file read, in bytes.
const MAX_STATE_BYTES: u64 = 1 << 20;

impl State {
    /// Reads a container's state; one without a file was never started.
    pub(crate) fn load(folder: &Path) -> Result<State> {
        let path = folder.join(STATE_FILE);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(MAX_STATE_BYTES).read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
            Err(e) => return Err(EngineError::io("read", &path, e)),
        }
        // A file cut short by a power failure says nothing: whatever ran does not any more.
        Ok(serde_json::from_slice(&bytes).unwrap_or_else(|_| State {
            status: Status::Exited,
            exit_code: LOST_EXIT_CODE,
            error: "the record of its state was damaged".to_owned(),
            ..State::default()
        }))
    }

    /// Writes it: a reader sees the old or the new one. Two files of one size take turns, so that the record of an end needs no space
    /// that was not taken at the start: a container that fills the disk must still be seen to have ended.
    pub(crate) fn save(&self, folder: &Path) -> Result<()> {
        let (path, spare) = (folder.join(STATE_FILE), folder.join("state.json.new"));
        let mut bytes = serde_json::to_vec(self).map_err(|e| EngineError::io("write", &path, io::Error::from(e)))?;
        bytes.resize(bytes.len().next_multiple_of(STATE_BLOCK), b' ');
        let write = |to: &Path| {
            let open = File::options().write(true).create(true).truncate(false).open(to);
            open.and_then(|mut file| file.write_all(&bytes).and_then(|()| file.set_len(bytes.len() as u64)))
                .map_err(|e| EngineError::io("write", to, e))
        };
        write(&spare)?;
        match rustix::fs::renameat_with(CWD, &spare, CWD, &path, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) => {
                std::fs::rename(&spare, &path).map_err(|e| EngineError::io("write", &path, e))?;
                write(&spare)
            }
            // A file system without exchange has no turns to take.
            Err(Errno::INVAL) => std::fs::rename(&spare, &path).map_err(|e| EngineError::io("write", &path, e)),
            Err(e) => Err(EngineError::io("write", &path, e)),
        }
    }

    /// Whether the monitor it names is really there.
    pub(crate) fn monitor_lives(&self) -> bool {
        self.monitor.is_some_and(|monitor| monitor.lives()) && self.boot_id == boot_id()
    }

    /// What is left when the monitor was lost.
    pub(crate) fn lost(&mut self) {
        self.error = if self.boot_id == boot_id() { "monitor lost".into() } else { "the machine was restarted".into() };
        self.status = Status::Exited;
        self.exit_code = LOST_EXIT_CODE;
        self.finished_at = Some(Timestamp::now());
        self.init = None;
        self.monitor = None;
        self.ports.clear();
        self.address = None;
    }
}

/// The exit code of a container whose monitor was lost: it was killed.
pub(crate) const LOST_EXIT_CODE: i32 = 137;

impl ProcessId {
    /// A living process's; None if there is none of that pid.
    pub(crate) fn of(pid: i32) -> Option<ProcessId> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let is_dead = matches!(*fields.first()?, "Z" | "X");
        let start_time = fields.get(19)?.parse().ok()?;
        (!is_dead).then_some(ProcessId { pid, start_time })
    }

    /// Whether this very process is there (a zombie is not).
    pub(crate) fn lives(self) -> bool {
        ProcessId::of(self.pid) == Some(self)
    }
}

/// The boot's id.
pub(crate) fn boot_id() -> String {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    let read = || std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
    BOOT_ID.get_or_init(read).clone()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_state_is_believed_only_with_its_process() {
        let own = ProcessId::of(std::process::id().cast_signed()).unwrap();
        let state = State { monitor: Some(own), boot_id: boot_id(), ..State::default() };
        assert!(state.monitor_lives());
        assert!(!State { boot_id: "another".into(), ..state.clone() }.monitor_lives());
        let later = ProcessId { start_time: own.start_time + 1, ..own };
        assert!(!State { monitor: Some(later), ..state }.monitor_lives());
    }

    #[test]
    fn states_survive_and_damaged_ones_are_said() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(State::load(folder.path()).unwrap(), State::default());
        let state = State { status: Status::Exited, exit_code: 3, ..State::default() };
        state.save(folder.path()).unwrap();
        assert_eq!(State::load(folder.path()).unwrap(), state);
        std::fs::write(folder.path().join(STATE_FILE), "{\"status\":").unwrap();
        assert_eq!(State::load(folder.path()).unwrap().exit_code, LOST_EXIT_CODE);
    }
}
