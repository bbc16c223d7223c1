//! Overlay mounts, on kernels that take their layers one by one and on those that want them all in one string.

use crate::mount::{self, READ_ONLY, context_error, make};
use crate::process::{Namespaces, join_namespace, unshare};
use crate::{CallError, resolve};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{
    FsOpenFlags, MountFlags, fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsopen, mount as mount_at,
};
use std::ffi::{CString, OsStr};
use std::fmt::Write as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Longest value of an fsconfig option, as the kernel's own limit of 256 with the NUL.
const MAX_OPTION_BYTES: usize = 255;
/// Longest options of mount(2): a page with the NUL.
const MAX_OPTIONS_BYTES: usize = 4095;
/// Where each descriptor has a short name.
const DESCRIPTORS: &str = "/proc/self/fd";
/// Mounted over where only the old mount call will do, in a mount namespace that nobody else ever sees.
const PLACE: &str = "/proc";

/// What an overlay mount asks for beside its folders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OverlayOptions {
    /// Mount read-only even though there is an upper folder.
    pub read_only: bool,
    /// `volatile`: no syncs; for roots that are thrown away.
    pub volatile: bool,
}

/// The folders and options of one mount.
#[derive(Clone, Copy)]
struct Overlay<'a> {
    lowers: &'a [BorrowedFd<'a>],
    upper: Option<(BorrowedFd<'a>, BorrowedFd<'a>)>,
    options: OverlayOptions,
}

/// A detached overlay mount. `lowers` are O_PATH descriptors of folders, **lowest layer first** as the
/// image lists them; `upper` is (upperdir, workdir), None makes a read-only view (of two layers at least: the kernel's rule).
pub fn overlay(
    lowers: &[BorrowedFd<'_>],
    upper: Option<(BorrowedFd<'_>, BorrowedFd<'_>)>,
    options: OverlayOptions,
) -> Result<OwnedFd, CallError> {
    let lowers = without_repeats(lowers)?;
    let wanted = Overlay { lowers: &lowers, upper, options };
    match wanted.one_by_one() {
        Ok(Some(mount)) => return Ok(mount),
        Ok(None) => {}
        Err(error) => return Err(error),
    }
    let names = wanted.lower_names();
    if names.len() <= MAX_OPTION_BYTES { wanted.by_option(&names) } else { wanted.by_old_mount() }
}

/// Some layers' folders, **lowest first**, read-only as one: a root to look up names in. None where there are none; one by itself
/// is what it is.
pub fn view(folders: Vec<OwnedFd>) -> Result<Option<OwnedFd>, CallError> {
    let lowers: Vec<_> = folders.iter().map(AsFd::as_fd).collect();
    if without_repeats(&lowers)?.len() < 2 {
        return Ok(folders.into_iter().next());
    }
    overlay(&lowers, None, OverlayOptions::default()).map(Some)
}

/// The layers, each once, at its highest place: overlay refuses a folder given twice (ELOOP), and an image may hold the same
/// layer twice. What the lower of the two says, the upper says again above all between.
fn without_repeats<'a>(lowers: &[BorrowedFd<'a>]) -> Result<Vec<BorrowedFd<'a>>, CallError> {
    let identity = |fd: &BorrowedFd<'a>| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    let ids = lowers.iter().map(identity).collect::<Result<Vec<_>, _>>();
    let ids = ids.map_err(|e| CallError::new("fstat", "a layer", e))?;
    let again = |index: usize| ids.iter().skip(index + 1).any(|id| *id == ids[index]);
    Ok((0..).zip(lowers).filter(|(index, _)| !again(*index)).map(|(_, fd)| *fd).collect())
}

