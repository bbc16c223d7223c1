//! SOURCE_DATE_EPOCH for layers that a process wrote: no time is later than it.

use crate::step_error::{StepError, StepResult};
use crate::tree::{sorted_names, stat_in};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Sets every modification time in `upper` that is later than `latest_s` to it.
pub(crate) fn clamp_times(upper: &Path, latest_s: i64) -> StepResult<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::open(upper, flags, Mode::empty()).map_err(|e| StepError::io("open", upper, e))?;
    let time = Timespec { tv_sec: latest_s, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    // Folders are open only while their names are read, so depth costs no descriptors but one a level in this list.
    let mut pending: Vec<OwnedFd> = vec![root];
    while let Some(folder) = pending.pop() {
        for name in sorted_names(folder.as_fd()).map_err(|e| StepError::io("read", upper, e))? {
            let name = Path::new(&name);
            let stat = stat_in(folder.as_fd(), name).map_err(|e| StepError::io("stat", name, e))?;
            if stat.st_mtime >= latest_s {
                rustix::fs::utimensat(&folder, name, &times, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|e| StepError::io("set the time of", name, e))?;
            }
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let inner = rustix::fs::openat(&folder, name, flags, Mode::empty());
                pending.push(inner.map_err(|e| StepError::io("open", name, e))?);
            }
        }
    }
    Ok(())
}
