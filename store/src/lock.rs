//! Locks are flocks of files: whoever dies, however, leaves none behind.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

/// A held lock; let go by dropping it, or by dying.
#[derive(Debug)]
pub struct Lock {
    pub(crate) _file: File,
}

impl AsFd for Lock {
    /// To be handed to a child, which then holds the lock too.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self._file.as_fd()
    }
}
