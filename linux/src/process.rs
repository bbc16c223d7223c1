//! Making, joining and ending processes.

use crate::CallError;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions};
use std::ffi::{CStr, c_char, c_int, c_ulong};
use std::ptr;

/// Namespaces to make or join; the values of `CLONE_NEW*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(u64);

impl Namespaces {
    /// Mounts.
    pub const MOUNT: Namespaces = Namespaces(0x0002_0000);
    /// Control groups.
    pub const CGROUP: Namespaces = Namespaces(0x0200_0000);
    /// Host and domain name.
    pub const UTS: Namespaces = Namespaces(0x0400_0000);
    /// System V IPC and POSIX message queues.
    pub const IPC: Namespaces = Namespaces(0x0800_0000);
    /// Users and capabilities.
    pub const USER: Namespaces = Namespaces(0x1000_0000);
    /// Process ids.
    pub const PID: Namespaces = Namespaces(0x2000_0000);
    /// Network.
    pub const NETWORK: Namespaces = Namespaces(0x4000_0000);
    /// Monotonic and boot clocks. Not for clone3's plain flags: unshare before the fork.
    pub const TIME: Namespaces = Namespaces(0x0000_0080);

    /// No namespace.
    pub const fn none() -> Namespaces {
        Namespaces(0)
    }

    /// Both.
    pub const fn with(self, other: Namespaces) -> Namespaces {
        Namespaces(self.0 | other.0)
    }

    /// This one but not that.
    pub const fn without(self, other: Namespaces) -> Namespaces {
        Namespaces(self.0 & !other.0)
    }

    /// Whether all of `other` are in it.
    pub const fn contains(self, other: Namespaces) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn flags(self) -> c_int {
        // CLONE_NEW* all fit in 31 bits.
        c_int::try_from(self.0).unwrap_or(0)
    }
}

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Forked {
    /// The caller, with its new child.
    Parent {
        /// In the caller's pid namespace.
        pid: Pid,
        /// The child by descriptor.
        pidfd: OwnedFd,
    },
    /// The new process.
    Child,
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_PARENT: u64 = 0x8000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// How many threads this process has: the link count of its task folder, one system call.
pub fn thread_count() -> Result<usize, CallError> {
    let stat = rustix::fs::stat("/proc/self/task").map_err(|e| CallError::path("stat", "/proc/self/task", e))?;
    Ok(usize::try_from(stat.st_nlink).unwrap_or(usize::MAX).saturating_sub(2))
}

/// Forks into new namespaces and, on cgroup v2, straight into a control group: moving the child
/// afterwards would wait for an RCU grace period (11-14 ms).
///
/// Fails with EBUSY where the process has other threads: their locks would stay held in the child.
pub fn fork_into(namespaces: Namespaces, cgroup: Option<BorrowedFd<'_>>) -> Result<Forked, CallError> {
    if thread_count()? != 1 {
        return Err(CallError::new("clone3", "of a process with threads", Errno::BUSY));
    }
    fork_again(namespaces, cgroup)
}

/// As [`fork_into`], for a process known to have one thread, and where there may be no
/// /proc to count them in: one that itself came out of it, or has counted before.
pub fn fork_again(namespaces: Namespaces, cgroup: Option<BorrowedFd<'_>>) -> Result<Forked, CallError> {
    let mut args =
        CloneArgs { flags: namespaces.0, exit_signal: libc::SIGCHLD.unsigned_abs().into(), ..CloneArgs::default() };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd().unsigned_abs().into();
    }
    clone3(args)
}

/// As [`fork_again`], but the new process is a child of this one's own parent, with the signal that this one's end gives: for
/// a process that only prepares another's birth. By the older call: filters let it pass where they can't look into clone3.
pub fn fork_sibling() -> Result<Forked, CallError> {
    let mut pidfd: c_int = -1;
    let flags = c_ulong::from(u32::try_from(CLONE_PARENT | CLONE_PIDFD).unwrap_or(0));
    // SAFETY: without CLONE_VM or a stack it is a plain fork (see `clone3`); the third argument is where the descriptor goes, on
    // every architecture that this is built for, and the others are not used with these flags.
    let answer = unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, &raw mut pidfd, 0usize, 0usize) };
    forked("clone", answer, &raw const pidfd)
}

