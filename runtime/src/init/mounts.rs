//! The spec's mounts, in its order. Every source is a detached mount, every target a descriptor found beneath the root.

use super::Setup;
use super::copy_up;
use crate::channel::Failure;
use crate::mount_options::MountOptions;
use crate::plan::{PlannedMount, bind_of};
use linux::mount::{self, Attributes, FsOption};
use linux::{CallError, procfs, resolve};
use oci_spec::runtime::Mount;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Modes of targets that are made because they are missing.
const DIR_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;

pub(super) fn mount_all(setup: &mut Setup<'_>) -> Result<(), Failure> {
    for mount in &setup.plan.mounts {
        mount_one(setup, mount).map_err(|failure| Failure {
            message: format!("mount {}: {}", name(&mount.wanted), failure.message),
            ..failure
        })?;
    }
    Ok(())
}

fn name(wanted: &Mount) -> String {
    let target = wanted.destination().display();
    match (wanted.typ().as_deref(), wanted.source()) {
        (None | Some("bind" | "none"), Some(source)) => format!("{} on {target}", source.display()),
        (kind, _) => format!("{} on {target}", kind.unwrap_or("bind")),
    }
}

fn mount_one(setup: &mut Setup<'_>, mount: &PlannedMount) -> Result<(), Failure> {
    let PlannedMount { wanted, options, source } = mount;
    let destination = wanted.destination();
    if let Some(source) = source {
        return attach_bind(setup, source, destination, options);
    }
    if let Some(source) = setup.plan.mount_sources.iter().find(|s| s.destination == *destination) {
        return attach_bind(setup, &source.mount, destination, options);
    }
    if let Some(recursive) = bind_of(wanted, options) {
        let source = wanted.source().as_deref().ok_or_else(|| Failure::set_up("a bind mount without a source"))?;
        let tree = mount::clone_tree(source, recursive).map_err(|e| missing_source(source, &e))?;
        return attach_bind(setup, &tree, destination, options);
    }
    match wanted.typ().as_deref().unwrap_or_default() {
        "proc" => attach_proc(setup, destination, options),
        "cgroup" | "cgroup2" => attach_cgroups(setup, destination, options),
        kind => attach_filesystem(setup, wanted, kind, options),
    }
}

fn missing_source(source: &Path, error: &CallError) -> Failure {
    match error.errno {
        Errno::NOENT => Failure::set_up(format!("bind source path does not exist: {}", source.display())),
        _ => Failure::from(error.clone()),
    }
}

fn attach_bind(setup: &Setup<'_>, tree: &OwnedFd, destination: &Path, options: &MountOptions) -> Result<(), Failure> {
    let is_folder = |fd: BorrowedFd<'_>| {
        let stat = rustix::fs::fstat(fd).map_err(|e| CallError::path("fstat", destination, e))?;
        Ok::<_, CallError>(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    };
    let (root, folder) = (setup.root.as_fd(), is_folder(tree.as_fd())?);
    let target = if folder {
        resolve::create_dir(root, destination, DIR_MODE)
    } else {
        resolve::create_file(root, destination, FILE_MODE)
    };
    let target = match target {
        Err(error) if error.errno == Errno::NOTDIR => return Err(mismatch()),
        target => target?,
    };
    if is_folder(target.as_fd())? != folder {
        return Err(mismatch());
    }
    outside_proc(target.as_fd(), destination, Some(tree.as_fd()))?;
    finish(Tree::Nested(tree.as_fd()), target.as_fd(), options)
}

/// In words that docker knows.
fn mismatch() -> Failure {
    Failure::set_up("not a directory: a file can't be mounted on a folder, nor a folder on a file")
}

/// What tools that show a container its own numbers put over files of /proc.
const OVER_PROC: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/net/dev",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
];

/// Nothing is mounted into a container's procfs – an image's VOLUME there would take its protections away – but over the few
/// files that are there to be replaced; and over the whole, only another procfs.
fn outside_proc(target: BorrowedFd<'_>, destination: &Path, source: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
    if !procfs::is_proc(target)? || OVER_PROC.iter().any(|known| destination == Path::new(known)) {
        return Ok(());
    }
    let replaced = procfs::is_root(target)? && source.map(procfs::is_proc).transpose()? == Some(true);
    if replaced {
        return Ok(());
    }
    Err(Failure::set_up(format!("{} cannot be mounted because it is inside /proc", destination.display())))
}

