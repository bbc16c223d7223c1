//! Limits and devices of a container.

use super::privileges::device;
use crate::{ContainerSpec, EngineError, Result, Ulimit};
use oci_spec::runtime::{
    Linux, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxPids, PosixRlimit, PosixRlimitBuilder,
    PosixRlimitType, Spec,
};
use rustix::process::{Resource, getrlimit};

/// Open files of a container that nobody said anything about: the shell's own limit must not leak in.
const DEFAULT_NOFILE: u64 = 1_048_576;
/// `--cpus` in this period, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;
const MIN_MEMORY_BYTES: u64 = 6 << 20;

pub(super) fn resources(asked: &ContainerSpec, linux: &mut Linux) -> Result<()> {
    let limits = &asked.resources;
    let mut resources = linux.resources().clone().unwrap_or_default();
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let set = |n: Option<u64>| n.filter(|n| *n > 0);
    if let Some(limit) = set(limits.memory_bytes).or(set(limits.memory_reservation_bytes)) {
        if limit < MIN_MEMORY_BYTES {
            return Err(EngineError::Invalid("Minimum memory limit allowed is 6MB".to_owned()));
        }
        let mut memory = LinuxMemory::default();
        if let Some(limit) = set(limits.memory_bytes) {
            let swap = limits.memory_swap_bytes.filter(|swap| *swap != 0).unwrap_or(signed(limit.saturating_mul(2)));
            if swap > 0 && swap < signed(limit) {
                return Err(EngineError::Invalid(
                    "Minimum memoryswap limit should be larger than memory limit, see usage".to_owned(),
                ));
            }
            memory.set_limit(Some(signed(limit))).set_swap(Some(swap));
        }
        memory.set_reservation(set(limits.memory_reservation_bytes).map(signed));
        if limits.oom_kill_disable {
            memory.set_disable_oom_killer(Some(true));
        }
        resources.set_memory(Some(memory));
    }
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(set(limits.cpu_shares)).set_quota(limits.cpu_quota_us.filter(|n| *n != 0));
    cpu.set_period(set(limits.cpu_period_us));
    cpu.set_cpus(limits.cpuset_cpus.clone().filter(|text| !text.is_empty()));
    cpu.set_mems(limits.cpuset_mems.clone().filter(|text| !text.is_empty()));
    if let Some(nano) = set(limits.nano_cpus) {
        let quota = u128::from(nano) * u128::from(CPU_PERIOD_US) / 1_000_000_000;
        cpu.set_period(Some(CPU_PERIOD_US)).set_quota(Some(i64::try_from(quota).unwrap_or(i64::MAX).max(1000)));
    }
    if cpu != LinuxCpu::default() {
        resources.set_cpu(Some(cpu));
    }
    if let Some(limit) = limits.pids_limit.filter(|limit| *limit > 0) {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        resources.set_pids(Some(pids));
    }
    linux.set_resources(Some(resources));
    Ok(())
}

pub(super) fn devices(asked: &ContainerSpec, linux: &mut Linux) -> Result<()> {
    let mut devices = linux.devices().clone().unwrap_or_default();
    let mut resources = linux.resources().clone().unwrap_or_default();
    let mut rules = resources.devices().clone().unwrap_or_default();
    for wanted in &asked.devices {
        let made = device(&wanted.source, &wanted.target).ok_or_else(|| {
            EngineError::Invalid(format!("--device {}: not a device of this host", wanted.source.display()))
        })?;
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(true)
            .set_typ(Some(made.typ()))
            .set_major(Some(made.major()))
            .set_minor(Some(made.minor()))
            .set_access(Some(wanted.permissions.clone()));
        rules.push(rule);
        devices.retain(|known| known.path() != made.path());
        devices.push(made);
    }
    for text in &asked.resources.device_cgroup_rules {
        rules.push(parse_rule(text).ok_or_else(|| {
            EngineError::Invalid(format!("invalid --device-cgroup-rule {text:?}: expected TYPE MAJOR:MINOR ACCESS"))
        })?);
    }
    resources.set_devices(Some(rules));
    linux.set_resources(Some(resources)).set_devices(Some(devices));
    Ok(())
}

