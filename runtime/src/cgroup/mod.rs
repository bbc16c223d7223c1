//! Control groups on v1, hybrid and v2 machines. Made, joined and removed by plain file operations: what costs
//! milliseconds elsewhere is moving *another* process (an RCU grace period, 11-14 ms), so nothing here ever does;
//! the container's init enters by itself, or is forked into the group.

mod devices;
mod freeze;
mod hierarchy;
mod limits;
mod stats;

use crate::RuntimeError;
use crate::systemd::{Present, Scope};
pub(crate) use hierarchy::Folder;
pub(crate) use limits::{io_weight, weight};
use linux::CallError;
use oci_spec::runtime::LinuxResources;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;
pub use stats::CgroupStats;
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long removal waits for processes on their way out.
const REMOVE_PATIENCE: Duration = Duration::from_secs(5);
/// How often a group is begun anew when a neighbour removes the parent meanwhile.
const MAKE_TRIES: u32 = 100;
/// Largest control file read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A container's control group: one folder in every hierarchy in use.
#[derive(Clone, Debug)]
pub struct Cgroup {
    path: String,
    folders: Vec<Folder>,
    /// What it is to systemd, where that made it.
    scope: Option<Scope>,
}

/// The way into a group for a process about to be forked.
#[derive(Debug, Default)]
pub(crate) struct Membership {
    v2: Option<OwnedFd>,
    /// Each v1 folder's `tasks`, open for writing.
    tasks: Vec<OwnedFd>,
}

impl Membership {
    /// The v2 folder to fork into.
    pub(crate) fn v2(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref().map(AsFd::as_fd)
    }

    /// Moves this process, which has one thread, into the v1 groups: `0` to `tasks` needs none of the locks that moving a
    /// process by pid waits for.
    pub(crate) fn enter(&self) -> Result<(), CallError> {
        for tasks in &self.tasks {
            rustix::io::write(tasks, b"0").map_err(|e| CallError::new("write", "a control group's tasks", e))?;
        }
        Ok(())
    }
}

impl Cgroup {
    /// The group of this path (`/ctr/<id>`), whether or not it exists (anywhere): nothing is made.
    /// The empty path is no group at all.
    pub fn open(path: &str) -> Result<Cgroup, RuntimeError> {
        if path.is_empty() {
            return Ok(Cgroup::inherited());
        }
        hierarchy::check_path(path)?;
        Ok(Cgroup { path: path.to_owned(), folders: hierarchy::folders(path)?, scope: None })
    }

    /// No group at all: the caller's own.
    pub(crate) fn inherited() -> Cgroup {
        Cgroup { path: String::new(), folders: Vec::new(), scope: None }
    }

    /// The group of a scope of systemd's, whether or not it exists (any more): what changes it tells systemd of it, too.
    pub fn of_scope(path: &str, scope: &Scope) -> Result<Cgroup, RuntimeError> {
        Ok(Cgroup { scope: Some(scope.clone()), ..Cgroup::open(path)? })
    }

    /// The scope it is.
    pub fn scope(&self) -> Option<&Scope> {
        self.scope.as_ref()
    }

    /// The hierarchy that systemd makes scopes in, as a group's folder at its root.
    pub(crate) fn hierarchy_of_scopes() -> Result<Folder, RuntimeError> {
        let mut folders = hierarchy::folders("/")?;
        folders.pop().filter(|last| last.is_v2()).ok_or_else(|| {
            RuntimeError::Systemd(
                "its scopes are for control groups v2 alone, and v1 is mounted here: leave --systemd-cgroup out, or boot \
                 with systemd.unified_cgroup_hierarchy=1"
                    .to_owned(),
            )
        })
    }

    /// Makes the group in every hierarchy and sets its limits. What this machine has no controller for is a warning.
    pub fn create(
        path: &str,
        resources: Option<&LinuxResources>,
        warnings: &mut Vec<String>,
    ) -> Result<Cgroup, RuntimeError> {
        let mut cgroup = Cgroup::open(path)?;
        if cgroup.folders.is_empty() {
            warnings.push("no control groups are mounted on this machine: nothing is limited".to_owned());
        }
        if !cgroup.is_empty()? {
            return Err(RuntimeError::Spec(format!("control group {path} still has processes in it")));
        }
        let made = cgroup.make_folders().and_then(|()| cgroup.limit(resources, warnings));
        if let Err(error) = made {
            // The first error is the one to tell.
            let _removed = cgroup.remove();
            return Err(error);
        }
        Ok(cgroup)
    }

