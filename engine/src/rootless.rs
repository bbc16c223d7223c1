//! An ordinary user's engine. Its commands move into a user namespace in which the user is root over the ids that
//! /etc/subuid and /etc/subgid give him, and a mount namespace of their own; from there on all code runs as it does for root.
//!
//! All of a user's containers live in **one** such namespace: who is in another may neither signal nor enter them. No process is
//! there to keep it: whoever is in it is written down in a file (`userns` in the state folder), a new command joins
//! whoever of them is alive, and makes a new namespace where nobody is. So there is nothing to lose in a crash.

use crate::state::boot_id;
use crate::{Engine, EngineError, ProcessId, Result};
use linux::process::{Namespaces, unshare};
use linux::userns::{self, IdRange};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Who is in the namespace, in the state folder: the boot's id, then a line each: pid and start time.
const MEMBERS: &str = "userns";
/// The largest such file believed, in bytes.
const MAX_MEMBERS_BYTES: u64 = 1 << 20;
/// So many lines are looked through for dead ones.
const MANY_MEMBERS: usize = 256;
/// The kernel takes no more lines in a map.
const MAX_RANGES: usize = 340;
/// The largest /etc/subuid read, in bytes.
const MAX_SUBIDS_BYTES: u64 = 16 << 20;

/// An engine without root's powers, and how far its own reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rootless {
    /// Ids of users that containers have.
    pub ids: u64,
    /// Why they have but one, and what to do about it.
    pub single_id: Option<String>,
}

/// How far an ordinary user's engine reaches, for `info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootlessLimits {
    /// Ids of users that containers have.
    pub ids: u64,
    /// Why they have but one, and what to do about it.
    pub single_id: Option<String>,
    /// The program that connects containers; None: there is only `--network none` and `host`.
    pub network: Option<String>,
    /// Where control groups are made; None: limits are not applied.
    pub cgroup: Option<String>,
    /// What can be limited there.
    pub controllers: Vec<String>,
}

/// Who wants an engine, and where its files are.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The user's and group's ids outside.
    pub user: (u32, u32),
    /// The state folder.
    pub state: PathBuf,
    /// PATH: where newuidmap is looked for.
    pub search_path: OsString,
}

/// Moves this process, which has one thread, to where it is root. None: it is root of the machine.
pub fn enter_user_namespace(identity: &Identity) -> Result<Option<Rootless>> {
    if rustix::process::geteuid().is_root() {
        // Root of somebody's namespace (`unshare -r`, a container) has all it can get.
        return Ok((!userns::is_initial_now()).then(|| Rootless::here(identity)));
    }
    let path = identity.state.join(MEMBERS);
    let mut members = Members::open(&path)?;
    if !members.join_one() {
        create(identity)?;
    }
    unshare(Namespaces::MOUNT)?;
    members.add_self()?;
    Ok(Some(Rootless::here(identity)))
}

impl Engine {
    /// None: it is root's.
    pub fn rootless_limits(&self) -> Option<RootlessLimits> {
        let rootless = self.config().rootless.clone()?;
        let programs = self.user_network();
        let program = [(programs.pasta, "pasta"), (programs.slirp4netns, "slirp4netns")];
        let cgroup = crate::monitor::cgroups::delegated();
        Some(RootlessLimits {
            ids: rootless.ids,
            single_id: rootless.single_id,
            network: program.into_iter().find_map(|(path, name)| path.map(|_| name.to_owned())),
            controllers: cgroup.as_deref().map(crate::monitor::cgroups::controllers).unwrap_or_default(),
            cgroup,
        })
    }

    /// Why containers have a single id, the first time that anybody asks since the machine was started.
    pub fn untold_limit(&self) -> Option<String> {
        let why = self.config().rootless.as_ref()?.single_id.clone()?;
        let told = self.config().state.join("single-id");
        if std::fs::read_to_string(&told).is_ok_and(|boot| boot == boot_id()) {
            return None;
        }
        // Where it can't be noted it is told again.
        let _untold = std::fs::write(&told, boot_id());
        Some(why)
    }
}

/// Writes down that this process, which will outlive the command that started it, is in the namespace too.
pub(crate) fn stay(members: &Path) -> Result<()> {
    Members::open(members)?.add_self()
}

/// The file of members in a state folder.
pub(crate) fn members_file(state: &Path) -> PathBuf {
    state.join(MEMBERS)
}

