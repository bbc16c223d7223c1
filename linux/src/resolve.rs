//! Paths beneath a container's root. The image decides what its names are – links to anywhere, `..`
//! chains – so nothing here joins strings: the kernel resolves as if the root were `/` (openat2,
//! RESOLVE_IN_ROOT), and what comes back is a descriptor.

use crate::CallError;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// How many dangling links [`create_dir`] and [`create_file`] follow, as the kernel's own limit.
const MAX_LINKS: usize = 40;
/// Retries where a rename races the resolution (EAGAIN).
const MAX_RACES: usize = 128;

/// Opens a host folder as a root: O_PATH.
pub fn open_root(path: &Path) -> Result<OwnedFd, CallError> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| CallError::path("open", path, e))
}

/// Opens a path beneath `root`, links resolved beneath it too.
pub fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, CallError> {
    open_with(root, path, flags, ResolveFlags::empty())
}

/// Opens a path beneath `root` none of whose components is a link (ELOOP if one is).
pub fn open_no_links(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, CallError> {
    open_with(root, path, flags, ResolveFlags::NO_SYMLINKS)
}

/// Opens a regular file beneath `root` for reading; EINVAL for anything else. The image or a process of the container may have
/// put a device there, and already the opening of some does things to the machine: the file is looked at first.
pub fn open_regular(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, CallError> {
    let found = open(root, path, OFlags::PATH)?;
    let stat = rustix::fs::fstat(&found).map_err(|e| CallError::path("fstat", path, e))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(CallError::path("open", path, Errno::INVAL));
    }
    let same = format!("/proc/self/fd/{}", found.as_raw_fd());
    rustix::fs::open(same, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| CallError::path("open", path, e))
}

fn open_with(root: BorrowedFd<'_>, path: &Path, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, CallError> {
    let resolve = resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let shown = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let mode = if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(0o644) } else { Mode::empty() };
    for _ in 0..MAX_RACES {
        match rustix::fs::openat2(root, shown, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(CallError::path("openat2", shown, errno)),
            Ok(fd) => return Ok(fd),
        }
    }
    Err(CallError::path("openat2", shown, Errno::AGAIN))
}

/// What a path that is to exist ends in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Dir,
    File,
}

/// Opens (O_PATH) a folder beneath `root`, making what is missing with `mode`.
pub fn create_dir(root: BorrowedFd<'_>, path: &Path, mode: u32) -> Result<OwnedFd, CallError> {
    create(root, path, mode, Last::Dir)
}

/// Opens (O_PATH) whatever is at a path beneath `root`, making an empty file (and its folders) if nothing is.
pub fn create_file(root: BorrowedFd<'_>, path: &Path, mode: u32) -> Result<OwnedFd, CallError> {
    create(root, path, mode, Last::File)
}

fn create(root: BorrowedFd<'_>, path: &Path, mode: u32, last: Last) -> Result<OwnedFd, CallError> {
    let flags = OFlags::PATH | if last == Last::Dir { OFlags::DIRECTORY } else { OFlags::empty() };
    match open(root, path, flags) {
        Err(error) if error.errno == Errno::NOENT => {}
        done => return done,
    }
    let mut path = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        match create_once(root, &path, mode, last)? {
            Created::Done(fd) => return Ok(fd),
            Created::Follow(next) => path = next,
        }
    }
    Err(CallError::path("openat2", &path, Errno::LOOP))
}

enum Created {
    Done(OwnedFd),
    /// A dangling link stood in the way: the path with the link's text in its place.
    Follow(PathBuf),
}

