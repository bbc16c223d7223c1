//! Signals: names and numbers, and reading them from a descriptor.

use crate::CallError;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::io::Errno;

/// The largest signal number of Linux (SIGRTMAX of the kernel).
pub const MAX_SIGNAL: i32 = 64;
/// The kernel's SIGRTMIN as C libraries show it.
const RTMIN: i32 = 34;

/// A signal's number from `TERM`, `SIGTERM`, `sigterm`, `RTMIN+3` or `15`.
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=MAX_SIGNAL).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let in_range = |n: i32| (RTMIN..=MAX_SIGNAL).contains(&n).then_some(n);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return if rest.is_empty() {
            Some(RTMIN)
        } else {
            in_range(RTMIN + rest.strip_prefix('+')?.parse::<i32>().ok()?)
        };
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return if rest.is_empty() {
            Some(MAX_SIGNAL)
        } else {
            in_range(MAX_SIGNAL - rest.strip_prefix('-')?.parse::<i32>().ok()?)
        };
    }
    match name {
        "IOT" => Some(Signal::SIGABRT as i32),
        "CLD" => Some(Signal::SIGCHLD as i32),
        "POLL" => Some(Signal::SIGIO as i32),
        _ => format!("SIG{name}").parse::<Signal>().ok().map(|s| s as i32),
    }
}

/// Signals of this process as a descriptor to poll.
#[derive(Debug)]
pub struct SignalQueue(SignalFd);

impl SignalQueue {
    /// Blocks these signals in the calling thread (do it before others are made) and queues them here.
    pub fn new(signals: &[i32]) -> Result<SignalQueue, CallError> {
        let error = |call| move |e: nix::Error| CallError::new(call, "", Errno::from_raw_os_error(e as i32));
        let mut set = SigSet::empty();
        for signal in signals {
            set.add(Signal::try_from(*signal).map_err(error("signalfd"))?);
        }
        set.thread_block().map_err(error("sigprocmask"))?;
        let fd =
            SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(error("signalfd"))?;
        Ok(SignalQueue(fd))
    }

    /// The next queued signal's number, without waiting.
    pub fn next(&self) -> Option<i32> {
        let info = self.0.read_signal().ok().flatten()?;
        i32::try_from(info.ssi_signo).ok()
    }
}

impl std::os::fd::AsFd for SignalQueue {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_many_spellings() {
        for (text, number) in [
            ("TERM", Some(15)),
            ("SIGTERM", Some(15)),
            ("sigKill", Some(9)),
            ("9", Some(9)),
            ("HUP", Some(1)),
            ("WINCH", Some(28)),
            ("RTMIN+3", Some(37)),
            ("SIGRTMAX-1", Some(63)),
            ("0", None),
            ("65", None),
            ("RTMIN+99", None),
            ("BOGUS", None),
            ("", None),
        ] {
            assert_eq!(parse(text), number, "{text}");
        }
    }
}