    /// Sets the first limits.
    pub(crate) fn limit(
        &self,
        resources: Option<&LinuxResources>,
        warnings: &mut Vec<String>,
    ) -> Result<(), RuntimeError> {
        let Some(resources) = resources else { return Ok(()) };
        warnings.extend(limits::apply(self, resources)?);
        if !linux::userns::is_machines_root() {
            // Only root may load the program, and nobody in here may make a device.
            return Ok(());
        }
        devices::limit(self, resources.devices().as_deref().unwrap_or_default(), warnings)
    }

    fn make_folders(&mut self) -> Result<(), RuntimeError> {
        let mut others = Vec::new();
        for folder in &self.folders {
            if !self.make_in(folder)? {
                others.push(folder.clone());
            }
        }
        self.folders.retain(|folder| !others.contains(folder));
        Ok(())
    }

    /// False: in a hierarchy that is not this user's. Only some are handed to ordinary ones.
    fn make_in(&self, folder: &Folder) -> Result<bool, RuntimeError> {
        let mut tries = 0;
        while let Err(error) = self.make_folder(folder) {
            let kind = if let RuntimeError::File { source, .. } = &error { Some(source.kind()) } else { None };
            let refused = matches!(kind, Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem));
            if refused && !linux::userns::is_machines_root() {
                return Ok(false);
            }
            // A neighbour on its way out took the common parent along: again, from the top.
            tries += 1;
            if kind != Some(ErrorKind::NotFound) || tries > MAKE_TRIES {
                return Err(error);
            }
        }
        Ok(true)
    }

    /// The group in one hierarchy, with the groups above it.
    fn make_folder(&self, folder: &Folder) -> Result<(), RuntimeError> {
        let mut here = folder.mount().to_path_buf();
        for name in self.path.split('/').filter(|name| !name.is_empty()) {
            if folder.is_v2() {
                limits::enable_v2_controllers(&here);
            }
            let parent = here.clone();
            here.push(name);
            match fs::create_dir(&here) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(RuntimeError::file("create control group", &here, error)),
            }
            if folder.is_v1_of("cpuset") {
                limits::inherit_cpuset(&parent, &here)?;
            }
        }
        Ok(())
    }

    /// The way in for a process about to be forked.
    pub(crate) fn membership(&self) -> Result<Membership, RuntimeError> {
        let mut membership = Membership::default();
        for folder in &self.folders {
            let (path, flags) = if folder.is_v2() {
                (folder.folder().to_path_buf(), OFlags::PATH | OFlags::DIRECTORY)
            } else {
                (folder.folder().join("tasks"), OFlags::WRONLY)
            };
            let fd = match rustix::fs::open(&path, flags | OFlags::CLOEXEC, Mode::empty()) {
                Ok(fd) => fd,
                // Made by a version that joined fewer hierarchies.
                Err(rustix::io::Errno::NOENT) => continue,
                Err(errno) => return Err(RuntimeError::file("open", path, errno)),
            };
            if folder.is_v2() {
                membership.v2 = Some(fd);
            } else {
                membership.tasks.push(fd);
            }
        }
        Ok(membership)
    }

    /// The v2 group below this one that a process is in. For a container that has split its group up (systemd, docker): what
    /// hands controllers down may hold no process itself.
    pub(crate) fn v2_group_of(&self, pid: Pid) -> Result<Option<OwnedFd>, RuntimeError> {
        let Some(group) = self.folders.iter().find(|folder| folder.is_v2()) else { return Ok(None) };
        let text = read(Path::new(&format!("/proc/{}/cgroup", pid.as_raw_nonzero())))?;
        let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::/")) else { return Ok(None) };
        let folder = group.mount().join(path);
        if path.split('/').any(|name| name == "..") || !folder.starts_with(group.folder()) {
            return Ok(None);
        }
        Ok(Some(linux::resolve::open_root(&folder)?))
    }

    pub(crate) fn folders(&self) -> &[Folder] {
        &self.folders
    }

    /// Its path below each hierarchy's root; empty for the caller's own.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether it is there in any hierarchy.
    pub fn exists(&self) -> bool {
        self.folders.iter().any(|folder| folder.folder().exists())
    }

    fn v2_folder(&self) -> Option<&Path> {
        self.folders.iter().find(|f| f.is_v2()).map(Folder::folder).filter(|path| path.exists())
    }

    fn v1_folder(&self, controller: &str) -> Option<&Path> {
        self.folders.iter().find(|f| f.is_v1_of(controller)).map(Folder::folder).filter(|path| path.exists())
    }

    /// Whether no process is in it (or it does not exist).
    pub fn is_empty(&self) -> Result<bool, RuntimeError> {
        if let Some(folder) = self.v2_folder() {
            return Ok(key_of(&read(&folder.join("cgroup.events"))?, "populated") != Some(1));
        }
        Ok(self.processes()?.is_empty())
    }

    /// The pids in it and below, as this pid namespace sees them.
    pub fn processes(&self) -> Result<Vec<i32>, RuntimeError> {
        let mut pids = Vec::new();
        if let Some(folder) = self.folders.iter().map(Folder::folder).find(|path| path.exists()) {
            walk(folder, &mut |group| {
                let text = read(&group.join("cgroup.procs"))?;
                pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
                Ok(())
            })?;
        }
        Ok(pids)
    }

    /// Changes limits. Returns warnings about those this machine has no controller for.
    pub fn update(&self, resources: &LinuxResources) -> Result<Vec<String>, RuntimeError> {
        if let Some(scope) = &self.scope {
            // Else it would write the old ones again, whenever it reads its units anew.
            scope.set(resources, self.present()?)?;
        }
        limits::apply(self, resources)
    }

    fn present(&self) -> Result<Present, RuntimeError> {
        let text = |file: &str| self.v2_folder().map(|folder| read(&folder.join(file))).transpose();
        let memory = text("memory.max")?.and_then(|text| text.trim().parse().ok());
        let bandwidth = text("cpu.max")?.unwrap_or_default();
        let (quota, period) = bandwidth.trim().split_once(' ').unwrap_or_default();
        Ok(Present { memory, quota: quota.parse().ok(), period: period.parse().ok() })
    }

    /// Removes it everywhere. Waits (bounded) for processes that are on their way out; kills none.
    pub fn remove(&self) -> Result<(), RuntimeError> {
        if let Some(scope) = &self.scope {
            // It may be on its way already, systemd sees the last process go; what counts is that the folder is gone.
            let _stopped = scope.stop();
        }
        let deadline = Instant::now() + REMOVE_PATIENCE;
        for folder in &self.folders {
            remove_tree(folder.folder(), deadline)?;
        }
        Ok(())
    }
}

