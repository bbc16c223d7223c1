//! What a group has used.

use super::{Cgroup, key_of, read};
use crate::RuntimeError;
use std::path::Path;

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

/// v1 shows "no limit" as the largest page-aligned number.
const V1_UNLIMITED: u64 = 1 << 62;

impl Cgroup {
    /// What it has used.
    pub fn stats(&self) -> Result<CgroupStats, RuntimeError> {
        let mut stats = CgroupStats::default();
        if let Some(folder) = self.v2_folder() {
            v2(folder, &mut stats)?;
        }
        if let Some(folder) = self.v1_folder("cpuacct") {
            v1_cpu(folder, &mut stats)?;
        }
        if let Some(folder) = self.v1_folder("memory") {
            stats.memory_usage_bytes = number(&folder.join("memory.usage_in_bytes"))?;
            stats.memory_limit_bytes = number(&folder.join("memory.limit_in_bytes"))?.filter(|n| *n < V1_UNLIMITED);
            stats.memory_inactive_file_bytes = key_of(&read(&folder.join("memory.stat"))?, "total_inactive_file");
        }
        if let Some(folder) = self.v1_folder("pids") {
            pids(folder, &mut stats)?;
        }
        if let Some(folder) = self.v1_folder("blkio") {
            let text = read(&folder.join("blkio.throttle.io_service_bytes_recursive"))?;
            stats.block_read_bytes = Some(v1_sum(&text, "Read"));
            stats.block_write_bytes = Some(v1_sum(&text, "Write"));
        }
        Ok(stats)
    }

    /// How many of its processes the kernel killed for lack of memory.
    pub fn oom_kills(&self) -> Result<u64, RuntimeError> {
        let (folder, file) = match (self.v1_folder("memory"), self.v2_folder()) {
            (Some(folder), _) => (folder, "memory.oom_control"),
            (None, Some(folder)) => (folder, "memory.events"),
            (None, None) => return Ok(0),
        };
        Ok(key_of(&read(&folder.join(file))?, "oom_kill").unwrap_or(0))
    }
}

fn number(path: &Path) -> Result<Option<u64>, RuntimeError> {
    Ok(read(path)?.trim().parse().ok())
}

fn pids(folder: &Path, stats: &mut CgroupStats) -> Result<(), RuntimeError> {
    stats.pids_current = number(&folder.join("pids.current"))?;
    stats.pids_limit = number(&folder.join("pids.max"))?;
    Ok(())
}

fn v2(folder: &Path, stats: &mut CgroupStats) -> Result<(), RuntimeError> {
    let cpu = read(&folder.join("cpu.stat"))?;
    let ns = |key| key_of(&cpu, key).map(|us| us.saturating_mul(1000));
    stats.cpu_usage_ns = ns("usage_usec");
    stats.cpu_user_ns = ns("user_usec");
    stats.cpu_system_ns = ns("system_usec");
    stats.memory_usage_bytes = number(&folder.join("memory.current"))?;
    stats.memory_limit_bytes = number(&folder.join("memory.max"))?;
    stats.memory_inactive_file_bytes = key_of(&read(&folder.join("memory.stat"))?, "inactive_file");
    pids(folder, stats)?;
    let io = read(&folder.join("io.stat"))?;
    let sum = |key: &str| {
        io.split_ascii_whitespace()
            .filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok())
            .fold(0, u64::saturating_add)
    };
    if !io.is_empty() {
        stats.block_read_bytes = Some(sum("rbytes="));
        stats.block_write_bytes = Some(sum("wbytes="));
    }
    Ok(())
}

fn v1_cpu(folder: &Path, stats: &mut CgroupStats) -> Result<(), RuntimeError> {
    stats.cpu_usage_ns = number(&folder.join("cpuacct.usage"))?;
    stats.cpu_user_ns = number(&folder.join("cpuacct.usage_user"))?;
    stats.cpu_system_ns = number(&folder.join("cpuacct.usage_sys"))?;
    Ok(())
}

/// Sums `major:minor Read number` lines.
fn v1_sum(text: &str, kind: &str) -> u64 {
    let value = |line: &str| {
        let mut words = line.split(' ').skip(1);
        (words.next() == Some(kind)).then(|| words.next()?.parse::<u64>().ok()).flatten()
    };
    text.lines().filter_map(value).fold(0, u64::saturating_add)
}

impl Cgroup {
    /// What its memory is used for, by the kernel's own names (`memory.stat`).
    pub fn memory_details(&self) -> Result<Vec<(String, u64)>, RuntimeError> {
        let Some(folder) = self.v1_folder("memory").or_else(|| self.v2_folder()) else { return Ok(Vec::new()) };
        let text = read(&folder.join("memory.stat"))?;
        let line = |line: &str| {
            let (name, number) = line.split_once(' ')?;
            Some((name.to_owned(), number.parse().ok()?))
        };
        Ok(text.lines().filter_map(line).collect())
    }
}