fn clone3(mut args: CloneArgs) -> Result<Forked, CallError> {
    let mut pidfd: c_int = -1;
    args.flags |= CLONE_PIDFD;
    args.pidfd = ptr::from_mut(&mut pidfd).expose_provenance() as u64;
    // SAFETY: args is a valid clone_args of the size given, without CLONE_VM or a stack: a plain fork. The
    // process has one thread (the callers see to it), so no lock can be held by a thread the child lacks.
    let answer = unsafe { libc::syscall(libc::SYS_clone3, ptr::from_mut(&mut args), size_of::<CloneArgs>()) };
    forked("clone3", answer, &raw const pidfd)
}

/// What a call that forks has answered, asked for a pidfd.
fn forked(call: &'static str, answer: libc::c_long, pidfd: *const c_int) -> Result<Forked, CallError> {
    match answer {
        -1 => Err(CallError::last(call, "")),
        0 => Ok(Forked::Child),
        pid => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            let pid = pid.ok_or_else(|| CallError::new(call, "", Errno::INVAL))?;
            // SAFETY: the callers pass a live integer, where CLONE_PIDFD has stored a new descriptor that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(ptr::read_volatile(pidfd)) };
            Ok(Forked::Parent { pid, pidfd })
        }
    }
}

/// The process behind a pidfd, in the pid namespace of /proc: for one whose sender need not be believed.
pub fn pid_of(pidfd: BorrowedFd<'_>) -> Result<Pid, CallError> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = std::fs::read_to_string(&path)
        .map_err(|e| CallError::path("read", &path, Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pid:"));
    let pid = line.and_then(|pid| pid.trim().parse().ok()).filter(|pid| *pid > 0).and_then(Pid::from_raw);
    pid.ok_or_else(|| CallError::path("read", &path, Errno::SRCH))
}

/// Moves this process into a namespace by its file. For PID: its future children only.
pub fn join_namespace(namespace: BorrowedFd<'_>, kind: Namespaces) -> Result<(), CallError> {
    // SAFETY: setns changes kernel state of this thread only.
    match unsafe { libc::setns(namespace.as_raw_fd(), kind.flags()) } {
        0 => Ok(()),
        _ => Err(CallError::last("setns", "")),
    }
}

/// Moves this process into several namespaces of the process behind a pidfd at once. For PID: its future children only.
pub fn join_process(pidfd: BorrowedFd<'_>, kinds: Namespaces) -> Result<(), CallError> {
    join_namespace(pidfd, kinds)
}

/// Moves this process into new namespaces. Never shares or unshares descriptors.
pub fn unshare(namespaces: Namespaces) -> Result<(), CallError> {
    // SAFETY: only CLONE_NEW* flags can be in `Namespaces`; memory and descriptors stay as they are.
    match unsafe { libc::unshare(namespaces.flags()) } {
        0 => Ok(()),
        _ => Err(CallError::last("unshare", "")),
    }
}

/// Gives this thread a working directory apart from its process's other threads, from now on.
pub(crate) fn own_working_directory() -> Result<(), CallError> {
    // SAFETY: only the table of root and working directory stops being shared; memory and descriptors stay as they are.
    match unsafe { libc::unshare(libc::CLONE_FS) } {
        0 => Ok(()),
        _ => Err(CallError::last("unshare", "the working directory")),
    }
}

/// Marks every descriptor from `first` on close-on-exec.
pub fn close_on_exec_from(first: u32) -> Result<(), CallError> {
    const CLOSE_RANGE_CLOEXEC: c_ulong = 4;
    // SAFETY: the call touches descriptor flags only; no descriptor is closed.
    match unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) } {
        -1 => Err(CallError::last("close_range", "")),
        _ => Ok(()),
    }
}