fn create_once(root: BorrowedFd<'_>, path: &Path, mode: u32, last: Last) -> Result<Created, CallError> {
    let names: Vec<Component<'_>> =
        path.components().filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir)).collect();
    let mut done = PathBuf::new();
    let mut here = open(root, Path::new("."), OFlags::PATH | OFlags::DIRECTORY)?;
    for (index, name) in names.iter().enumerate() {
        let is_last = index + 1 == names.len();
        let dir = !is_last || last == Last::Dir;
        done.push(name);
        let flags = OFlags::PATH | if dir { OFlags::DIRECTORY } else { OFlags::empty() };
        here = match open(root, &done, flags) {
            Ok(fd) => fd,
            Err(error) if error.errno == Errno::NOENT && matches!(name, Component::Normal(_)) => {
                let name = Path::new(name);
                match make(here.as_fd(), name, mode, dir) {
                    Ok(()) => open_no_links_in(here.as_fd(), name, flags)?,
                    Err(error) if error.errno == Errno::EXIST => {
                        let link = rustix::fs::readlinkat(&here, name, Vec::new())
                            .map_err(|e| CallError::path("readlinkat", &done, e))?;
                        done.pop();
                        let link = PathBuf::from(std::ffi::OsStr::from_bytes(link.to_bytes()));
                        let mut next = if link.is_absolute() { link } else { done.join(link) };
                        next.extend(&names[index + 1..]);
                        return Ok(Created::Follow(next));
                    }
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        };
    }
    Ok(Created::Done(here))
}

fn make(dir: BorrowedFd<'_>, name: &Path, mode: u32, is_dir: bool) -> Result<(), CallError> {
    let mode = Mode::from_raw_mode(mode);
    if is_dir {
        // Folders on the way need their search bits whatever the file's mode is.
        let mode = mode | Mode::from_raw_mode(0o111 & (mode.bits() >> 2 | 0o100));
        return rustix::fs::mkdirat(dir, name, mode).map_err(|e| CallError::path("mkdirat", name, e));
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    rustix::fs::openat(dir, name, flags, mode).map(drop).map_err(|e| CallError::path("openat", name, e))
}

/// Opens a name just made in an open folder: never through a link, never onto another file system.
fn open_no_links_in(dir: BorrowedFd<'_>, name: &Path, flags: OFlags) -> Result<OwnedFd, CallError> {
    rustix::fs::openat(dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| CallError::path("openat", name, e))
}

/// Opens a host path, links followed, relative to the working directory: for what the user named on the host.
pub fn open_host(path: &Path, flags: OFlags) -> Result<OwnedFd, CallError> {
    rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(|e| CallError::path("open", path, e))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_of_the_image_stay_in_the_root() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        std::fs::create_dir_all(root.join("inside")).unwrap();
        symlink("/", root.join("slash")).unwrap();
        symlink("../../../outside", root.join("up")).unwrap();
        symlink("/run", root.join("var")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let fd = open_root(&root).unwrap();

        create_dir(fd.as_fd(), Path::new("/slash/made"), 0o755).unwrap();
        assert!(root.join("made").is_dir());
        create_dir(fd.as_fd(), Path::new("up/x"), 0o755).unwrap();
        assert!(root.join("outside/x").is_dir() && !outer.path().join("outside").exists());
        create_file(fd.as_fd(), Path::new("var/a/b"), 0o644).unwrap();
        assert!(root.join("run/a/b").is_file());
        create_dir(fd.as_fd(), Path::new("../../escape"), 0o755).unwrap();
        assert!(root.join("escape").is_dir() && !outer.path().join("escape").exists());
        assert!(create_dir(fd.as_fd(), Path::new("loop/x"), 0o755).is_err());
        assert_eq!(open_no_links(fd.as_fd(), Path::new("slash"), OFlags::PATH).unwrap_err().errno, Errno::LOOP);
    }
    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_path_and_no_link_leads_out(
            links in proptest::collection::vec(("[ab]", "(/|\\.\\./|\\./|[abc]/){0,6}[abc.]{0,2}"), 0..4),
            paths in proptest::collection::vec("(/|\\.\\./|\\./|[abc]/){0,6}[abc]", 1..4),
        ) {
            let outer = tempfile::tempdir().unwrap();
            let root = outer.path().join("root");
            std::fs::create_dir(&root).unwrap();
            for (name, target) in &links {
                // An empty target is refused, a name may come twice.
                let _made = symlink(target, root.join(name));
            }
            let fd = open_root(&root).unwrap();
            for path in &paths {
                let made = create_dir(fd.as_fd(), Path::new(path), 0o755);
                let file = create_file(fd.as_fd(), &Path::new(path).join("file"), 0o644);
                // What was made is what the same name leads to afterwards.
                prop_assert!(made.is_err() || open(fd.as_fd(), Path::new(path), OFlags::PATH | OFlags::DIRECTORY).is_ok());
                prop_assert_eq!(made.is_ok(), file.is_ok());
            }
            let outside: Vec<_> = std::fs::read_dir(outer.path()).unwrap().flatten().map(|e| e.file_name()).collect();
            prop_assert_eq!(outside, ["root"]);
        }
    }
}
