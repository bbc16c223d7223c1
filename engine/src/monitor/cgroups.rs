//! The control groups monitors themselves live in: not their callers'.

use std::path::{Path, PathBuf};

/// The group of monitors and helpers, below the parent of all of a root's containers.
const MONITORS: &str = "monitors";

/// Moves this process out of its caller's control groups, where there are any; writing `0` from within is cheap, writing
/// a pid from outside is not.
pub(crate) fn leave_caller(parent: &str) {
    if parent.is_empty() {
        return;
    }
    let Ok(memberships) = std::fs::read_to_string("/proc/self/cgroup") else { return };
    let mounts = mounts();
    for line in memberships.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let Some(mount) = hierarchy(&mounts, controllers).filter(|_| path != "/") else { continue };
        let folder = below(&mount, parent).join(MONITORS);
        // A hierarchy that can't be used (a cpuset without CPUs, no rights) is stayed in.
        let _stay = std::fs::create_dir_all(&folder).and_then(|()| enter(&folder));
    }
}

/// Where an ordinary user may make groups: beside his own group, or below it. Only version 2 can be given to him.
pub(crate) fn delegated() -> Option<String> {
    let memberships = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = Path::new(memberships.lines().find_map(|line| line.strip_prefix("0::"))?);
    let mount = hierarchy(&mounts(), "")?;
    let is_ours = |group: &&Path| {
        let folder = below(&mount, &group.to_string_lossy());
        let writable = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
        writable(&folder) && writable(&folder.join("cgroup.procs"))
    };
    // Beside it there are no processes in the parent, so controllers can be handed down.
    let place = own.parent().into_iter().chain([own]).find(is_ours)?;
    Some(place.to_string_lossy().into_owned())
}

/// Controllers that groups in a place can have.
pub(crate) fn controllers(place: &str) -> Vec<String> {
    let file = hierarchy(&mounts(), "").map(|mount| below(&mount, place).join("cgroup.controllers"));
    let text = file.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

/// Removes the parent of all containers of a root whose last one has gone. What is still in use stays.
pub(crate) fn remove_parent(parent: &str) {
    if parent.is_empty() {
        return;
    }
    for line in mounts().lines() {
        let Some((point, kind, _)) = mount_point(line) else { continue };
        if !matches!(kind, "cgroup" | "cgroup2") {
            continue;
        }
        let folder = below(Path::new(point), parent);
        if folder.join(MONITORS).exists() {
            let _stay = enter(Path::new(point));
        }
        // What a killed step or monitor left: a group with a process in it can't be removed.
        let groups = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        for group in groups.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let _in_use = std::fs::remove_dir(group.path());
        }
        let _in_use = std::fs::remove_dir(&folder);
    }
}

/// Control groups below a parent whose names are `prefix` and a pid, with the pid.
pub(crate) fn groups_below(parent: &str, prefix: &str) -> Vec<(String, i32)> {
    if parent.is_empty() {
        return Vec::new();
    }
    let mounts = mounts();
    let mounted = ["memory", "pids", ""].iter().find_map(|controller| hierarchy(&mounts, controller));
    let Some(Ok(entries)) = mounted.map(|mount| std::fs::read_dir(below(&mount, parent))) else { return Vec::new() };
    let group = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let pid = name.strip_prefix(prefix)?.split('-').next()?.parse().ok()?;
        Some((name, pid))
    };
    entries.flatten().filter_map(group).collect()
}

/// Moves this process into a group.
fn enter(folder: &Path) -> std::io::Result<()> {
    let tasks = folder.join("tasks");
    let file = if tasks.exists() { tasks } else { folder.join("cgroup.procs") };
    std::fs::write(file, "0")
}

fn below(mount: &Path, group: &str) -> PathBuf {
    mount.join(group.trim_start_matches('/'))
}

fn mounts() -> String {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()
}

/// Mount point, type and super block options of a line of mountinfo.
fn mount_point(line: &str) -> Option<(&str, &str, &str)> {
    let (left, right) = line.split_once(" - ")?;
    let point = left.split_ascii_whitespace().nth(4)?;
    let mut right = right.split_ascii_whitespace();
    Some((point, right.next()?, right.nth(1)?))
}

/// Where the hierarchy of these controllers (none: v2) is mounted.
fn hierarchy(mounts: &str, controllers: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (point, kind, options) = mount_point(line)?;
        let matches = match kind {
            "cgroup2" => controllers.is_empty(),
            "cgroup" => controllers.split(',').all(|c| !c.is_empty() && options.split(',').any(|o| o == c)),
            _ => false,
        };
        matches.then(|| point.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_by_their_controllers() {
        let mounts = "30 24 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      31 24 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                      32 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let find = |controllers| hierarchy(mounts, controllers).map(|path| path.display().to_string());
        assert_eq!(find("cpu,cpuacct").as_deref(), Some("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(find("name=systemd").as_deref(), Some("/sys/fs/cgroup/systemd"));
        assert_eq!(find("").as_deref(), Some("/sys/fs/cgroup/unified"));
        assert_eq!(find("memory"), None);
    }
}
