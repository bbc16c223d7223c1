//! What the kernel is told about a process beside its rights: scheduler, disk priority, CPUs, memory nodes, personality.

use crate::RuntimeError;
use linux::schedule::{self, Scheduling};
use linux::{CallError, process};
use oci_spec::runtime::{
    IOPriorityClass, Linux, LinuxIOPriority, LinuxMemoryPolicy, LinuxPersonality, LinuxPersonalityDomain,
    LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Process, Scheduler,
};
use rustix::thread::CpuSet;

/// PER_LINUX32
const LINUX32: u32 = 8;

/// Worked out beforehand; applied by the process itself.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    scheduling: Option<Scheduling>,
    io_priority: Option<(u32, u32)>,
    personality: Option<u32>,
    memory_policy: Option<(u32, Vec<usize>)>,
    /// CPUs of a process that is added to a container: before it enters the control group, and after.
    affinity: (Option<CpuSet>, Option<CpuSet>),
}

impl Attributes {
    /// Those of a process. Its personality and memory nodes are the container's.
    pub(crate) fn new(process: &Process, container: Option<&Linux>) -> Result<Attributes, RuntimeError> {
        let personality = container.and_then(|linux| linux.personality().as_ref());
        let memory = container.and_then(|linux| linux.memory_policy().as_ref());
        Ok(Attributes {
            scheduling: process.scheduler().as_ref().map(scheduling).transpose()?,
            io_priority: process.io_priority().as_ref().map(io_priority).transpose()?,
            personality: personality.map(self::personality).transpose()?,
            memory_policy: memory.map(memory_policy).transpose()?,
            affinity: (None, None),
        })
    }

    /// Adds the CPUs of a process that is added to a running container (`execCPUAffinity`).
    pub(crate) fn on_cpus_of(mut self, process: &Process) -> Result<Attributes, RuntimeError> {
        if let Some(affinity) = process.exec_cpu_affinity() {
            let set = |list: &Option<String>| list.as_deref().map(cpus).transpose();
            self.affinity = (set(affinity.initial())?, set(affinity.cpu_affinity_final())?);
        }
        Ok(self)
    }

    /// Before this process enters the container's control group.
    pub(crate) fn apply_first(&self) -> Result<(), CallError> {
        run_on(self.affinity.0.as_ref())
    }

    /// In the container's control group, while privileges last.
    pub(crate) fn apply(&self) -> Result<(), CallError> {
        run_on(self.affinity.1.as_ref())?;
        if let Some((mode, nodes)) = &self.memory_policy {
            schedule::set_memory_policy(*mode, nodes)?;
        }
        if let Some((class, level)) = self.io_priority {
            schedule::set_io_priority(class, level)?;
        }
        if let Some(scheduling) = &self.scheduling {
            schedule::set_scheduling(scheduling)?;
        }
        if let Some(personality) = self.personality {
            process::set_personality(personality)?;
        }
        Ok(())
    }
}

fn run_on(cpus: Option<&CpuSet>) -> Result<(), CallError> {
    let Some(cpus) = cpus else { return Ok(()) };
    rustix::thread::sched_setaffinity(None, cpus)
        .map_err(|e| CallError::new("sched_setaffinity", "process.execCPUAffinity", e))
}

fn scheduling(wanted: &Scheduler) -> Result<Scheduling, RuntimeError> {
    let refuse = |why: &str| Err(RuntimeError::Spec(format!("process.scheduler: {why}")));
    let policy = match wanted.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let flag = |flag: &LinuxSchedulerFlag| match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    };
    let nice = wanted.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return refuse(&format!("nice {nice}: -20 to 19"));
    }
    let Ok(priority) = u32::try_from(wanted.priority().unwrap_or(0)) else {
        return refuse("a negative priority");
    };
    let deadline = [wanted.runtime(), wanted.deadline(), wanted.period()].map(|number| number.unwrap_or(0));
    if policy != 6 && deadline != [0; 3] {
        return refuse("runtime, deadline and period are for SCHED_DEADLINE only");
    }
    if !matches!(policy, 1 | 2) && priority != 0 {
        return refuse("priority is for SCHED_FIFO and SCHED_RR only");
    }
    let [runtime_ns, deadline_ns, period_ns] = deadline;
    let flags = wanted.flags().iter().flatten().map(flag).fold(0, |all, one| all | one);
    Ok(Scheduling { policy, flags, nice, priority, runtime_ns, deadline_ns, period_ns, ..Scheduling::default() })
}

fn io_priority(wanted: &LinuxIOPriority) -> Result<(u32, u32), RuntimeError> {
    let class = match wanted.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    let level = u32::try_from(wanted.priority()).ok().filter(|level| *level <= 7);
    let refuse = || RuntimeError::Spec(format!("process.ioPriority: priority {}: 0 to 7", wanted.priority()));
    Ok((class, level.ok_or_else(refuse)?))
}

fn personality(wanted: &LinuxPersonality) -> Result<u32, RuntimeError> {
    if wanted.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(RuntimeError::Spec("linux.personality: the spec knows no flags yet".to_owned()));
    }
    Ok(match wanted.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => LINUX32,
    })
}

fn memory_policy(wanted: &LinuxMemoryPolicy) -> Result<(u32, Vec<usize>), RuntimeError> {
    let mode = match wanted.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flag = |flag: &MemoryPolicyFlagType| match flag {
        MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
        MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
    };
    let flags = wanted.flags().iter().flatten().map(flag).fold(0, |all, one| all | one);
    let list = wanted.nodes().as_deref().unwrap_or_default();
    let nodes = numbers("linux.memoryPolicy: nodes", list, schedule::MAX_NODES)?;
    match (mode, nodes.is_empty()) {
        (0 | 4, false) => Err(RuntimeError::Spec(format!("linux.memoryPolicy: {} takes no nodes", wanted.mode()))),
        (2 | 3 | 5 | 6, true) => Err(RuntimeError::Spec(format!("linux.memoryPolicy: {} needs nodes", wanted.mode()))),
        _ => Ok((mode | flags, nodes)),
    }
}

fn cpus(list: &str) -> Result<CpuSet, RuntimeError> {
    let mut set = CpuSet::new();
    for cpu in numbers("process.execCPUAffinity", list, CpuSet::MAX_CPU)? {
        set.set(cpu);
    }
    Ok(set)
}

/// The numbers of a list such as `0-3,7`, all below `limit`.
fn numbers(what: &str, list: &str, limit: usize) -> Result<Vec<usize>, RuntimeError> {
    let refuse = || RuntimeError::Spec(format!("{what} {list:?}: expected something like 0-3,7, below {limit}"));
    let number = |text: &str| {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<usize>().ok().filter(|number| plain && *number < limit).ok_or_else(refuse)
    };
    let mut found = Vec::new();
    for part in list.split(',').map(str::trim).filter(|_| !list.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last || found.len() > limit {
            return Err(refuse());
        }
        found.extend(first..=last);
    }
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_of_numbers_are_read_exactly() {
        let read = |text| numbers("x", text, 16);
        assert_eq!(read("0-3,7").unwrap(), [0, 1, 2, 3, 7]);
        assert_eq!(read("").unwrap(), Vec::<usize>::new());
        for wrong in [",", "1,", "3-1", "16", "0-16", "+1", "-1", "1-", "a", "99999999999999999999"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_list_names_more_than_there_is(text in "[0-9,-]{0,40}") {
            if let Ok(found) = numbers("x", &text, 64) {
                prop_assert!(found.iter().all(|number| *number < 64));
                prop_assert!(found.len() <= 64 * 64);
            }
        }
    }
}