impl Rootless {
    fn here(identity: &Identity) -> Rootless {
        let ids = userns::user_map().iter().map(|range| u64::from(range.count)).sum();
        let single_id = (ids <= 1).then(|| match map_programs(identity) {
            Err(why) => why,
            Ok(_) => "newuidmap refused to map the ids of /etc/subuid".to_owned(),
        });
        Rootless { ids, single_id }
    }
}

/// The file of members, locked.
struct Members {
    file: File,
    path: PathBuf,
    lines: Vec<ProcessId>,
}

impl Members {
    fn open(path: &Path) -> Result<Members> {
        let error = |e: io::Error| EngineError::io("open", path, e);
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| state_error(folder, e))?;
        }
        let open = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let file = open.map_err(|e| state_error(path, e))?;
        file.lock().map_err(error)?;
        let mut text = String::new();
        (&file).take(MAX_MEMBERS_BYTES).read_to_string(&mut text).map_err(error)?;
        let mut lines = text.lines();
        let of_this_boot = lines.next().is_some_and(|id| id == boot_id());
        let member = |line: &str| {
            let (pid, start_time) = line.split_once(' ')?;
            Some(ProcessId { pid: pid.parse().ok()?, start_time: start_time.parse().ok()? })
        };
        let lines = lines.filter_map(member).filter(|_| of_this_boot).collect();
        Ok(Members { file, path: path.to_owned(), lines })
    }

    /// Moves this process to where the first of them is that lives.
    fn join_one(&mut self) -> bool {
        let joined = |member: &ProcessId| {
            let pidfd = Pid::from_raw(member.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
            // Looked at after it was opened: the descriptor's process is the one that is looked at.
            pidfd.is_some_and(|pidfd| member.lives() && userns::join(pidfd.as_fd()).is_ok())
        };
        let found = self.lines.iter().position(joined);
        self.lines.drain(..found.unwrap_or(self.lines.len()));
        found.is_some()
    }

    fn add_self(mut self) -> Result<()> {
        let error = |e: io::Error| EngineError::io("write", &self.path, e);
        if self.lines.len() > MANY_MEMBERS {
            self.lines.retain(|member| member.lives());
        }
        if self.lines.iter().find(|member| member.lives()).is_some_and(|member| !is_here(*member)) {
            return Err(EngineError::Invalid(
                "another command has made a user namespace meanwhile: try again".to_owned(),
            ));
        }
        self.lines.extend(ProcessId::of(std::process::id().cast_signed()));
        let mut text = boot_id();
        for member in &self.lines {
            text.push_str(&format!("\n{} {}", member.pid, member.start_time));
        }
        text.push('\n');
        // Never empty in between: who is killed here must leave the others' names.
        self.file
            .rewind()
            .and_then(|()| self.file.write_all(text.as_bytes()))
            .and_then(|()| self.file.set_len(text.len() as u64))
            .map_err(error)
    }
}

/// Whether a process is in the same user namespace as this one.
fn is_here(member: ProcessId) -> bool {
    let own = std::fs::read_link("/proc/self/ns/user").ok();
    std::fs::read_link(format!("/proc/{}/ns/user", member.pid)).ok() == own
}

fn state_error(path: &Path, error: io::Error) -> EngineError {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound => EngineError::Invalid(format!(
            "cannot use {}: {error}: is XDG_RUNTIME_DIR this user's? Log in anew, unset it, or give another folder with --state",
            path.display()
        )),
        _ => EngineError::io("make", path, error),
    }
}

/// A new namespace, with all ids the user was given, else with his own alone.
fn create(identity: &Identity) -> Result<()> {
    let (uid, gid) = identity.user;
    let programs = map_programs(identity);
    let mapped = userns::enter_new(|pid| match &programs {
        Ok(programs) => {
            programs.iter().try_for_each(|MapProgram { program, ranges }| userns::run_map_program(program, pid, ranges))
        }
        Err(why) => Err(why.clone()),
    });
    match mapped.map_err(|error| forbidden(&error))? {
        Ok(()) => Ok(()),
        // Why is found out again by whoever wants to tell: later commands join without having seen it.
        Err(_) => Ok(userns::map_single(uid, gid)?),
    }
}