/// Closes every descriptor: for a process that goes on without any, its owned ones included.
pub fn close_all() {
    // SAFETY: descriptors are closed under their owners, which the caller's contract excludes from further use.
    unsafe { libc::syscall(libc::SYS_close_range, 0u32, u32::MAX, 0) };
}

/// Closes every descriptor above the standard streams but these: for a process that goes on to `execve` or `_exit` and
/// never again uses (nor drops) what else it owned. What a caller of this program leaked into it goes the same way.
pub fn close_others(keep: &[BorrowedFd<'_>]) -> Result<(), CallError> {
    let mut keep: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd().unsigned_abs()).filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    let mut first = 3;
    for kept in keep.into_iter().map(Some).chain([None]) {
        let last = kept.map_or(u32::MAX, |kept| kept - 1);
        // SAFETY: descriptors are closed under their owners, which the contract excludes from further use.
        if first <= last && unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == -1 {
            return Err(CallError::last("close_range", ""));
        }
        first = kept.map_or(first, |kept| kept + 1);
    }
    Ok(())
}

/// Puts descriptors at `first`, `first + 1` … for the program about to be executed, over whatever stood there, except for
/// `keep`, which is moved out of the way and returned.
pub fn place_descriptors(descriptors: &[OwnedFd], first: u32, keep: BorrowedFd<'_>) -> Result<OwnedFd, CallError> {
    let at = |errno| CallError::new("dup", "", errno);
    let first = c_int::try_from(first).map_err(|_| at(Errno::BADF))?;
    let above =
        c_int::try_from(descriptors.len()).ok().and_then(|n| first.checked_add(n)).ok_or_else(|| at(Errno::BADF))?;
    let moved = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, above).map_err(at);
    let keep = moved(keep)?;
    let sources: Vec<OwnedFd> = descriptors.iter().map(|fd| moved(fd.as_fd())).collect::<Result<_, _>>()?;
    for (source, target) in sources.iter().zip(first..) {
        // SAFETY: dup2 onto a descriptor of this process: the program about to be executed is its new owner.
        if unsafe { libc::dup2(source.as_raw_fd(), target) } < 0 {
            return Err(CallError::last("dup2", target.to_string()));
        }
    }
    Ok(keep)
}

/// Executes a program. Returns only on failure.
pub fn execute(path: &CStr, args: &[&CStr], env: &[&CStr]) -> Errno {
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays end in a null pointer and their strings outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    CallError::last("execve", "").errno
}

/// Executes the program behind a descriptor. Returns only on failure.
pub fn execute_fd(program: BorrowedFd<'_>, args: &[&CStr], env: &[&CStr]) -> Errno {
    let (args, env) = (pointers(args), pointers(env));
    let flags = libc::AT_EMPTY_PATH;
    // SAFETY: as for execve; the empty path is a C string literal.
    unsafe { libc::syscall(libc::SYS_execveat, program.as_raw_fd(), c"".as_ptr(), args.as_ptr(), env.as_ptr(), flags) };
    CallError::last("execveat", "").errno
}

fn pointers(strings: &[&CStr]) -> Vec<*const c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
}

/// Ends this process at once, without running destructors or exit handlers: the end of a forked child.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code.into()) }
}

/// Sets every signal to its default and unblocks all, as a program expects to start.
pub fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL installs no handler code; signals that can't be changed answer EINVAL, which is fine.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    set_blocked_signals(false);
}

