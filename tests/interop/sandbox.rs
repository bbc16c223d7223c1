//! A place for a foreign engine: namespaces of its own for processes, mounts and network, and a /run of its own. Whatever it
//! starts or mounts is gone with the namespace's first process, whether the test succeeds, fails or is killed.

use rustix::process::{Resource, getrlimit};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use test_support::{Invocation, Running, TestEnv, cgroup_mounts, eventually, runtime_binary};

/// The work folder inside, on the sandbox's own tmpfs; short, for sockets' sake.
pub(crate) const WORK: &str = "/run/w";
/// Where a daemon writes.
const LOG: &str = "daemon.log";
/// How much of that a failed test shows, in lines.
const LOG_LINES: usize = 60;
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

pub(crate) struct Sandbox {
    /// The first process in the namespace, as `unshare`'s child. It lives until its stdin ends.
    holder: Child,
    /// That process as this test sees it.
    pid: i32,
    pub(crate) env: TestEnv,
}

/// Whether all the programs are there; says so loudly where not.
pub(crate) fn have(programs: &[&str]) -> bool {
    let there = |name: &&&str| PATH.split(':').any(|folder| Path::new(folder).join(name).exists());
    let missing: Vec<_> = programs.iter().filter(|name| !there(name)).collect();
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: {programs:?} are tried as root alone");
        return false;
    }
    if !missing.is_empty() {
        eprintln!("SKIPPED: {missing:?} not found: scripts/test-deps installs them");
    }
    missing.is_empty()
}

impl Sandbox {
    #[track_caller]
    pub(crate) fn new(env: TestEnv) -> Sandbox {
        let script = format!(
            "ip link set lo up && mount -t tmpfs interop /run && mkdir {WORK} && echo ready && exec cat >/dev/null"
        );
        let mut holder = Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", &script])
            .env("PATH", PATH)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare can be run");
        let mut line = String::new();
        let said = BufReader::new(holder.stdout.take().expect("it is a pipe")).read_line(&mut line);
        assert!(said.is_ok() && line == "ready\n", "the namespaces can't be made: {line:?}");
        let children = format!("/proc/{0}/task/{0}/children", holder.id());
        let children = std::fs::read_to_string(children).expect("a process that runs has its list of children");
        let pid = children.trim().parse().expect("unshare has one child");
        Sandbox { holder, pid, env }
    }

    /// A program inside.
    pub(crate) fn program(&self, words: impl test_support::IntoArgs) -> Invocation {
        let (target, cwd) = (self.pid.to_string(), format!("--wdns={WORK}"));
        let mut args: Vec<_> = ["-t", &target, "-m", "-n", "-p", &cwd].map(std::ffi::OsString::from).into();
        args.extend(words.into_args());
        self.env.program("nsenter", args).env("PATH", PATH).env("HOME", WORK).env("TMPDIR", WORK)
    }

    /// A daemon inside, its output in a file that a failed test shows, once `ready` says yes.
    #[track_caller]
    pub(crate) fn daemon(&self, words: &str, ready: impl Fn() -> bool) -> Running {
        let script = format!("exec {words} >{LOG} 2>&1");
        let daemon = self.program(["sh", "-c", &script]).spawn();
        eventually(&format!("{words} is up"), || ready().then_some(()));
        daemon
    }

    /// A file of the sandbox as this test sees it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{WORK}", self.pid)).join(name)
    }

    #[track_caller]
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("it is below the work folder")).expect("folders can be made");
        std::fs::write(path, text).expect("the sandbox's tmpfs takes files");
    }

    /// The control group that everything of this sandbox's engine is told to be in.
    pub(crate) fn cgroup_parent(&self) -> String {
        format!("/ctr-{}", self.env.tag())
    }

    /// Control groups below that one whose name has `id` in it.
    pub(crate) fn cgroups_of(&self, id: &str) -> Vec<PathBuf> {
        let parent = self.cgroup_parent();
        let groups = cgroup_mounts().into_iter().filter_map(|mount| std::fs::read_dir(mount.join(&parent[1..])).ok());
        let groups = groups.flat_map(|entries| entries.flatten().map(|entry| entry.path()));
        groups.filter(|path| path.to_string_lossy().contains(id)).collect()
    }

    /// A limit of a container, as the kernel has it: the v1 file's name, else the v2 file's.
    #[track_caller]
    pub(crate) fn limit(&self, id: &str, v1: &str, v2: &str) -> String {
        let groups = self.cgroups_of(id);
        let read = |name: &str| groups.iter().find_map(|group| std::fs::read_to_string(group.join(name)).ok());
        let text = read(v1).or_else(|| read(v2)).unwrap_or_else(|| panic!("no {v1} or {v2} in {groups:?}"));
        text.trim().to_owned()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.path(LOG)).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("--- the daemon's log\n{}", lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"));
        }
        drop(self.holder.stdin.take());
        // unshare hands on the end of its child, and with that all in the namespace are gone.
        let _ended = self.holder.wait();
        // The parent group is this test's; what the engine or the runtime left in it, tests look for before.
        let leaks = self.env.leaks();
        leaks.sweep();
    }
}

/// The runtime under test, as a word for command lines.
pub(crate) fn runtime() -> String {
    runtime_binary().to_str().expect("the build lies in a folder with a plain name").to_owned()
}

/// As many open files as this caller may have: none may raise its own limit without CAP_SYS_RESOURCE.
pub(crate) fn files_limit() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(1 << 20).min(1 << 20)
}