impl Cgroup {
    /// How many of the groups above it are in no hierarchy yet: those that making it would make.
    pub fn missing_parents(&self) -> usize {
        let depth = self.path.split('/').filter(|name| !name.is_empty()).count();
        let there = |up: usize| self.folders.iter().any(|f| f.folder().ancestors().nth(up).is_some_and(Path::exists));
        (1..depth).take_while(|up| !there(*up)).count()
    }

    /// As [`Cgroup::remove`], then so many groups above it, where they are left empty. Others' groups may hold others' limits:
    /// the caller counts those it made ([`Cgroup::missing_parents`]).
    pub fn remove_with_parents(&self, parents: usize) -> Result<(), RuntimeError> {
        self.remove()?;
        for folder in &self.folders {
            let above = folder.folder().ancestors().skip(1).take_while(|path| *path != folder.mount());
            for parent in above.take(parents) {
                // One that is in use stays.
                if fs::remove_dir(parent).is_err() {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Visits a group and those below it, children first. Groups that vanish meanwhile are no error.
fn walk(group: &Path, visit: &mut dyn FnMut(&Path) -> Result<(), RuntimeError>) -> Result<(), RuntimeError> {
    let entries = match fs::read_dir(group) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(RuntimeError::file("list", group, error)),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), visit)?;
        }
    }
    visit(group)
}

fn remove_tree(group: &Path, deadline: Instant) -> Result<(), RuntimeError> {
    // Nearly always a folder without children.
    match fs::remove_dir(group) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    walk(group, &mut |group| {
        let mut pause = Duration::from_micros(200);
        loop {
            match fs::remove_dir(group) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                // A process that is reaped but not yet gone from its group; no event tells.
                Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(50));
                }
                Err(error) => return Err(RuntimeError::file("remove control group", group, error)),
            }
        }
    })
}

/// A control file's text; empty if it is not there.
fn read(path: &Path) -> Result<String, RuntimeError> {
    let mut text = String::new();
    match fs::File::open(path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text)) {
        Ok(_) => Ok(text),
        // Removed between open and read; or a threaded group, whose processes are listed further up.
        Err(error)
            if error.kind() == ErrorKind::NotFound
                || [Errno::NODEV, Errno::OPNOTSUPP].iter().any(|e| error.raw_os_error() == Some(e.raw_os_error())) =>
        {
            Ok(String::new())
        }
        Err(error) => Err(RuntimeError::file("read", path, error)),
    }
}

fn write(path: &Path, value: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// The number after a key in a flat keyed file (`key number` lines).
fn key_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}
