//! Control groups on v1, hybrid and v2 machines.

use crate::RuntimeError;
use oci_spec::runtime::LinuxResources;

/// A container's control group: one folder in every hierarchy in use.
#[derive(Debug)]
pub struct Cgroup {
    path: String,
}

/// What a control group has used, in bytes and nanoseconds. None: its controller is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupStats {
    /// CPU time.
    pub cpu_usage_ns: Option<u64>,
    /// Of it, in user mode.
    pub cpu_user_ns: Option<u64>,
    /// Of it, in the kernel.
    pub cpu_system_ns: Option<u64>,
    /// Memory in use, page cache included.
    pub memory_usage_bytes: Option<u64>,
    /// Page cache that can be dropped at once (docker subtracts it).
    pub memory_inactive_file_bytes: Option<u64>,
    /// The limit; None if unlimited.
    pub memory_limit_bytes: Option<u64>,
    /// Processes and threads.
    pub pids_current: Option<u64>,
    /// Their limit; None if unlimited.
    pub pids_limit: Option<u64>,
    /// Read from block devices.
    pub block_read_bytes: Option<u64>,
    /// Written to block devices.
    pub block_write_bytes: Option<u64>,
}

impl Cgroup {
    /// The group of this path (`/ctr/<id>`), whether or not it exists (anywhere): nothing is made.
    pub fn open(path: &str) -> Result<Cgroup, RuntimeError> {
        Ok(Cgroup { path: path.to_owned() })
    }

    /// Its path below each hierarchy's root; empty for the caller's own.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether no process is in it (or it does not exist).
    pub fn is_empty(&self) -> Result<bool, RuntimeError> {
        todo!()
    }

    /// The pids in it and below, as this pid namespace sees them.
    pub fn processes(&self) -> Result<Vec<i32>, RuntimeError> {
        todo!()
    }

    /// Stops every process in it and waits until they are (bounded).
    pub fn freeze(&self) -> Result<(), RuntimeError> {
        todo!()
    }

    /// Lets them go on.
    pub fn thaw(&self) -> Result<(), RuntimeError> {
        todo!()
    }

    /// Whether it is frozen.
    pub fn is_frozen(&self) -> Result<bool, RuntimeError> {
        todo!()
    }

    /// SIGKILLs every process in it and below; returns without waiting for their end.
    pub fn kill_all(&self) -> Result<(), RuntimeError> {
        todo!()
    }

    /// What it has used.
    pub fn stats(&self) -> Result<CgroupStats, RuntimeError> {
        todo!()
    }

    /// How many of its processes the kernel killed for lack of memory.
    pub fn oom_kills(&self) -> Result<u64, RuntimeError> {
        todo!()
    }

    /// Changes limits. Returns warnings about those this machine has no controller for.
    pub fn update(&self, resources: &LinuxResources) -> Result<Vec<String>, RuntimeError> {
        let _ = resources;
        todo!()
    }

    /// Removes it everywhere. Waits (bounded) for processes that are on their way out; kills none.
    pub fn remove(&self) -> Result<(), RuntimeError> {
        todo!()
    }
}