/// Why an ordinary user may not make a user namespace, and what would let him.
fn forbidden(error: &linux::CallError) -> EngineError {
    let setting = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let advice = if setting("/proc/sys/user/max_user_namespaces") == "0" {
        "as root: sysctl -w user.max_user_namespaces=15000"
    } else if setting("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
        "as root: sysctl -w kernel.unprivileged_userns_clone=1"
    } else if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
        "as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    } else if error.errno == Errno::NOSPC {
        "too many of them are in use (user.max_user_namespaces)"
    } else {
        "this machine forbids them: run ctr as root"
    };
    EngineError::Invalid(format!("an ordinary user's containers need a user namespace: {error}: {advice}"))
}

/// newuidmap or newgidmap with what it is to map.
struct MapProgram {
    program: PathBuf,
    ranges: Vec<IdRange>,
}

/// What maps the user's ids; or why nothing can, and what to do about it.
fn map_programs(identity: &Identity) -> Result<[MapProgram; 2], String> {
    let (uid, gid) = identity.user;
    let name = user_name(uid);
    let shown = name.clone().unwrap_or_else(|| uid.to_string());
    let find = |program: &str| {
        find_program(&identity.search_path, program).ok_or_else(|| {
            format!(
                "{program} is not installed, so containers have one user id only: \
                 install it (Debian, Ubuntu: uidmap; Fedora: shadow-utils; Alpine: shadow-subids)"
            )
        })
    };
    let programs = [find("newuidmap")?, find("newgidmap")?];
    let ranges = |file: &str, own: u32| {
        let mut text = String::new();
        let read = File::open(file).and_then(|file| file.take(MAX_SUBIDS_BYTES).read_to_string(&mut text));
        let given = if read.is_ok() { subordinate(&text, name.as_deref(), uid) } else { Vec::new() };
        if given.is_empty() {
            return Err(format!(
                "{file} has no line for {shown}, so containers have one user id only: \
                 as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {shown}"
            ));
        }
        Ok(map(own, &given))
    };
    let [newuidmap, newgidmap] = programs;
    Ok([
        MapProgram { program: newuidmap, ranges: ranges("/etc/subuid", uid)? },
        MapProgram { program: newgidmap, ranges: ranges("/etc/subgid", gid)? },
    ])
}

/// The user himself as root, then what he was given, from 1 on.
fn map(own: u32, given: &[(u32, u32)]) -> Vec<IdRange> {
    let mut ranges = vec![IdRange { inside: 0, outside: own, count: 1 }];
    let mut next = 1u32;
    for (start, count) in given.iter().take(MAX_RANGES - 1) {
        let count = (*count).min(u32::MAX - next);
        ranges.push(IdRange { inside: next, outside: *start, count });
        next = next.saturating_add(count);
    }
    ranges
}

/// Start and count of each line of /etc/subuid that is for this user, by name or number.
fn subordinate(text: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let uid = uid.to_string();
    let range = |line: &str| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let (start, count): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.trim().parse().ok()?);
        let ours = Some(owner) == name || owner == uid;
        (ours && count > 0 && start.checked_add(count - 1).is_some()).then_some((start, count))
    };
    text.lines().filter_map(range).collect()
}

/// A user's name on the host.
pub(crate) fn user_name(uid: u32) -> Option<String> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    let uid = uid.to_string();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    })
}

/// A program in the folders of PATH, and where administrators' programs are.
pub(crate) fn find_program(search_path: &OsStr, name: &str) -> Option<PathBuf> {
    let more = ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin"].map(PathBuf::from);
    let is_program = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let listed = search_path.as_bytes().split(|byte| *byte == b':').map(|folder| Path::new(OsStr::from_bytes(folder)));
    let folders = listed.filter(|folder| folder.is_absolute()).map(Path::to_owned).chain(more);
    folders.map(|folder| folder.join(name)).find(is_program)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_of_a_user_by_name_and_by_number() {
        let text = "root:1:1\nann:100000:65536\nbob:5:0\n1000:300000:10\nann:4294967295:2\nann\n";
        assert_eq!(subordinate(text, Some("ann"), 1000), [(100_000, 65_536), (300_000, 10)]);
        assert!(subordinate(text, Some("bob"), 1001).is_empty());
        let map = map(1000, &[(100_000, 65_536), (300_000, 10)]);
        let last = IdRange { inside: 65_537, outside: 300_000, count: 10 };
        assert_eq!((map.len(), map[0].outside, map[2]), (3, 1000, last));
    }
}