/// What to say of the limits of a container that has no control group.
pub(crate) fn unlimited(spec: &Spec) -> Vec<String> {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let Some(resources) = resources else { return Vec::new() };
    let asked = [
        ("memory", resources.memory().is_some()),
        ("cpu", resources.cpu().is_some()),
        ("pids", resources.pids().is_some()),
        ("block I/O", resources.block_io().is_some()),
    ];
    let say = |what| format!("{what} limit: no control group was delegated to this user. Limitation discarded.");
    asked.into_iter().filter(|(_, asked)| *asked).map(|(what, _)| say(what)).collect()
}

/// `c 1:* rwm`
fn parse_rule(text: &str) -> Option<LinuxDeviceCgroup> {
    let mut words = text.split_ascii_whitespace();
    let kind = match words.next()? {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return None,
    };
    let (major, minor) = words.next()?.split_once(':')?;
    let access = words.next()?;
    let number = |text: &str| if text == "*" { Some(None) } else { text.parse().ok().map(Some) };
    if words.next().is_some() || !access.bytes().all(|b| b"rwm".contains(&b)) {
        return None;
    }
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(true)
        .set_typ(Some(kind))
        .set_major(number(major)?)
        .set_minor(number(minor)?)
        .set_access(Some(access.to_owned()));
    Some(rule)
}

const RLIMITS: [(&str, PosixRlimitType); 15] = [
    ("core", PosixRlimitType::RlimitCore),
    ("cpu", PosixRlimitType::RlimitCpu),
    ("data", PosixRlimitType::RlimitData),
    ("fsize", PosixRlimitType::RlimitFsize),
    ("locks", PosixRlimitType::RlimitLocks),
    ("memlock", PosixRlimitType::RlimitMemlock),
    ("msgqueue", PosixRlimitType::RlimitMsgqueue),
    ("nice", PosixRlimitType::RlimitNice),
    ("nofile", PosixRlimitType::RlimitNofile),
    ("nproc", PosixRlimitType::RlimitNproc),
    ("rss", PosixRlimitType::RlimitRss),
    ("rtprio", PosixRlimitType::RlimitRtprio),
    ("rttime", PosixRlimitType::RlimitRttime),
    ("sigpending", PosixRlimitType::RlimitSigpending),
    ("stack", PosixRlimitType::RlimitStack),
];

/// What the user asks for, and open files in any case: as many as docker gives, or as we may.
pub(crate) fn rlimits(asked: &[Ulimit]) -> Result<Vec<PosixRlimit>> {
    let limit = |kind, soft, hard| {
        let built = PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard).build();
        built.map_err(|e| EngineError::Invalid(e.to_string()))
    };
    let mut limits = Vec::new();
    for wanted in asked {
        let (_, kind) = RLIMITS
            .iter()
            .find(|(name, _)| *name == wanted.name)
            .ok_or_else(|| EngineError::Invalid(format!("invalid ulimit type: {}", wanted.name)))?;
        if wanted.soft > wanted.hard {
            return Err(EngineError::Invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                wanted.soft, wanted.hard
            )));
        }
        limits.push(limit(*kind, wanted.soft, wanted.hard)?);
    }
    if !asked.iter().any(|wanted| wanted.name == "nofile") {
        let own = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        let files = DEFAULT_NOFILE.min(own);
        limits.push(limit(PosixRlimitType::RlimitNofile, files, files)?);
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_rules_have_a_grammar() {
        assert!(parse_rule("c 1:* rwm").is_some());
        assert!(parse_rule("b 8:0 r").is_some());
        for bad in ["", "c", "x 1:1 r", "c 1 r", "c 1:1 z", "c 1:1 r r"] {
            assert!(parse_rule(bad).is_none(), "{bad}");
        }
    }
}