impl Overlay<'_> {
    /// The layers top first, as overlay wants them.
    fn top_first(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.lowers.iter().rev().copied()
    }

    /// Their names in [`DESCRIPTORS`].
    fn lower_names(&self) -> String {
        let names: Vec<String> = self.top_first().map(|fd| fd.as_raw_fd().to_string()).collect();
        names.join(":")
    }

    fn attributes(&self) -> u64 {
        if self.options.read_only || self.upper.is_none() { READ_ONLY } else { 0 }
    }

    fn flags(&self) -> impl Iterator<Item = &'static str> {
        // In a user namespace overlay's own marks are in `user.overlay.*`.
        [(!crate::userns::is_initial(), "userxattr"), (self.options.volatile, "volatile")]
            .into_iter()
            .filter_map(|(wanted, flag)| wanted.then_some(flag))
    }

    /// Layer by layer: by descriptor (6.13), else by name (6.8). None where the kernel knows neither.
    fn one_by_one(&self) -> Result<Option<OwnedFd>, CallError> {
        let context = open_context()?;
        let mut by_fd = true;
        for (index, lower) in self.top_first().enumerate() {
            if by_fd {
                match fsconfig_set_fd(&context, "lowerdir+", lower) {
                    Ok(()) => continue,
                    // A file system of the old kind takes any name, and says only when it is mounted that it knows none such.
                    Err(Errno::OPNOTSUPP) => return Ok(None),
                    Err(_) => by_fd = false,
                }
            }
            match fsconfig_set_string(&context, "lowerdir+", named(lower)) {
                Ok(()) => {}
                Err(Errno::INVAL) if index == 0 => return Ok(None),
                Err(e) => return Err(context_error(&context, "fsconfig", "overlay option lowerdir+".to_owned(), e)),
            }
        }
        self.finish(&context).map(Some)
    }

    /// All layers in one option; a short one, so by names relative to the working directory.
    fn by_option(&self, names: &str) -> Result<OwnedFd, CallError> {
        among_descriptors(|| {
            let context = open_context()?;
            fsconfig_set_string(&context, "lowerdir", names).map_err(|e| {
                context_error(&context, "fsconfig", format!("overlay with {} layers", self.lowers.len()), e)
            })?;
            // Old kernels look at the names only when they mount.
            self.finish(&context)
        })
    }

    /// The rest of the options, and the mount.
    fn finish(&self, context: &OwnedFd) -> Result<OwnedFd, CallError> {
        let set = |key: &str, done: Result<(), Errno>| {
            done.map_err(|e| context_error(context, "fsconfig", format!("overlay option {key}"), e))
        };
        if let Some((upper, work)) = self.upper {
            for (key, folder) in [("upperdir", upper), ("workdir", work)] {
                if fsconfig_set_fd(context, key, folder).is_err() {
                    set(key, fsconfig_set_string(context, key, named(folder)))?;
                }
            }
        }
        for flag in self.flags() {
            set(flag, fsconfig_set_flag(context, flag))?;
        }
        make(context, "overlay", self.attributes())
    }

    /// More layers than an option holds: mount(2) takes a page of them, but attaches what it makes. So it does that in a
    /// mount namespace made for it, of which nothing stays but the detached copy.
    fn by_old_mount(&self) -> Result<OwnedFd, CallError> {
        let own = resolve::open_host(Path::new("/proc/thread-self/ns/mnt"), OFlags::RDONLY)?;
        among_descriptors(|| {
            unshare(Namespaces::MOUNT)?;
            let made = mount::set_propagation_of_all(mount::PRIVATE).and_then(|()| self.mount_here());
            join_namespace(own.as_fd(), Namespaces::MOUNT)?;
            made
        })
    }

    fn mount_here(&self) -> Result<OwnedFd, CallError> {
        let error = |errno| CallError::new("mount", format!("overlay with {} layers", self.lowers.len()), errno);
        // Only folders of one's own namespace may be layers.
        let lowers = self.lowers.iter().map(|fd| found_again(*fd)).collect::<Result<Vec<_>, _>>()?;
        let lowers: Vec<_> = lowers.iter().map(AsFd::as_fd).collect();
        let upper = self.upper.map(|(upper, work)| Ok((found_again(upper)?, found_again(work)?))).transpose()?;
        let mut options = format!("lowerdir={}", Overlay { lowers: &lowers, ..*self }.lower_names());
        if let Some((upper, work)) = &upper {
            // A String takes whatever is written.
            let _written = write!(options, ",upperdir={},workdir={}", named(upper.as_fd()), named(work.as_fd()));
        }
        for flag in self.flags() {
            options.push(',');
            options.push_str(flag);
        }
        if options.len() > MAX_OPTIONS_BYTES {
            return Err(error(Errno::TOOBIG));
        }
        let options = CString::new(options).map_err(|_| error(Errno::INVAL))?;
        let flags = if self.attributes() & READ_ONLY != 0 { MountFlags::RDONLY } else { MountFlags::empty() };
        mount_at("overlay", PLACE, "overlay", flags, options.as_c_str()).map_err(error)?;
        mount::clone_tree(Path::new(PLACE), false)
    }
}

/// The same folder, found by its name in the mount namespace of now.
fn found_again(folder: BorrowedFd<'_>) -> Result<OwnedFd, CallError> {
    let path =
        rustix::fs::readlink(named(folder), Vec::new()).map_err(|e| CallError::path("readlink", named(folder), e))?;
    let path = Path::new(OsStr::from_bytes(path.to_bytes()));
    let found = resolve::open_root(path)?;
    let identity = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    match (identity(folder), identity(found.as_fd())) {
        (Ok(wanted), Ok(have)) if wanted == have => Ok(found),
        _ => Err(CallError::path("open", path, Errno::STALE)),
    }
}

fn open_context() -> Result<OwnedFd, CallError> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| CallError::new("fsopen", "overlay", e))?;
    let _shown = fsconfig_set_string(&context, "source", "overlay");
    Ok(context)
}

