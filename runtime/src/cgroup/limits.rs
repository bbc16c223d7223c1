//! Limits, as each version of control groups spells them. A limit without its controller is a warning, a value the kernel
//! refuses is an error.

use super::{Cgroup, read, write};
use crate::RuntimeError;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};
use std::io::ErrorKind;
use std::path::Path;

/// The v2 controllers a container may want.
const V2_CONTROLLERS: &[&str] = &["cpuset", "cpu", "io", "memory", "pids", "hugetlb"];

/// Lets the groups below `folder` use what controllers it has. One that can't be handed down (a process sits in the folder
/// itself) shows when a limit needs it.
pub(super) fn enable_v2_controllers(folder: &Path) {
    let have = read(&folder.join("cgroup.controllers")).unwrap_or_default();
    let enabled = read(&folder.join("cgroup.subtree_control")).unwrap_or_default();
    let file = folder.join("cgroup.subtree_control");
    for controller in have.split_ascii_whitespace().filter(|name| V2_CONTROLLERS.contains(name)) {
        if !enabled.split_ascii_whitespace().any(|name| name == controller) {
            let _tried = write(&file, &format!("+{controller}"));
        }
    }
}

/// A new v1 cpuset has no CPU and no memory node, and takes no process until it has.
pub(super) fn inherit_cpuset(parent: &Path, group: &Path) -> Result<(), RuntimeError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let target = group.join(file);
        if read(&target)?.trim().is_empty() {
            let value = read(&parent.join(file))?;
            write(&target, value.trim()).map_err(|e| RuntimeError::file("write", target, e))?;
        }
    }
    Ok(())
}

/// Writes values into one group's files and gathers what is missing.
struct Writer<'a> {
    cgroup: &'a Cgroup,
    warnings: Vec<String>,
}

pub(super) fn apply(cgroup: &Cgroup, resources: &LinuxResources) -> Result<Vec<String>, RuntimeError> {
    let mut writer = Writer { cgroup, warnings: Vec::new() };
    if let Some(memory) = resources.memory() {
        writer.memory(memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        writer.cpu(cpu)?;
    }
    if let Some(pids) = resources.pids() {
        let value = if pids.limit() > 0 { pids.limit().to_string() } else { "max".to_owned() };
        writer.set("pids", "pids.max", Some("pids.max"), &value, &value)?;
    }
    if let Some(io) = resources.block_io() {
        writer.block_io(io)?;
    }
    for page in resources.hugepage_limits().iter().flatten() {
        let size = page.page_size();
        if size.is_empty() || !size.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(RuntimeError::Spec(format!("huge page size {size:?}: expected something like 2MB")));
        }
        let (v1, v2) = (format!("hugetlb.{size}.limit_in_bytes"), format!("hugetlb.{size}.max"));
        writer.set("hugetlb", &v1, Some(&v2), &page.limit().to_string(), &page.limit().to_string())?;
    }
    for (file, value) in resources.unified().iter().flatten() {
        writer.unified(file, value)?;
    }
    Ok(writer.warnings)
}

