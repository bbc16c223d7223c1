//! A container's state on disk, `state.json`: written by its monitor (by rename), believed by commands only while
//! the processes it names are really there.

use jiff::Timestamp;
use network::PortSpec;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

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
    /// Its published ports as they came to be.
    pub ports: Vec<PortSpec>,
}
