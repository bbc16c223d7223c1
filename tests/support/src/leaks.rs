//! What an engine has on the machine outside its own folders, found without the engine's help.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The traces of one engine: each list empty when nothing is left.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Leaks {
    /// Processes that name its root or live in its cgroups: pid and command line.
    pub processes: Vec<(i32, String)>,
    /// Mounts of this mount namespace beneath its root.
    pub mounts: Vec<String>,
    /// Its cgroups, in every hierarchy.
    pub cgroups: Vec<PathBuf>,
    /// Its bridges and veths.
    pub links: Vec<String>,
    /// Its nftables tables.
    pub tables: Vec<String>,
}

impl Leaks {
    /// Those of the engine with this data root; `tag` is in the names of what is global.
    pub fn of(root: &Path, tag: &str) -> Leaks {
        let name = format!("ctr-{tag}");
        Leaks {
            processes: processes(root, &name),
            mounts: mounts(root),
            cgroups: cgroup_mounts().into_iter().map(|mount| mount.join(&name)).filter(|path| path.exists()).collect(),
            links: links().into_iter().filter(|link| link.contains(tag)).collect(),
            tables: tables().into_iter().filter(|table| table.contains(&format!("ctr_{tag}"))).collect(),
        }
    }

    /// Nothing is left.
    pub fn is_empty(&self) -> bool {
        *self == Leaks::default()
    }

    /// Removes by hand what the engine did not: a failed test, too, leaves a clean machine.
    pub fn sweep(&self) {
        for (pid, _) in &self.processes {
            if let Some(pid) = Pid::from_raw(*pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        for mount in &self.mounts {
            run("umount", &["-l", mount]);
        }
        for (pid, _) in &self.processes {
            crate::wait_for_exit(*pid, std::time::Duration::from_secs(2));
        }
        for cgroup in &self.cgroups {
            remove_cgroup(cgroup);
        }
        for link in &self.links {
            run("ip", &["link", "delete", link]);
        }
        for table in &self.tables {
            let words: Vec<&str> = ["delete"].into_iter().chain(table.split(' ')).collect();
            run("nft", &words);
        }
    }
}

/// Where each cgroup hierarchy is mounted: v1's controllers, v2, or both.
pub fn cgroup_mounts() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let cgroup = |line: &&str| line.split_once(" - ").is_some_and(|(_, fs)| fs.starts_with("cgroup"));
    table.lines().filter(cgroup).filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect()
}

/// The names of all network links of this namespace.
pub fn links() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/class/net") else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// `table inet name` of each nftables table; none where nft is not installed.
fn tables() -> Vec<String> {
    let Ok(output) = Command::new("nft").args(["list", "tables"]).stdin(Stdio::null()).output() else {
        return Vec::new();
    };
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn mounts(root: &Path) -> Vec<String> {
    let root = root.to_string_lossy();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let beneath = table.lines().filter(|line| line.contains(&*root));
    beneath.filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect()
}

fn processes(root: &Path, cgroup: &str) -> Vec<(i32, String)> {
    let root = root.to_string_lossy();
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let text = |name| String::from_utf8_lossy(&fs::read(entry.path().join(name)).unwrap_or_default()).into_owned();
        if pid == own || is_zombie(&text("stat")) {
            continue;
        }
        let command = text("cmdline").replace('\0', " ");
        let ours = command.contains(&*root)
            || text("environ").contains(&*root)
            || text("cgroup").split('\n').any(|line| line.split('/').any(|part| part == cgroup))
            || open_files(&entry.path()).any(|path| path.starts_with(&*root));
        if ours {
            found.push((i32::try_from(pid).unwrap_or(0), command));
        }
    }
    found
}

/// A zombie runs no more and holds nothing; it waits for its parent alone.
fn is_zombie(stat: &str) -> bool {
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

fn open_files(process: &Path) -> impl Iterator<Item = String> {
    let links = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    links.filter_map(|link| fs::read_link(link.path()).ok()).map(|path| path.to_string_lossy().into_owned())
}

/// Children first; the kernel refuses the others.
fn remove_cgroup(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}

fn run(program: &str, args: &[&str]) {
    let _ = Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}
