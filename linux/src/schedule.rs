//! How the kernel treats a process among others: its scheduler, its place at the disk, the memory nodes it takes from.

use crate::CallError;
use std::ptr;

/// A scheduling policy and its parameters, laid out as the kernel's `sched_attr` (first version).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scheduling {
    /// Filled in by [`set_scheduling`].
    pub size: u32,
    /// SCHED_OTHER, SCHED_FIFO …
    pub policy: u32,
    /// SCHED_FLAG_*.
    pub flags: u64,
    /// Of SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// Of SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// Of SCHED_DEADLINE, in nanoseconds.
    pub runtime_ns: u64,
    /// As above.
    pub deadline_ns: u64,
    /// As above.
    pub period_ns: u64,
}

/// SCHED_ATTR_SIZE_VER0
const SCHEDULING_SIZE: u32 = 48;
const IOPRIO_WHO_PROCESS: i32 = 1;
const IOPRIO_CLASS_SHIFT: u32 = 13;
/// Memory nodes that can be named.
pub const MAX_NODES: usize = 1024;

/// Schedules this thread, and the program it becomes, like this.
pub fn set_scheduling(wanted: &Scheduling) -> Result<(), CallError> {
    let wanted = Scheduling { size: SCHEDULING_SIZE, ..*wanted };
    // SAFETY: the structure is of the size it says; 0 is this thread, the last 0 no flags.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, ptr::from_ref(&wanted), 0) } {
        0 => Ok(()),
        _ => Err(CallError::last("sched_setattr", format!("policy {}", wanted.policy))),
    }
}

/// How this thread is scheduled.
pub fn scheduling() -> Result<Scheduling, CallError> {
    let mut now = Scheduling::default();
    // SAFETY: the kernel writes at most the size given.
    match unsafe { libc::syscall(libc::SYS_sched_getattr, 0, ptr::from_mut(&mut now), SCHEDULING_SIZE, 0) } {
        0 => Ok(now),
        _ => Err(CallError::last("sched_getattr", "")),
    }
}

/// Sets the class (1 real time, 2 best effort, 3 idle) and level (0 to 7) of this thread's disk access.
pub fn set_io_priority(class: u32, level: u32) -> Result<(), CallError> {
    let value = class << IOPRIO_CLASS_SHIFT | level;
    // SAFETY: plain numbers; 0 is this thread.
    match unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) } {
        0 => Ok(()),
        _ => Err(CallError::last("ioprio_set", format!("class {class}, level {level}"))),
    }
}

/// Class and level of this thread's disk access.
pub fn io_priority() -> Result<(u32, u32), CallError> {
    // SAFETY: plain numbers; 0 is this thread.
    let value = unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0) };
    let value = u32::try_from(value).map_err(|_| CallError::last("ioprio_get", ""))?;
    Ok((value >> IOPRIO_CLASS_SHIFT, value & ((1 << IOPRIO_CLASS_SHIFT) - 1)))
}

/// Sets which memory nodes this thread takes its memory from: an MPOL_* mode with MPOL_F_* flags, and the nodes' numbers.
pub fn set_memory_policy(mode: u32, nodes: &[usize]) -> Result<(), CallError> {
    const WORD: usize = u64::BITS as usize;
    let mut mask = [0u64; MAX_NODES / WORD];
    for node in nodes {
        let word = mask.get_mut(node / WORD);
        *word.ok_or_else(|| CallError::new("set_mempolicy", format!("node {node}"), rustix::io::Errno::INVAL))? |=
            1 << (node % WORD);
    }
    // The kernel takes one bit less than it is told of.
    let (mask, bits) = if nodes.is_empty() { (ptr::null(), 0) } else { (mask.as_ptr(), MAX_NODES + 1) };
    // SAFETY: the mask has as many bits as are told of (the kernel reads MAX_NODES of them), or there is none.
    match unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) } {
        0 => Ok(()),
        _ => Err(CallError::last("set_mempolicy", format!("mode {mode:#x}"))),
    }
}

/// The mode of this thread's memory policy.
pub fn memory_policy() -> Result<u32, CallError> {
    let mut mode: u32 = 0;
    let none = ptr::null_mut::<u64>();
    // SAFETY: the kernel writes one int; no mask and no address are given.
    match unsafe { libc::syscall(libc::SYS_get_mempolicy, ptr::from_mut(&mut mode), none, 0, none, 0) } {
        0 => Ok(mode),
        _ => Err(CallError::last("get_mempolicy", "")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_read_back() {
        std::thread::spawn(|| {
            let now = scheduling().unwrap();
            set_scheduling(&Scheduling { nice: 7, ..now }).unwrap();
            assert_eq!(scheduling().unwrap().nice, 7);
            set_io_priority(2, 6).unwrap();
            assert_eq!(io_priority().unwrap(), (2, 6));
        })
        .join()
        .unwrap();
    }
}
