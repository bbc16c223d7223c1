//! The control group hierarchies of this machine and the folders of one group in them.

use crate::RuntimeError;
use std::path::{Path, PathBuf};

/// The v1 hierarchies a container joins: what limits it, and systemd's own, which says whose a process is and which a systemd
/// inside needs. The others (freezer where there is a v2 hierarchy to freeze by, net_cls …) would cost a folder each and do nothing.
const V1_CONTROLLERS: &[&str] = &["cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "hugetlb", "name=systemd"];
/// What v2 does itself, by eBPF and cgroup.freeze.
const V1_WITHOUT_V2: &[&str] = &["devices", "freezer"];

/// A mounted hierarchy, and where a group stands in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Folder {
    /// v1: the controllers it was mounted with. None: v2.
    controllers: Option<Vec<String>>,
    mount: PathBuf,
    folder: PathBuf,
}

impl Folder {
    pub(crate) fn is_v2(&self) -> bool {
        self.controllers.is_none()
    }

    /// Whether it is the v1 hierarchy of this controller.
    pub(crate) fn is_v1_of(&self, controller: &str) -> bool {
        self.controllers.as_ref().is_some_and(|names| names.iter().any(|name| name == controller))
    }

    pub(crate) fn mount(&self) -> &Path {
        &self.mount
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where another group stands in the same hierarchy.
    pub(crate) fn of_group(&self, path: &str) -> Folder {
        Folder { folder: self.mount.join(path.trim_start_matches('/')), ..self.clone() }
    }

    /// The name of its mount below /sys/fs/cgroup.
    pub(crate) fn mount_name(&self) -> &str {
        self.mount.file_name().and_then(|name| name.to_str()).unwrap_or("unified")
    }

    /// Other names it goes by: each controller of `cpu,cpuacct`.
    pub(crate) fn link_names(&self) -> impl Iterator<Item = &str> {
        let names = self.controllers.iter().flatten().map(String::as_str);
        names.filter(|name| *name != self.mount_name() && !name.contains('='))
    }
}

/// The folders of the group at `path` in all hierarchies a container joins, v2 first.
pub(crate) fn folders(path: &str) -> Result<Vec<Folder>, RuntimeError> {
    let mountinfo = Path::new("/proc/self/mountinfo");
    let text = std::fs::read(mountinfo).map_err(|e| RuntimeError::file("read", mountinfo, e))?;
    Ok(parse(&String::from_utf8_lossy(&text), path))
}

fn parse(mountinfo: &str, path: &str) -> Vec<Folder> {
    let mut found: Vec<Folder> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(kind) = right.split(' ').next().filter(|kind| matches!(*kind, "cgroup" | "cgroup2")) else { continue };
        let Some(mount) = left.split(' ').nth(4) else { continue };
        let options = right.split(' ').nth(2).unwrap_or_default();
        let controllers = (kind == "cgroup").then(|| {
            let known = |name: &&str| V1_CONTROLLERS.contains(name) || V1_WITHOUT_V2.contains(name);
            options.split(',').filter(known).map(str::to_owned).collect::<Vec<_>>()
        });
        let mount = PathBuf::from(mount.replace("\\040", " "));
        // The same hierarchy may be mounted twice; the first is the host's usual place.
        if controllers.as_ref().is_some_and(Vec::is_empty) || found.iter().any(|f| f.controllers == controllers) {
            continue;
        }
        let folder = mount.join(path.trim_start_matches('/'));
        found.push(Folder { controllers, mount, folder });
    }
    if found.iter().any(Folder::is_v2) {
        found.retain(|f| f.is_v2() || V1_CONTROLLERS.iter().any(|name| f.is_v1_of(name)));
    }
    found.sort_by_key(|f| !f.is_v2());
    found
}

/// A group's path: absolute, plain names only.
pub(crate) fn check_path(path: &str) -> Result<(), RuntimeError> {
    let plain = |name: &str| !name.is_empty() && name != "." && name != ".." && !name.contains(['\0', '\n']);
    match path.strip_prefix('/') {
        Some(rest) if rest.split('/').all(plain) && path.len() < 2048 => Ok(()),
        _ => Err(RuntimeError::Spec(format!("control group path {path:?} must be absolute, of plain names"))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
38 31 0:35 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn each_kind_of_machine_gives_its_folders() {
        let hybrid = parse(HYBRID, "/ctr/x");
        let folders: Vec<_> = hybrid.iter().map(|f| f.folder().to_str().unwrap()).collect();
        assert_eq!(
            folders,
            ["/sys/fs/cgroup/unified/ctr/x", "/sys/fs/cgroup/cpu,cpuacct/ctr/x", "/sys/fs/cgroup/systemd/ctr/x"]
        );
        assert_eq!(hybrid[1].link_names().collect::<Vec<_>>(), ["cpu", "cpuacct"]);

        let v1 = parse(HYBRID.lines().take(4).collect::<Vec<_>>().join("\n").as_str(), "/ctr/x");
        assert!(v1.iter().any(|f| f.is_v1_of("freezer")) && !v1.iter().any(Folder::is_v2));

        let v2 = parse("25 22 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup rw,nsdelegate\n", "/ctr/x");
        assert!(matches!(v2.as_slice(), [only] if only.is_v2()));
    }

    #[test]
    fn a_path_stays_below_its_hierarchy() {
        for bad in ["", "/", "ctr", "/ctr/../x", "/ctr//x", "/ctr/x/", "/ctr/\n"] {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
        assert!(check_path("/ctr/0123").is_ok());
    }
}