/// A detached mount, alone or with others below it.
#[derive(Clone, Copy)]
enum Tree<'a> {
    Single(BorrowedFd<'a>),
    Nested(BorrowedFd<'a>),
}

/// Sets what is to hold for a detached mount, then shows it. Never the other way round: a read-only mount is at no
/// moment a writable one.
fn finish(tree: Tree<'_>, target: BorrowedFd<'_>, options: &MountOptions) -> Result<(), Failure> {
    let (propagation, recursive) = options.propagation.unwrap_or((mount::PRIVATE, true));
    let mount = match tree {
        // In one call: each takes a lock that all namespaces of the machine share.
        Tree::Single(mount) => {
            mount::set_attributes(mount, Attributes { propagation, ..options.attributes }, false)?;
            mount
        }
        Tree::Nested(mount) => {
            if !options.attributes.is_empty() {
                mount::set_attributes(mount, options.attributes, false)?;
            }
            mount::set_attributes(mount, Attributes::propagation(propagation), recursive)?;
            mount
        }
    };
    if !options.recursive.is_empty() {
        mount::set_attributes(mount, options.recursive, true)?;
    }
    Ok(mount::attach(mount, target)?)
}

/// /proc and /sys must be folders of the image itself: a link there would redirect what programs – and we – write to.
fn real_dir(setup: &Setup<'_>, destination: &Path) -> Result<OwnedFd, Failure> {
    let root = setup.root.as_fd();
    match resolve::open_no_links(root, destination, OFlags::PATH | OFlags::DIRECTORY) {
        Err(error) if error.errno == Errno::NOENT => {
            resolve::create_dir(root, destination, DIR_MODE)?;
            Ok(resolve::open_no_links(root, destination, OFlags::PATH | OFlags::DIRECTORY)?)
        }
        Err(error) if matches!(error.errno, Errno::LOOP | Errno::NOTDIR) => Err(Failure::set_up(format!(
            "{} is not a directory of the image but a link or file",
            destination.display()
        ))),
        done => Ok(done?),
    }
}

/// The first writable one is also what this process itself writes through, by the descriptor it was made as.
fn attach_proc(setup: &mut Setup<'_>, destination: &Path, options: &MountOptions) -> Result<(), Failure> {
    let target = real_dir(setup, destination)?;
    let fresh = match mount::new_filesystem("proc", Some("proc"), &data(options), options.attributes.set) {
        // Of a pid namespace that is another user namespace's there is only the host's own.
        Err(error) if error.errno == Errno::PERM && setup.plan.in_user_namespace => {
            let host = mount::clone_tree(Path::new("/proc"), true)?;
            return finish(Tree::Nested(host.as_fd()), target.as_fd(), options);
        }
        fresh => fresh?,
    };
    let rest = MountOptions { attributes: Attributes::default(), ..options.clone() };
    finish(Tree::Single(fresh.as_fd()), target.as_fd(), &rest)?;
    if options.data.is_empty() && options.attributes.set & mount::READ_ONLY == 0 {
        setup.proc = Some(fresh);
    }
    Ok(())
}

fn data(options: &MountOptions) -> Vec<FsOption<'_>> {
    options.data.iter().map(|(key, value)| FsOption { key, value: value.as_deref() }).collect()
}