fn named(folder: BorrowedFd<'_>) -> String {
    format!("{DESCRIPTORS}/{}", folder.as_raw_fd())
}

/// Does something with this process's descriptors as the working directory, of this thread alone.
fn among_descriptors<T>(work: impl FnOnce() -> Result<T, CallError>) -> Result<T, CallError> {
    crate::process::own_working_directory()?;
    let here = resolve::open_host(Path::new("."), OFlags::PATH | OFlags::DIRECTORY)?;
    rustix::process::chdir(DESCRIPTORS).map_err(|e| CallError::path("chdir", DESCRIPTORS, e))?;
    let done = work();
    rustix::process::fchdir(&here).map_err(|e| CallError::path("fchdir", ".", e))?;
    done
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, openat};
    use std::path::PathBuf;

    fn read(root: &OwnedFd, name: &str) -> std::io::Result<String> {
        let fd = openat(root, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        std::io::read_to_string(std::fs::File::from(fd))
    }

    /// Layers 0.. that each have a file `file` with their number, and a file of that name.
    fn layers(dir: &Path, count: usize) -> Vec<OwnedFd> {
        let make = |number: usize| {
            let layer = dir.join(number.to_string());
            std::fs::create_dir(&layer).unwrap();
            std::fs::write(layer.join("file"), number.to_string()).unwrap();
            std::fs::write(layer.join(number.to_string()), "").unwrap();
            resolve::open_root(&layer).unwrap()
        };
        (0..count).map(make).collect()
    }

    fn open_new(dir: &Path, name: &str) -> (PathBuf, OwnedFd) {
        let path = dir.join(name);
        std::fs::create_dir(&path).unwrap();
        let fd = resolve::open_root(&path).unwrap();
        (path, fd)
    }

    const CREATE: OFlags = OFlags::CREATE.union(OFlags::WRONLY);

    #[test]
    fn the_later_layer_wins_and_writes_go_to_the_upper() {
        let dir = tempfile::tempdir().unwrap();
        let layers = layers(dir.path(), 2);
        let layers: Vec<_> = layers.iter().map(AsFd::as_fd).collect();
        let ((upper_path, upper), (_, work)) = (open_new(dir.path(), "upper"), open_new(dir.path(), "work"));

        let view = overlay(&layers, None, OverlayOptions::default()).unwrap();
        assert_eq!(read(&view, "file").unwrap(), "1");
        let repeated = overlay(&[layers[1], layers[0], layers[1]], None, OverlayOptions::default()).unwrap();
        assert_eq!(read(&repeated, "file").unwrap(), "1");
        assert_eq!(openat(&view, "new", CREATE, Mode::from_raw_mode(0o644)).unwrap_err(), Errno::ROFS);

        let root = overlay(&layers, Some((upper.as_fd(), work.as_fd())), OverlayOptions::default()).unwrap();
        openat(&root, "new", CREATE, Mode::from_raw_mode(0o644)).unwrap();
        assert!(upper_path.join("new").exists());
    }

    /// The roads of kernels before 6.8, which every later one still has.
    #[test]
    fn the_old_roads_lead_to_the_same_place() {
        let dir = tempfile::tempdir().unwrap();
        let layers = layers(dir.path(), 100);
        let layers: Vec<_> = layers.iter().map(AsFd::as_fd).collect();
        let cwd = std::env::current_dir().unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        for (number, count) in [(0, 2), (1, 100)] {
            let (upper_path, upper) = open_new(dir.path(), &format!("upper{number}"));
            let (_, work) = open_new(dir.path(), &format!("work{number}"));
            let upper = Some((upper.as_fd(), work.as_fd()));
            let wanted = Overlay { lowers: &layers[..count], upper, options: OverlayOptions::default() };
            let names = wanted.lower_names();
            let root = if count == 2 { wanted.by_option(&names) } else { wanted.by_old_mount() }.unwrap();
            assert_eq!(read(&root, "file").unwrap(), (count - 1).to_string());
            assert!(read(&root, "0").is_ok());
            openat(&root, "new", CREATE, Mode::from_raw_mode(0o644)).unwrap();
            assert!(upper_path.join("new").exists());

            let view = Overlay { upper: None, ..wanted };
            let view = if count == 2 { view.by_option(&names) } else { view.by_old_mount() }.unwrap();
            assert_eq!(openat(&view, "new", CREATE, Mode::from_raw_mode(0o644)).unwrap_err(), Errno::ROFS);
        }
        assert_eq!(std::env::current_dir().unwrap(), cwd);
        assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
        assert_eq!(read(&overlay(&layers, None, OverlayOptions::default()).unwrap(), "file").unwrap(), "99");
    }
}