impl Writer<'_> {
    /// Sets one limit where its controller is: the v1 file with the v1 value, else the v2 file with the v2 value.
    fn set(
        &mut self,
        controller: &str,
        v1_file: &str,
        v2_file: Option<&str>,
        v1_value: &str,
        v2_value: &str,
    ) -> Result<(), RuntimeError> {
        let (path, value) = match (self.cgroup.v1_folder(controller), self.cgroup.v2_folder(), v2_file) {
            (Some(folder), ..) => (folder.join(v1_file), v1_value),
            (None, Some(folder), Some(file)) => (folder.join(file), v2_value),
            _ => {
                self.missing(v1_file, controller);
                return Ok(());
            }
        };
        match write(&path, value) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.missing(path.file_name().and_then(|name| name.to_str()).unwrap_or(v1_file), controller);
                Ok(())
            }
            Err(error) => Err(RuntimeError::file("set a limit: write", path, error)),
        }
    }

    fn missing(&mut self, limit: &str, controller: &str) {
        self.warnings
            .push(format!("{limit} is not limited: this machine's control groups have no {controller} for it"));
    }

    /// The present value of a v2 file.
    fn now(&self, file: &str) -> Result<Option<String>, RuntimeError> {
        let Some(folder) = self.cgroup.v2_folder() else { return Ok(None) };
        Ok(Some(read(&folder.join(file))?.trim().to_owned()).filter(|text| !text.is_empty()))
    }

    fn memory(&mut self, memory: &LinuxMemory) -> Result<(), RuntimeError> {
        let limit = memory.limit().filter(|n| *n != 0);
        let swap = memory.swap().filter(|n| *n != 0);
        if self.cgroup.v1_folder("memory").is_some() {
            self.memory_v1(limit, swap)?;
        } else {
            if let Some(swap) = swap {
                let alone = self.swap_alone(limit, swap)?;
                self.set("memory", "memory.memsw.limit_in_bytes", Some("memory.swap.max"), "", &v2_number(alone))?;
            }
            if let Some(limit) = limit {
                self.set("memory", "memory.limit_in_bytes", Some("memory.max"), "", &v2_number(limit))?;
            }
        }
        if let Some(reservation) = memory.reservation().filter(|n| *n != 0) {
            let file = "memory.soft_limit_in_bytes";
            self.set("memory", file, Some("memory.low"), &reservation.to_string(), &v2_number(reservation))?;
        }
        if let Some(swappiness) = memory.swappiness() {
            self.set("memory", "memory.swappiness", None, &swappiness.to_string(), "")?;
        }
        if memory.disable_oom_killer() == Some(true) {
            self.set("memory", "memory.oom_control", None, "1", "")?;
        }
        Ok(())
    }

    /// OCI counts memory and swap together, v2 swap alone: what is left for swap, -1 for no limit. An update of swap alone
    /// counts from the memory limit of now.
    fn swap_alone(&self, limit: Option<i64>, both: i64) -> Result<i64, RuntimeError> {
        if both < 0 {
            return Ok(-1);
        }
        let limit = match limit {
            Some(limit) => Some(limit),
            None => self.now("memory.max")?.and_then(|text| text.parse().ok()),
        };
        match limit {
            Some(limit) if limit >= 0 && both >= limit => Ok(both - limit),
            Some(limit) if limit >= 0 => Err(RuntimeError::Spec(format!(
                "memory and swap ({both}) must not be less than memory alone ({limit})"
            ))),
            _ => Err(RuntimeError::Spec("swap can't be limited without a limit of memory".to_owned())),
        }
    }

    /// The memory limit may never be above that of memory and swap, so which is written first depends on the direction.
    fn memory_v1(&mut self, limit: Option<i64>, swap: Option<i64>) -> Result<(), RuntimeError> {
        const LIMIT: &str = "memory.limit_in_bytes";
        const BOTH: &str = "memory.memsw.limit_in_bytes";
        let now = self.cgroup.v1_folder("memory").map(|folder| read(&folder.join(BOTH))).transpose()?;
        let now = now.and_then(|text| text.trim().parse::<i64>().ok()).unwrap_or(i64::MAX);
        let raising = swap.is_some_and(|swap| swap < 0 || swap > now);
        let both = |writer: &mut Self| match swap {
            Some(swap) => writer.set("memory", BOTH, None, &swap.to_string(), ""),
            None => Ok(()),
        };
        if raising {
            both(self)?;
        }
        if let Some(limit) = limit {
            self.set("memory", LIMIT, None, &limit.to_string(), "")?;
        }
        if raising { Ok(()) } else { both(self) }
    }

    fn cpu(&mut self, cpu: &LinuxCpu) -> Result<(), RuntimeError> {
        if let Some(shares) = cpu.shares().filter(|n| *n != 0) {
            self.set("cpu", "cpu.shares", Some("cpu.weight"), &shares.to_string(), &weight(shares).to_string())?;
        }
        if self.cgroup.v1_folder("cpu").is_some() {
            if let Some(period) = cpu.period().filter(|n| *n != 0) {
                self.set("cpu", "cpu.cfs_period_us", None, &period.to_string(), "")?;
            }
            if let Some(quota) = cpu.quota().filter(|n| *n != 0) {
                self.set("cpu", "cpu.cfs_quota_us", None, &quota.to_string(), "")?;
            }
        } else {
            self.cpu_bandwidth(cpu.quota().filter(|n| *n != 0), cpu.period().filter(|n| *n != 0))?;
        }
        if let Some(burst) = cpu.burst() {
            self.set("cpu", "cpu.cfs_burst_us", Some("cpu.max.burst"), &burst.to_string(), &burst.to_string())?;
        }
        if let Some(idle) = cpu.idle() {
            self.set("cpu", "cpu.idle", Some("cpu.idle"), &idle.to_string(), &idle.to_string())?;
        }
        if let Some(period) = cpu.realtime_period() {
            self.set("cpu", "cpu.rt_period_us", None, &period.to_string(), "")?;
        }
        if let Some(runtime) = cpu.realtime_runtime() {
            self.set("cpu", "cpu.rt_runtime_us", None, &runtime.to_string(), "")?;
        }
        for (file, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
            if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
                self.set("cpuset", file, Some(file), value, value)?;
            }
        }
        Ok(())
    }

    /// v2 keeps both in one file: what is not given stays.
    fn cpu_bandwidth(&mut self, quota: Option<i64>, period: Option<u64>) -> Result<(), RuntimeError> {
        if quota.is_none() && period.is_none() {
            return Ok(());
        }
        let now = self.now("cpu.max")?.unwrap_or_default();
        let (old_quota, old_period) = now.split_once(' ').unwrap_or(("max", "100000"));
        let quota = quota.map_or(old_quota.to_owned(), v2_number);
        let period = period.map_or(old_period.to_owned(), |n| n.to_string());
        self.set("cpu", "cpu.cfs_quota_us", Some("cpu.max"), "", &format!("{quota} {period}"))
    }

    fn block_io(&mut self, io: &LinuxBlockIo) -> Result<(), RuntimeError> {
        let v1 = if self.has("blkio", "blkio.bfq.weight") { "blkio.bfq.weight" } else { "blkio.weight" };
        if let Some(weight) = io.weight().filter(|n| *n != 0) {
            let v2 = format!("default {}", io_weight(weight));
            self.set("blkio", v1, Some("io.weight"), &weight.to_string(), &v2)?;
        }
        for device in io.weight_device().iter().flatten() {
            let Some(weight) = device.weight().filter(|n| *n != 0) else { continue };
            let (major, minor) = (device.major(), device.minor());
            let (old, new) = (format!("{major}:{minor} {weight}"), format!("{major}:{minor} {}", io_weight(weight)));
            self.set("blkio", &format!("{v1}_device"), Some("io.weight"), &old, &new)?;
        }
        let throttles = [
            ("blkio.throttle.read_bps_device", "rbps", io.throttle_read_bps_device()),
            ("blkio.throttle.write_bps_device", "wbps", io.throttle_write_bps_device()),
            ("blkio.throttle.read_iops_device", "riops", io.throttle_read_iops_device()),
            ("blkio.throttle.write_iops_device", "wiops", io.throttle_write_iops_device()),
        ];
        for (v1, v2, devices) in throttles {
            for device in devices.iter().flatten() {
                let (major, minor, rate) = (device.major(), device.minor(), device.rate());
                let (old, new) = (format!("{major}:{minor} {rate}"), format!("{major}:{minor} {v2}={rate}"));
                self.set("blkio", v1, Some("io.max"), &old, &new)?;
            }
        }
        Ok(())
    }

    fn has(&self, controller: &str, file: &str) -> bool {
        self.cgroup.v1_folder(controller).is_some_and(|folder| folder.join(file).exists())
    }

    /// A v2 file by its own name.
    fn unified(&mut self, file: &str, value: &str) -> Result<(), RuntimeError> {
        let plain = !file.is_empty()
            && !file.starts_with('.')
            && file.bytes().all(|b| b.is_ascii_alphanumeric() || b"._".contains(&b));
        if !plain {
            return Err(RuntimeError::Spec(format!("unified limit {file:?} is not a control file's name")));
        }
        // The spec wants an error, not a warning, of what this machine can't do.
        let folder = self.cgroup.v2_folder().filter(|folder| folder.join(file).exists());
        let folder = folder.ok_or_else(|| {
            RuntimeError::Spec(format!("unified limit {file}: this machine's control groups (v2) have no such file"))
        })?;
        let path = folder.join(file);
        write(&path, value).map_err(|e| RuntimeError::file("set a limit: write", path, e))
    }
}

fn v2_number(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// v1's 10..1000 on v2's scale of 1..10000.
pub(crate) fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight).saturating_sub(10) * 9999 / 990
}

/// v1's 2..262144 shares on v2's scale of 1..10000 (runtime-spec, "cpu").
pub(crate) fn weight(shares: u64) -> u64 {
    1 + shares.clamp(2, 262_144).saturating_sub(2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_map_onto_the_whole_range_of_weights() {
        assert_eq!([0, 2, 1024, 262_144, u64::MAX].map(weight), [1, 1, 39, 10_000, 10_000]);
    }
}
