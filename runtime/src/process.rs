//! A process of a container, worked out by the caller beforehand so that the forked side only has to carry it out: arguments
//! as C strings, capability masks, the compiled filter. The same for a container's init and for exec.

use crate::attributes::Attributes;
use crate::seccomp::Filter;
use crate::{RuntimeError, capabilities};
use linux::capability::Sets;
use oci_spec::runtime::{Linux, LinuxSeccomp, PosixRlimitType, Process, User};
use rustix::process::{Resource, Rlimit};
use std::ffi::CString;
use std::path::PathBuf;

/// Arguments and environment lines accepted, each.
const MAX_STRINGS: usize = 1 << 17;
/// The kernel's limit on supplementary groups (NGROUPS_MAX).
const MAX_GROUPS: usize = 65_536;

/// What to become.
#[derive(Debug)]
pub(crate) struct ProcessPlan {
    pub(crate) args: Vec<CString>,
    pub(crate) env: Vec<CString>,
    pub(crate) cwd: PathBuf,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) additional_gids: Vec<u32>,
    pub(crate) umask: u32,
    pub(crate) capabilities: Sets,
    pub(crate) no_new_privileges: bool,
    pub(crate) filter: Option<Filter>,
    pub(crate) attributes: Attributes,
    pub(crate) limits: Vec<(Resource, &'static str, Rlimit)>,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) labels: Vec<(&'static str, String)>,
}

impl ProcessPlan {
    pub(crate) fn new(
        process: &Process,
        filter: Option<&LinuxSeccomp>,
        container: Option<&Linux>,
        warnings: &mut Vec<String>,
    ) -> Result<ProcessPlan, RuntimeError> {
        let args = strings("process.args", process.args().as_deref().unwrap_or_default())?;
        if args.is_empty() {
            return Err(RuntimeError::Spec("no command specified: process.args is empty".to_owned()));
        }
        if !process.cwd().is_absolute() {
            return Err(RuntimeError::Spec(format!("process.cwd {:?} must be an absolute path", process.cwd())));
        }
        let filter = filter.map(|filter| Filter::new(filter, warnings)).transpose()?;
        let user = process.user();
        check_ids(user)?;
        let mut labels = Vec::new();
        if let Some(profile) = process.apparmor_profile().as_deref().filter(|p| !p.is_empty()) {
            labels.push(("self/attr/apparmor/exec", format!("exec {profile}")));
        }
        if let Some(label) = process.selinux_label().as_deref().filter(|l| !l.is_empty()) {
            labels.push(("self/attr/exec", label.to_owned()));
        }
        Ok(ProcessPlan {
            args,
            env: strings("process.env", process.env().as_deref().unwrap_or_default())?,
            cwd: process.cwd().clone(),
            uid: user.uid(),
            gid: user.gid(),
            additional_gids: user.additional_gids().clone().unwrap_or_default(),
            umask: user.umask().unwrap_or(0o022) & 0o777,
            capabilities: capabilities::sets(process.capabilities().as_ref(), warnings),
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            filter,
            attributes: Attributes::new(process, container)?,
            limits: limits(process)?,
            oom_score_adj: process.oom_score_adj(),
            labels,
        })
    }
}

/// The kernel's calls take the highest number as "leave it as it is": as root, that is.
fn check_ids(user: &User) -> Result<(), RuntimeError> {
    let groups = user.additional_gids().as_deref().unwrap_or_default();
    if groups.len() > MAX_GROUPS {
        return Err(RuntimeError::Spec(format!("process.user has more than {MAX_GROUPS} additional gids")));
    }
    match [user.uid(), user.gid()].iter().chain(groups).find(|id| **id == u32::MAX) {
        Some(id) => Err(RuntimeError::Spec(format!("process.user: {id} is no id, it would mean the caller's own"))),
        None => Ok(()),
    }
}

fn strings(what: &str, texts: &[String]) -> Result<Vec<CString>, RuntimeError> {
    if texts.len() > MAX_STRINGS {
        return Err(RuntimeError::Spec(format!("{what} has more than {MAX_STRINGS} entries")));
    }
    let string = |text: &String| {
        CString::new(text.as_str()).map_err(|_| RuntimeError::Spec(format!("{what} {text:?} holds a null byte")))
    };
    texts.iter().map(string).collect()
}

/// The spec's limits, checked.
pub(crate) fn limits(process: &Process) -> Result<Vec<(Resource, &'static str, Rlimit)>, RuntimeError> {
    let mut limits: Vec<(Resource, &'static str, Rlimit)> = Vec::new();
    for limit in process.rlimits().iter().flatten() {
        let (resource, name) = resource(limit.typ());
        if limit.soft() > limit.hard() {
            return Err(RuntimeError::Spec(format!(
                "ulimit {name}: the soft limit {} is above the hard limit {}",
                limit.soft(),
                limit.hard()
            )));
        }
        if limits.iter().any(|(_, known, _)| *known == name) {
            return Err(RuntimeError::Spec(format!("ulimit {name} is given twice")));
        }
        let value = |value: u64| (value != u64::MAX).then_some(value);
        limits.push((resource, name, Rlimit { current: value(limit.soft()), maximum: value(limit.hard()) }));
    }
    Ok(limits)
}

fn resource(kind: PosixRlimitType) -> (Resource, &'static str) {
    match kind {
        PosixRlimitType::RlimitCpu => (Resource::Cpu, "cpu"),
        PosixRlimitType::RlimitFsize => (Resource::Fsize, "fsize"),
        PosixRlimitType::RlimitData => (Resource::Data, "data"),
        PosixRlimitType::RlimitStack => (Resource::Stack, "stack"),
        PosixRlimitType::RlimitCore => (Resource::Core, "core"),
        PosixRlimitType::RlimitRss => (Resource::Rss, "rss"),
        PosixRlimitType::RlimitNproc => (Resource::Nproc, "nproc"),
        PosixRlimitType::RlimitNofile => (Resource::Nofile, "nofile"),
        PosixRlimitType::RlimitMemlock => (Resource::Memlock, "memlock"),
        PosixRlimitType::RlimitAs => (Resource::As, "as"),
        PosixRlimitType::RlimitLocks => (Resource::Locks, "locks"),
        PosixRlimitType::RlimitSigpending => (Resource::Sigpending, "sigpending"),
        PosixRlimitType::RlimitMsgqueue => (Resource::Msgqueue, "msgqueue"),
        PosixRlimitType::RlimitNice => (Resource::Nice, "nice"),
        PosixRlimitType::RlimitRtprio => (Resource::Rtprio, "rtprio"),
        PosixRlimitType::RlimitRttime => (Resource::Rttime, "rttime"),
    }
}
