//! Reading a container's log, across rotation, following it while the container runs.

use crate::{Engine, Result};
use jiff::Timestamp;

/// What to show of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// `-f`: go on until the container ends.
    pub follow: bool,
    /// `-n`: the last so many lines; None: all.
    pub tail: Option<u64>,
    /// Nothing older.
    pub since: Option<Timestamp>,
    /// Nothing newer.
    pub until: Option<Timestamp>,
}

/// The stream a line was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output, or the terminal's.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of output. Its text ends in a newline unless the line was longer than 16 KiB (the rest follows as further
/// entries) or the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Where it was written.
    pub stream: LogStream,
    /// When.
    pub time: Timestamp,
    /// What, newline included.
    pub text: String,
}

/// A log being read: an iterator whose `next` blocks while it follows.
#[derive(Debug)]
pub struct LogReader {}

impl Iterator for LogReader {
    type Item = Result<LogEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        todo!()
    }
}

impl Engine {
    /// Opens a container's log.
    pub fn logs(&self, container: &str, options: &LogOptions) -> Result<LogReader> {
        let _ = (container, options);
        todo!()
    }
}
