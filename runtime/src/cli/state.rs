//! The state folder: one folder a container, its state.json written whole or not at all.

use super::{CliError, Global};
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};
use runtime::Cgroup;
use runtime::systemd::Scope;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What is remembered of a container. The config is frozen at create.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State {
    pub(crate) oci_version: String,
    pub(crate) id: String,
    pub(crate) pid: i32,
    /// Field 22 of /proc/PID/stat: with the pid it names one process, even after the number is used again.
    pub(crate) pid_start_time: u64,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) created: String,
    pub(crate) started: bool,
    pub(crate) cgroup: String,
    /// What its group is to systemd, where that made it.
    #[serde(default)]
    pub(crate) scope: Option<Scope>,
    /// How many groups above it were made for it, and go with it.
    #[serde(default)]
    pub(crate) cgroup_parents: usize,
    /// The mount namespace it has joined, in which its mounts outlive it.
    #[serde(default)]
    pub(crate) mount_namespace: Option<u64>,
    pub(crate) config: Spec,
    /// Where it was read from.
    #[serde(skip)]
    pub(crate) folder: Option<PathBuf>,
}

impl State {
    pub(crate) fn folder(global: &Global, id: &str) -> PathBuf {
        global.root.join(id)
    }

    pub(crate) fn load(global: &Global, id: &str) -> Result<State, CliError> {
        check_id(id)?;
        let path = State::folder(global, id).join("state.json");
        let text = fs::read(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => CliError::new(format!("container \"{id}\" does not exist")),
            _ => CliError::new(format!("read {}: {error}", path.display())),
        })?;
        let state: State =
            serde_json::from_slice(&text).map_err(|e| CliError::new(format!("read {}: {e}", path.display())))?;
        Ok(State { folder: Some(State::folder(global, id)), ..state })
    }

    pub(crate) fn save(&self, global: &Global) -> Result<(), CliError> {
        let folder = State::folder(global, &self.id);
        let at = |path: &Path, error: std::io::Error| CliError::new(format!("write {}: {error}", path.display()));
        let (temporary, path) = (folder.join("state.json.new"), folder.join("state.json"));
        let text = serde_json::to_vec(self).map_err(|e| at(&path, e.into()))?;
        fs::write(&temporary, text).map_err(|e| at(&temporary, e))?;
        fs::rename(&temporary, &path).map_err(|e| at(&path, e))
    }

    pub(crate) fn listener(global: &Global, id: &str) -> PathBuf {
        State::folder(global, id).join("start.sock")
    }

    /// The init, if it is still the one that was made.
    pub(crate) fn init(&self) -> Option<(Pid, OwnedFd)> {
        let pid = Pid::from_raw(self.pid)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        (start_time(self.pid) == Some(self.pid_start_time)).then_some((pid, pidfd))
    }

    pub(crate) fn status(&self) -> &'static str {
        match self.init() {
            None => "stopped",
            Some(_) if !self.started => "created",
            Some(_) => match self.cgroup().and_then(|cgroup| Ok(cgroup.is_frozen()?)) {
                Ok(true) => "paused",
                _ => "running",
            },
        }
    }

    /// Whether the end of its init is the end of all its processes.
    pub(crate) fn has_pid_namespace(&self) -> bool {
        let namespaces = self.config.linux().as_ref().and_then(|linux| linux.namespaces().as_deref());
        let is_own = |n: &LinuxNamespace| n.typ() == LinuxNamespaceType::Pid && n.path().is_none();
        namespaces.unwrap_or_default().iter().any(is_own)
    }

    pub(crate) fn cgroup(&self) -> Result<Cgroup, CliError> {
        Ok(match &self.scope {
            Some(scope) => Cgroup::of_scope(&self.cgroup, scope)?,
            None => Cgroup::open(&self.cgroup)?,
        })
    }

    /// As the `state` command and hooks show it.
    pub(crate) fn shown(&self) -> serde_json::Value {
        let status = self.status();
        serde_json::json!({
            "ociVersion": self.oci_version,
            "id": self.id,
            "pid": if status == "stopped" { 0 } else { self.pid },
            "status": status,
            "bundle": self.bundle,
            "rootfs": self.rootfs,
            "created": self.created,
            "annotations": self.annotations(),
            "owner": self.owner(),
        })
    }

    /// Who made it: the owner of its state, by name where /etc/passwd has one.
    fn owner(&self) -> String {
        let uid = self.folder.as_ref().and_then(|folder| fs::metadata(folder).ok()).map_or(0, |found| found.uid());
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        };
        passwd.lines().find_map(name).unwrap_or_else(|| uid.to_string())
    }

    fn annotations(&self) -> HashMap<String, String> {
        self.config.annotations().clone().unwrap_or_default()
    }
}

/// All containers of the state folder, by name.
pub(crate) fn all(global: &Global) -> Vec<State> {
    let entries = fs::read_dir(&global.root).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names.iter().filter_map(|name| State::load(global, name).ok()).collect()
}

/// An id is a file name of the plain kind.
pub(crate) fn check_id(id: &str) -> Result<(), CliError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_+-.".contains(&b);
    if id.is_empty() {
        return Err(CliError::new("container id cannot be empty"));
    }
    if id == "." || id == ".." || id.len() > 255 || !id.bytes().all(plain) {
        return Err(CliError::new(format!("invalid container id {id:?}: only [a-zA-Z0-9_+.-] are allowed")));
    }
    Ok(())
}

/// When a process started, in clock ticks since boot; None if it is gone or a zombie.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, in parentheses, may hold anything, parentheses too.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// UTC now, RFC 3339.
pub(crate) fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Howard Hinnant's days-to-civil, for days after 1970.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", since.subsec_nanos())
}
