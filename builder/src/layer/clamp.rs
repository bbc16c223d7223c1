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
    // One descriptor a level, however many folders are side by side.
    let names = |folder: &OwnedFd| sorted_names(folder.as_fd()).map_err(|e| StepError::io("read", upper, e));
    let mut levels = vec![(names(&root)?, root)];
    while let Some((left, folder)) = levels.last_mut() {
        let Some(name) = left.pop() else {
            levels.pop();
            continue;
        };
        let name = Path::new(&name);
        let stat = stat_in(folder.as_fd(), name).map_err(|e| StepError::io("stat", name, e))?;
        if stat.st_mtime >= latest_s {
            rustix::fs::utimensat(&*folder, name, &times, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| StepError::io("set the time of", name, e))?;
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let inner = rustix::fs::openat(&*folder, name, flags, Mode::empty());
            let inner = inner.map_err(|e| StepError::io("open", name, e))?;
            levels.push((names(&inner)?, inner));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::MetadataExt;

    /// Seen to fail (too many open files) with a descriptor for each folder that is still to be looked into.
    #[test]
    fn many_folders_side_by_side_are_one_level() {
        let upper = tempfile::tempdir().unwrap();
        for n in 0..300 {
            std::fs::create_dir_all(upper.path().join(format!("{n}/inner"))).unwrap();
        }
        std::os::unix::fs::symlink("/nowhere", upper.path().join("link")).unwrap();
        let limit = rustix::process::Rlimit {
            current: Some(200),
            ..rustix::process::getrlimit(rustix::process::Resource::Nofile)
        };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
        clamp_times(upper.path(), 1000).unwrap();
        for path in ["0", "299/inner", "link"] {
            assert_eq!(upper.path().join(path).symlink_metadata().unwrap().mtime(), 1000, "{path}");
        }
    }
}
