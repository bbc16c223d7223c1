//! Starting another program from a process that may have threads: posix_spawn (a vfork underneath), with
//! the descriptors that are named. Everything else of ours is close-on-exec by the rule of the house; what our own
//! caller left open, the spawned program closes first thing ([`close_from`]).

use crate::CallError;
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::Pid;
use std::ffi::{CStr, CString, c_char, c_int, c_short};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// A program to start.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// The program, by descriptor (of [`crate::selfexe::read_only_self`]).
    pub program: BorrowedFd<'a>,
    /// Its arguments, name first.
    pub args: &'a [&'a CStr],
    /// Its environment, `NAME=value`.
    pub env: &'a [&'a CStr],
    /// Its descriptors: the first becomes 0, the next 1, …
    pub fds: &'a [BorrowedFd<'a>],
    /// In a session of its own.
    pub new_session: bool,
}

/// Where descriptors are parked, above all that the program gets.
const PARKING: RawFd = 64;

/// Starts the program. Its signals are unblocked and at their defaults. The child is for the caller to reap.
pub fn spawn(spawn: &Spawn<'_>) -> Result<Pid, CallError> {
    let error = |what: &str, code: c_int| CallError::new("posix_spawn", what, Errno::from_raw_os_error(code));
    let park = |fd: BorrowedFd<'_>| fcntl_dupfd_cloexec(fd, PARKING).map_err(|e| CallError::new("fcntl", "dup", e));
    let parked = spawn.fds.iter().map(|fd| park(*fd)).collect::<Result<Vec<OwnedFd>, _>>()?;
    let program = park(spawn.program)?;
    let path = CString::new(format!("/proc/self/fd/{}", program.as_fd().as_raw_fd())).unwrap_or_default();

    let mut actions = Actions::new().map_err(|code| error("file actions", code))?;
    for (target, fd) in (0..).zip(&parked) {
        actions.dup2(fd.as_raw_fd(), target).map_err(|code| error("file actions", code))?;
    }
    let attributes = Attributes::new(spawn.new_session).map_err(|code| error("attributes", code))?;
    let args = pointers(spawn.args);
    let env = pointers(spawn.env);
    let mut pid: libc::pid_t = 0;
    // SAFETY: every pointer is to a live, initialised object; the lists end in null.
    let code = unsafe {
        libc::posix_spawn(
            &raw mut pid,
            path.as_ptr(),
            &raw const actions.0,
            &raw const attributes.0,
            args.as_ptr(),
            env.as_ptr(),
        )
    };
    if code != 0 {
        return Err(error("own program", code));
    }
    Pid::from_raw(pid).ok_or_else(|| error("pid", libc::EINVAL))
}

/// Takes over a descriptor that this program was started with, close-on-exec from now on. Each may be taken once, first thing
/// in `main`, before anything else is opened.
pub fn take_inherited(number: RawFd) -> Result<OwnedFd, CallError> {
    // SAFETY: only its flags are touched; an unused number answers EBADF.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(CallError::last("fcntl", number.to_string()));
    }
    // SAFETY: the descriptor is open (checked above) and came from our starter: by the contract nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes every descriptor from this number on: for a program's first moments, before it has opened any itself.
pub fn close_from(first: u32) -> Result<(), CallError> {
    // SAFETY: the caller owns nothing there yet; descriptors inherited from elsewhere have no owner in this program.
    match unsafe { libc::close_range(first, u32::MAX, 0) } {
        0 => Ok(()),
        _ => Err(CallError::last("close_range", "")),
    }
}

fn pointers(strings: &[&CStr]) -> Vec<*mut c_char> {
    strings.iter().map(|s| s.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect()
}

struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> Result<Actions, c_int> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: init fills the object in; on success it is initialised.
        match unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) } {
            // SAFETY: as above.
            0 => Ok(Actions(unsafe { actions.assume_init() })),
            code => Err(code),
        }
    }

    fn dup2(&mut self, from: RawFd, to: RawFd) -> Result<(), c_int> {
        // SAFETY: the object is initialised.
        match unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut self.0, from, to) } {
            0 => Ok(()),
            code => Err(code),
        }
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: the object is initialised and not used again.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new(new_session: bool) -> Result<Attributes, c_int> {
        let mut flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
        if new_session {
            flags |= c_int::from(libc::POSIX_SPAWN_SETSID);
        }
        let mut attributes = MaybeUninit::uninit();
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the init calls fill the objects in before they are used.
        unsafe {
            match libc::posix_spawnattr_init(attributes.as_mut_ptr()) {
                0 => {}
                code => return Err(code),
            }
            libc::sigemptyset(set.as_mut_ptr());
            libc::posix_spawnattr_setsigmask(attributes.as_mut_ptr(), set.as_ptr());
            libc::sigfillset(set.as_mut_ptr());
            libc::posix_spawnattr_setsigdefault(attributes.as_mut_ptr(), set.as_ptr());
            libc::posix_spawnattr_setflags(attributes.as_mut_ptr(), c_short::try_from(flags).unwrap_or(0));
            Ok(Attributes(attributes.assume_init()))
        }
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: the object is initialised and not used again.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs::File;
    use std::io::Read as _;

    #[test]
    fn the_child_has_the_named_descriptors() {
        let shell = File::open("/bin/sh").unwrap();
        let null = File::open("/dev/null").unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let args = [c"sh", c"-c", c"echo $X; readlink /proc/self/fd/[0-6]"];
        let fds = [null.as_fd(), writer.as_fd(), writer.as_fd(), null.as_fd()];
        let env = [c"X=hello", c"PATH=/bin:/usr/bin"];
        spawn(&Spawn { program: shell.as_fd(), args: &args, env: &env, fds: &fds, new_session: true }).unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!((words[0], words[1], words[4]), ("hello", "/dev/null", "/dev/null"));
        assert!(words[2].starts_with("pipe:") && words[2] == words[3], "{words:?}");
    }
}