/// Blocks (or unblocks) every signal that can be.
pub fn set_blocked_signals(blocked: bool) {
    let all: u64 = u64::MAX;
    let how = if blocked { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
    // SAFETY: the kernel's signal set is 8 bytes, as passed. The raw call also covers the two that glibc keeps.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, ptr::from_ref(&all), ptr::null::<u64>(), size_of::<u64>()) };
}

/// Waits for any (blocked) signal and takes it off the queue.
pub fn wait_signal() -> Result<i32, CallError> {
    let all: u64 = u64::MAX;
    // SAFETY: the set is 8 bytes as the kernel wants, no info and no time-out are asked for.
    let signal = unsafe {
        libc::syscall(
            libc::SYS_rt_sigtimedwait,
            ptr::from_ref(&all),
            ptr::null::<libc::siginfo_t>(),
            ptr::null::<libc::timespec>(),
            size_of::<u64>(),
        )
    };
    i32::try_from(signal).ok().filter(|s| *s > 0).ok_or_else(|| CallError::last("rt_sigtimedwait", ""))
}

/// Sends any signal by number, also those without a name.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), CallError> {
    // SAFETY: no siginfo is passed.
    let answer = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, ptr::null::<libc::siginfo_t>(), 0)
    };
    if answer == 0 { Ok(()) } else { Err(CallError::last("pidfd_send_signal", signal.to_string())) }
}

/// Sends any signal by number to a pid; only for children not yet reaped, whose pid can't be another's.
pub fn kill(pid: i32, signal: i32) -> Result<(), CallError> {
    // SAFETY: kill has no memory preconditions.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(CallError::last("kill", pid.to_string())),
    }
}

/// Blocks until a child is gone and reaps it: its exit code, 128 + the signal's number if it was killed.
pub fn reap(pidfd: BorrowedFd<'_>) -> Result<u8, CallError> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                let code = status
                    .exit_status()
                    .or_else(|| status.terminating_signal().map(|signal| 128 + signal))
                    .unwrap_or(255);
                return Ok(u8::try_from(code & 0xff).unwrap_or(255));
            }
            Ok(None) | Err(Errno::INTR) => {}
            Err(errno) => return Err(CallError::new("waitid", "", errno)),
        }
    }
}

/// Gives the process a new session keyring of this name, so that it can't read the caller's keys.
pub fn new_session_keyring(name: &CStr) -> Result<(), CallError> {
    const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: the name is a C string that outlives the call.
    match unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) } {
        -1 => Err(CallError::last("keyctl", name.to_string_lossy())),
        _ => Ok(()),
    }
}

/// What the session keyring of this process is called.
pub fn session_keyring() -> Result<String, CallError> {
    const KEYCTL_DESCRIBE: c_int = 6;
    const KEY_SPEC_SESSION_KEYRING: c_int = -3;
    let mut text = [0u8; 512];
    // SAFETY: the kernel writes at most the length given.
    let answer = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_DESCRIBE, KEY_SPEC_SESSION_KEYRING, text.as_mut_ptr(), text.len())
    };
    let Ok(length) = usize::try_from(answer) else { return Err(CallError::last("keyctl", "describe")) };
    let text = String::from_utf8_lossy(&text[..length.min(text.len())]).into_owned();
    // type;uid;gid;permissions;description
    Ok(text.trim_end_matches('\0').splitn(5, ';').nth(4).unwrap_or_default().to_owned())
}

/// The execution domain of this process.
pub fn personality() -> Result<u32, CallError> {
    // SAFETY: this value only asks.
    let answer = unsafe { libc::personality(0xffff_ffff) };
    u32::try_from(answer).map_err(|_| CallError::last("personality", ""))
}

/// Sets the execution domain (`uname` machine, address layout) of this process.
pub fn set_personality(persona: u32) -> Result<(), CallError> {
    // SAFETY: personality changes kernel state of this process only.
    match unsafe { libc::personality(c_ulong::from(persona)) } {
        -1 => Err(CallError::last("personality", format!("{persona:#x}"))),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_refused() {
        let (send, receive) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || receive.recv().is_ok());
        assert!(thread_count().unwrap() >= 2);
        assert_eq!(fork_into(Namespaces::none(), None).unwrap_err().errno, Errno::BUSY);
        drop(send);
        other.join().unwrap();
    }
}
