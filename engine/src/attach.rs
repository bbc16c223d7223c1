//! A foreground client's end of a container's (or exec session's) streams: typed events in, input and requests out.

use crate::{ExitStatus, Result};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Which streams a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachOptions {
    /// It will write standard input.
    pub stdin: bool,
    /// It wants standard output (with a terminal: everything).
    pub stdout: bool,
    /// It wants standard error.
    pub stderr: bool,
    /// The terminal's rows and columns, with `-t`.
    pub size: Option<(u16, u16)>,
}

/// What comes from the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachEvent {
    /// Standard output, or the terminal's.
    Stdout(Vec<u8>),
    /// Standard error.
    Stderr(Vec<u8>),
    /// The program has ended and the container is cleaned up. The last event.
    Exit(ExitStatus),
}

/// An attached client. Reading and writing go on independently: clone it ([`Attached::try_clone`]) to do both in
/// threads, or poll [`AsFd::as_fd`] for readability in one.
#[derive(Debug)]
pub struct Attached {
    #[allow(dead_code)]
    socket: OwnedFd,
}

impl Attached {
    /// Waits for the next event. None: the container's monitor is gone without a word (or the client was detached).
    pub fn next(&mut self) -> Result<Option<AttachEvent>> {
        todo!()
    }

    /// Sends standard input; blocks while the container does not read.
    pub fn write_stdin(&self, bytes: &[u8]) -> Result<()> {
        let _ = bytes;
        todo!()
    }

    /// Ends standard input.
    pub fn close_stdin(&self) -> Result<()> {
        todo!()
    }

    /// The terminal's new size.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let _ = (rows, columns);
        todo!()
    }

    /// Signals the program (`--sig-proxy`): a signal's number.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let _ = signal;
        todo!()
    }

    /// A second handle on the same stream: one reads, the other writes.
    pub fn try_clone(&self) -> Result<Attached> {
        todo!()
    }
}

impl AsFd for Attached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
