//! The user's terminal: raw mode while a container's program owns it, and its size.

use crate::CallError;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Whether the descriptor is a terminal.
pub fn is_terminal(fd: BorrowedFd<'_>) -> bool {
    rustix::termios::isatty(fd)
}

/// Rows and columns.
pub fn size(terminal: BorrowedFd<'_>) -> Result<(u16, u16), CallError> {
    let size = tcgetwinsize(terminal).map_err(|e| CallError::new("ioctl", "TIOCGWINSZ", e))?;
    Ok((size.ws_row, size.ws_col))
}

/// A terminal in raw mode: every key goes to the container. Dropping it puts the old mode back.
#[derive(Debug)]
pub struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    /// Switches the terminal.
    pub fn enter(terminal: BorrowedFd<'_>) -> Result<RawMode, CallError> {
        let before = tcgetattr(terminal).map_err(|e| CallError::new("tcgetattr", "", e))?;
        let terminal = rustix::io::fcntl_dupfd_cloexec(terminal, 0).map_err(|e| CallError::new("fcntl", "dup", e))?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&terminal, OptionalActions::Drain, &raw).map_err(|e| CallError::new("tcsetattr", "", e))?;
        Ok(RawMode { terminal, before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // The terminal may be gone: nobody is left to be told.
        let _gone = tcsetattr(self.terminal.as_fd(), OptionalActions::Drain, &self.before);
    }
}
