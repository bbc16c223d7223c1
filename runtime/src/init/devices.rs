//! /dev: the devices every container has, those the spec adds, the usual links, and the console.

use super::Setup;
use crate::Stdio;
use crate::channel::Failure;
use linux::{CallError, mount, pty, resolve};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Name, major, minor of the character devices of every container.
const DEFAULT: &[(&str, u32, u32)] = &[
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];

struct Device {
    path: PathBuf,
    kind: FileType,
    number: u64,
    mode: u32,
    uid: u32,
    gid: u32,
}

pub(super) fn make_all(setup: &mut Setup<'_>) -> Result<(), Failure> {
    let defaults = DEFAULT.iter().map(|(path, major, minor)| Device {
        path: PathBuf::from(path),
        kind: FileType::CharacterDevice,
        number: rustix::fs::makedev(*major, *minor),
        mode: 0o666,
        uid: 0,
        gid: 0,
    });
    let own = !setup.plan.dev_is_bound;
    for device in defaults.filter(|_| own) {
        make(setup, &device)?;
    }
    for device in setup.plan.devices {
        make(setup, &from_spec(device)?)?;
    }
    if own {
        make_links(setup)?;
    }
    open_console(setup)
}

fn from_spec(device: &LinuxDevice) -> Result<Device, Failure> {
    let number = |number: i64| {
        u32::try_from(number).map_err(|_| Failure::set_up(format!("device {}: bad number", device.path().display())))
    };
    let kind = match device.typ() {
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::P => FileType::Fifo,
        LinuxDeviceType::A | LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
    };
    Ok(Device {
        path: device.path().clone(),
        kind,
        number: rustix::fs::makedev(number(device.major())?, number(device.minor())?),
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}

/// Splits a path beneath the root into its folder (made if missing) and last name.
fn parent<'a>(setup: &Setup<'_>, path: &'a Path) -> Result<(OwnedFd, &'a Path), Failure> {
    let name = path.file_name().ok_or_else(|| Failure::set_up(format!("device {}: no name", path.display())))?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    Ok((resolve::create_dir(setup.root.as_fd(), folder, 0o755)?, Path::new(name)))
}

fn make(setup: &Setup<'_>, device: &Device) -> Result<(), Failure> {
    let (folder, name) = parent(setup, &device.path)?;
    if setup.plan.in_user_namespace {
        // There nobody may make devices: the host's own is bound over a file.
        let node = mount::clone_tree(&device.path, false)?;
        let stat = rustix::fs::fstat(&node).map_err(|e| CallError::path("fstat", &device.path, e))?;
        is_that(&stat, device)?;
        let target = make_file(folder.as_fd(), name)?;
        return Ok(mount::attach(node.as_fd(), target.as_fd())?);
    }
    match rustix::fs::mknodat(&folder, name, device.kind, Mode::from_raw_mode(device.mode), device.number) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let stat = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| CallError::path("fstatat", &device.path, e))?;
            return is_that(&stat, device);
        }
        Err(errno) => return Err(CallError::path("mknodat", &device.path, errno).into()),
    }
    if (device.uid, device.gid) != (0, 0) {
        let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
        rustix::fs::chownat(&folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| CallError::path("fchownat", &device.path, e))?;
    }
    Ok(())
}

/// What stands where a device is to be must be that device.
fn is_that(stat: &Stat, device: &Device) -> Result<(), Failure> {
    if FileType::from_raw_mode(stat.st_mode) == device.kind
        && (device.kind == FileType::Fifo || stat.st_rdev == device.number)
    {
        return Ok(());
    }
    Err(Failure::set_up(format!("{} is in the way of the device of that name", device.path.display())))
}

fn make_file(folder: BorrowedFd<'_>, name: &Path) -> Result<OwnedFd, Failure> {
    resolve::create_file(folder, name, 0o644).map_err(Failure::from)
}

fn make_links(setup: &Setup<'_>) -> Result<(), Failure> {
    let dev = resolve::create_dir(setup.root.as_fd(), Path::new("/dev"), 0o755)?;
    let proc = |target: &str| resolve::open(setup.root.as_fd(), Path::new(target), OFlags::PATH).is_ok();
    // Not every kernel has it.
    let links = LINKS.iter().filter(|(target, name)| *name != "core" || proc(target));
    for (target, name) in links {
        match rustix::fs::symlinkat(*target, &dev, *name) {
            // An image's own /dev, where the spec mounts none, may have them.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(CallError::new("symlinkat", format!("/dev/{name}"), errno).into()),
        }
    }
    Ok(())
}

fn open_console(setup: &mut Setup<'_>) -> Result<(), Failure> {
    let Stdio::Terminal { size } = setup.plan.stdio else { return Ok(()) };
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let devpts = resolve::open_no_links(setup.root.as_fd(), Path::new("/dev/pts"), flags)?;
    let terminal = pty::open(devpts.as_fd())?;
    if let Some((rows, columns)) = size {
        pty::set_size(terminal.slave.as_fd(), rows, columns)?;
    }
    let uid = Uid::from_raw(setup.plan.process.uid);
    rustix::fs::fchown(&terminal.slave, Some(uid), None).map_err(|e| CallError::new("fchown", "the terminal", e))?;
    let dev = resolve::open(setup.root.as_fd(), Path::new("/dev"), flags)?;
    let console = make_file(dev.as_fd(), Path::new("console"))?;
    let bound = mount::clone_fd(terminal.slave.as_fd(), false)?;
    mount::attach(bound.as_fd(), console.as_fd())?;
    setup.terminal = Some(terminal);
    Ok(())
}
