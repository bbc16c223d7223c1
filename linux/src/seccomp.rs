//! Loading a system call filter. Compiling one is the runtime's business.

use crate::CallError;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;

/// One classic BPF instruction, laid out as the kernel's `sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// How many instructions to skip if the comparison holds.
    pub jump_true: u8,
    /// How many to skip if not.
    pub jump_false: u8,
    /// The operand.
    pub k: u32,
}

#[repr(C)]
struct Program {
    len: u16,
    filter: *const Instruction,
}

/// The kernel's limit on a filter's length (BPF_MAXINSNS).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Flags of a filter, as seccomp(2)'s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilterFlags {
    /// Log every action but allow.
    pub log: bool,
    /// Leave speculative store bypass as it is.
    pub spec_allow: bool,
    /// Give out a descriptor by which another process answers calls (SECCOMP_RET_USER_NOTIF).
    pub notify: bool,
    /// Whoever waits for such an answer can be killed (5.19).
    pub wait_killable: bool,
}

/// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;

/// Puts a filter on this thread and its future children. Needs CAP_SYS_ADMIN or no_new_privs. The descriptor of its
/// notifications, if they were asked for.
pub fn load(filter: &[Instruction], flags: FilterFlags) -> Result<Option<OwnedFd>, CallError> {
    let too_long = || CallError::new("seccomp", "filter too long", rustix::io::Errno::INVAL);
    if filter.len() > MAX_INSTRUCTIONS {
        return Err(too_long());
    }
    let program = Program { len: u16::try_from(filter.len()).map_err(|_| too_long())?, filter: filter.as_ptr() };
    let mut bits = 0;
    if flags.log {
        bits |= libc::SECCOMP_FILTER_FLAG_LOG;
    }
    if flags.spec_allow {
        bits |= libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    }
    if flags.notify {
        bits |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    }
    if flags.wait_killable {
        bits |= WAIT_KILLABLE_RECV;
    }
    // SAFETY: the program points at `filter`, which outlives the call; the kernel verifies the instructions.
    let answer =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, bits, ptr::from_ref(&program)) };
    match i32::try_from(answer) {
        // SAFETY: with NEW_LISTENER a success is a new descriptor that nobody else owns.
        Ok(fd) if fd >= 0 && flags.notify => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
        Ok(0) => Ok(None),
        _ => Err(CallError::last("seccomp", "")),
    }
}
