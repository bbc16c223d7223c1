//! Locks are flocks of files: whoever dies, however, leaves none behind.
//!
//! A lock file that is removed by its last holder would let two processes lock two files of one name, so after
//! locking it is checked that the name still leads to the file locked.

use crate::{Result, StoreError};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// A held lock; let go by dropping it, or by dying.
#[derive(Debug)]
pub struct Lock {
    pub(crate) file: File,
}

impl AsFd for Lock {
    /// To be handed to a child, which then holds the lock too.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// How to take a lock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Until it is free.
    Block,
    /// Not at all.
    Try,
    /// Until nobody has it alone; others may have it too.
    Shared,
}

impl Lock {
    /// Locks the file at `path`, made where there is none. `None` if another holds it and `wait` is `Try`.
    pub(crate) fn take(path: &Path, wait: Wait) -> Result<Option<Lock>> {
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)
                .map_err(StoreError::io("open lock", path))?;
            if !lock_file(&file, path, wait)? {
                return Ok(None);
            }
            if is_still_at(&file, path)? {
                return Ok(Some(Lock { file }));
            }
        }
    }

    /// Locks a folder itself. `None` if another holds it and `wait` is `Try`; an error if there is none.
    pub(crate) fn take_dir(path: &Path, wait: Wait) -> Result<Option<Lock>> {
        let file = File::open(path).map_err(StoreError::io("open", path))?;
        Ok(lock_file(&file, path, wait)?.then_some(Lock { file }))
    }

    /// Removes the lock file, for those that are named by what they lock; the holder calls it.
    pub(crate) fn remove_file(self, path: &Path) {
        // Left behind it is swept up later.
        let _ = fs::remove_file(path);
    }
}

fn lock_file(file: &File, path: &Path, wait: Wait) -> Result<bool> {
    let locked = match wait {
        Wait::Block => file.lock(),
        Wait::Shared => file.lock_shared(),
        Wait::Try => match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(e)) => Err(e),
            Ok(()) => Ok(()),
        },
    };
    locked.map(|()| true).map_err(StoreError::io("lock", path))
}

fn is_still_at(file: &File, path: &Path) -> Result<bool> {
    let ours = file.metadata().map_err(StoreError::io("inspect", path))?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(StoreError::io("inspect", path)(e)),
    }
}