fn attach_filesystem(setup: &Setup<'_>, wanted: &Mount, kind: &str, options: &MountOptions) -> Result<(), Failure> {
    let destination = wanted.destination();
    let mut data = data(options);
    let decide_mode = kind == "tmpfs" && !data.iter().any(|option| option.key == "mode");
    let is_new = decide_mode && resolve::open(setup.root.as_fd(), destination, OFlags::PATH).is_err();
    let target = match kind {
        "sysfs" => real_dir(setup, destination)?,
        _ => resolve::create_dir(setup.root.as_fd(), destination, DIR_MODE)?,
    };
    outside_proc(target.as_fd(), destination, None)?;
    let mode;
    if decide_mode {
        // A tmpfs over a folder keeps its mode, so that /tmp stays 1777 and /run 755; over none it is everybody's.
        let stat = rustix::fs::fstat(&target).map_err(|e| CallError::path("fstat", destination, e))?;
        mode = if is_new { "1777".to_owned() } else { format!("{:o}", stat.st_mode & 0o7777) };
        data.push(FsOption { key: "mode", value: Some(&mode) });
    }
    if kind == "devpts" {
        data.retain(|option| option.key != "gid" || has_group(option.value));
    }
    let source = wanted.source().as_deref().and_then(Path::to_str);
    match mount::new_filesystem(kind, source.or(Some(kind)), &data, options.attributes.set & !mount::READ_ONLY) {
        // A view of the network's settings: not to be had for a network that is another user namespace's.
        Err(error) if kind == "sysfs" && error.errno == Errno::PERM && setup.plan.in_user_namespace => {
            let host = mount::clone_tree(Path::new("/sys"), true)?;
            let options = MountOptions { recursive: options.attributes, ..options.clone() };
            finish(Tree::Nested(host.as_fd()), target.as_fd(), &options)
        }
        fresh => {
            let fresh = fresh?;
            if options.copy_up {
                copy_up::copy(target.as_fd(), fresh.as_fd())?;
            }
            finish(Tree::Single(fresh.as_fd()), target.as_fd(), options)
        }
    }
}

/// Whether this user namespace has a group: a terminal can't belong to one that it lacks.
fn has_group(group: Option<&str>) -> bool {
    let Some(group) = group.and_then(|group| group.parse::<u32>().ok()) else { return true };
    let map = linux::userns::group_map();
    map.is_empty() || map.iter().any(|range| group.checked_sub(range.inside).is_some_and(|at| at < range.count))
}

/// The container's own control group, by a bind of its folder in each hierarchy it is in. Hierarchies it is not in are not shown.
fn attach_cgroups(setup: &Setup<'_>, destination: &Path, options: &MountOptions) -> Result<(), Failure> {
    let target = real_dir(setup, destination)?;
    let folders = setup.plan.cgroup_folders.as_slice();
    let mut options = MountOptions { data: Vec::new(), ..options.clone() };
    if setup.plan.in_user_namespace && !setup.plan.own_cgroup_namespace {
        // Its own groups might be its to write; those above them, too, where nothing hides them.
        options.attributes.set |= mount::READ_ONLY;
        options.attributes.clear &= !mount::READ_ONLY;
    }
    if let [only] = folders
        && only.is_v2()
    {
        // Without a namespace the container sees its group's name from the top, and looks for its folder there.
        let own_view = setup.plan.new_cgroup_namespace
            || setup.plan.joined.iter().any(|(kind, ..)| *kind == linux::process::Namespaces::CGROUP);
        let tree = mount::clone_tree(if own_view { only.folder() } else { only.mount() }, false)?;
        return finish(Tree::Single(tree.as_fd()), target.as_fd(), &options);
    }
    let tmpfs = mount::new_filesystem("tmpfs", Some("tmpfs"), &[FsOption { key: "mode", value: Some("755") }], 0)?;
    let at = |call, name: &str, errno| Failure::from(CallError::new(call, name, errno));
    mount::attach(tmpfs.as_fd(), target.as_fd())?;
    for folder in folders {
        let name = folder.mount_name();
        rustix::fs::mkdirat(&tmpfs, name, rustix::fs::Mode::from_raw_mode(DIR_MODE))
            .map_err(|e| at("mkdirat", name, e))?;
        for link in folder.link_names() {
            rustix::fs::symlinkat(name, &tmpfs, link).map_err(|e| at("symlinkat", link, e))?;
        }
        let inside = resolve::open_no_links(tmpfs.as_fd(), Path::new(name), OFlags::PATH | OFlags::DIRECTORY)?;
        let tree = mount::clone_tree(folder.folder(), false)?;
        finish(Tree::Single(tree.as_fd()), inside.as_fd(), &options)?;
    }
    Ok(mount::set_attributes(tmpfs.as_fd(), Attributes { propagation: mount::PRIVATE, ..options.attributes }, false)?)
}
