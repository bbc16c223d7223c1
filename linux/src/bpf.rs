//! Device filters of cgroup v2: an eBPF program on the group's folder (there is no devices controller).

use crate::CallError;
use std::ffi::{CStr, c_int};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// One eBPF instruction, as the kernel's `bpf_insn`: operation, registers (source << 4 | destination), offset, immediate.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Source in the high, destination in the low four bits.
    pub registers: u8,
    /// Jump distance or memory offset.
    pub offset: i16,
    /// The constant operand.
    pub immediate: i32,
}

const BPF_PROG_LOAD: c_int = 5;
const BPF_PROG_ATTACH: c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
const LICENSE: &CStr = c"Apache-2.0";

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

/// Loads a device filter.
pub fn load_device_filter(program: &[Instruction]) -> Result<OwnedFd, CallError> {
    let attr = LoadAttr {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len()).unwrap_or(u32::MAX),
        instructions: program.as_ptr().expose_provenance() as u64,
        license: LICENSE.as_ptr().expose_provenance() as u64,
        ..LoadAttr::default()
    };
    // SAFETY: both addresses are of live memory of the lengths given; the kernel reads only, and verifies the program.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, ptr::from_ref(&attr), size_of::<LoadAttr>()) };
    match c_int::try_from(fd) {
        // SAFETY: a new descriptor (close-on-exec by the kernel's own rule) that nobody else owns.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(CallError::last("bpf", "load a device filter")),
    }
}

/// Puts a filter on a v2 control group. It goes away with the group.
pub fn attach_device_filter(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), CallError> {
    let attr = AttachAttr {
        target: cgroup.as_raw_fd().unsigned_abs(),
        program: program.as_raw_fd().unsigned_abs(),
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the attribute is of the size given.
    match unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, ptr::from_ref(&attr), size_of::<AttachAttr>()) } {
        0 => Ok(()),
        _ => Err(CallError::last("bpf", "attach a device filter")),
    }
}
