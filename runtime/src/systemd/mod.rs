//! Control groups made by systemd. Where it is the first process the whole hierarchy is its own: who wants a group there asks
//! for a scope, a unit around a process that is there already, and is given the group's inside to do as he likes.

mod bus;
pub mod message;
mod properties;

use crate::RuntimeError;
use bus::{Bus, Failed};
use message::{Value, Writer};
use oci_spec::runtime::LinuxResources;
pub(crate) use properties::Present;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::PathBuf;

/// Annotations of this name are properties of the unit.
const ANNOTATION: &str = "org.systemd.property.";

/// Which systemd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Manager {
    /// The first process.
    System,
    /// An ordinary user's own, found through this runtime directory.
    User(PathBuf),
}

/// A scope: what a container's group is to systemd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    manager: Manager,
    slice: String,
    unit: String,
}

impl Scope {
    /// The scope of a container: of a cgroupsPath `slice:prefix:name`, or of its id where there is none.
    pub fn new(manager: Manager, cgroups_path: Option<&str>, id: &str) -> Result<Scope, RuntimeError> {
        let [slice, prefix, name] = match cgroups_path {
            None => ["", "ctr", id],
            Some(path) => {
                let parts: Vec<&str> = path.split(':').collect();
                parts.try_into().map_err(|_| {
                    let expected = "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups";
                    RuntimeError::Spec(format!("{expected}, got {path:?} instead"))
                })?
            }
        };
        let slice = match (slice, &manager) {
            ("", Manager::System) => "system.slice",
            ("", Manager::User(_)) => "user.slice",
            (slice, _) => slice,
        };
        let stem = slice.strip_suffix(".slice").unwrap_or_default();
        let well_nested = stem == "-" || stem.split('-').all(|part| !part.is_empty());
        if !well_nested || slice.contains('/') {
            return Err(RuntimeError::Spec(format!("cgroupsPath: invalid slice name: {slice}")));
        }
        let unit = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
        if name.is_empty() || name.ends_with(".slice") || unit.len() > 255 || !unit.bytes().all(plain) {
            return Err(RuntimeError::Spec(format!("cgroupsPath: {unit:?} is no name for a scope of systemd's")));
        }
        Ok(Scope { manager, slice: slice.to_owned(), unit })
    }

    /// Its name.
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// Makes it around a process: its group's path.
    pub(crate) fn start(
        &self,
        pid: Pid,
        resources: Option<&LinuxResources>,
        annotations: Option<&HashMap<String, String>>,
    ) -> Result<String, RuntimeError> {
        let wanted = self.properties(pid, resources, annotations)?;
        let mut bus = Bus::connect(&self.manager)?;
        let job = match self.ask_for(&mut bus, &wanted) {
            // One that failed stays until somebody has looked at it.
            Err(Failed::Refused { name, .. }) if name.ends_with(".UnitExists") => {
                self.reset_failed(&mut bus);
                self.ask_for(&mut bus, &wanted)
            }
            answer => answer,
        };
        let started = bus.until_done(&format!("start {}", self.unit), &[&job?]).and_then(|()| self.group(&mut bus));
        started.inspect_err(|_| {
            // The first error is the one to tell.
            let _stopped = self.stop();
        })
    }

    fn properties(
        &self,
        pid: Pid,
        resources: Option<&LinuxResources>,
        annotations: Option<&HashMap<String, String>>,
    ) -> Result<properties::Properties, RuntimeError> {
        let pid = pid.as_raw_nonzero().get().cast_unsigned();
        let flag = |name: &str, value| (name.to_owned(), Value::Bool(value));
        let text = |name: &str, value: String| (name.to_owned(), Value::Text(value));
        let mut wanted = vec![
            text("Description", format!("ctr container {}", self.unit.trim_end_matches(".scope"))),
            text("Slice", self.slice.clone()),
            ("PIDs".to_owned(), Value::Shorts(vec![pid])),
            flag("Delegate", true),
            flag("DefaultDependencies", false),
            // Forgotten when it ends, however it does.
            text("CollectMode", "inactive-or-failed".to_owned()),
            flag("MemoryAccounting", true),
            flag("CPUAccounting", true),
            flag("IOAccounting", true),
            flag("TasksAccounting", true),
        ];
        let limits = resources.map(|all| properties::of(all, Present::default())).transpose()?.unwrap_or_default();
        if !limits.iter().any(|(name, _)| name == "TasksMax") {
            // systemd has a default where nobody says so.
            wanted.push(("TasksMax".to_owned(), Value::Long(u64::MAX)));
        }
        wanted.extend(limits);
        for (name, value) in annotations.into_iter().flatten() {
            let Some(name) = name.strip_prefix(ANNOTATION) else { continue };
            let (name, value) = properties::of_annotation(name, value)?;
            // The group itself and who is in it are not the annotation's to say.
            if matches!(name.as_str(), "PIDs" | "Slice" | "Delegate") {
                return Err(RuntimeError::Spec(format!("annotation {ANNOTATION}{name}: the runtime sets this itself")));
            }
            wanted.retain(|(known, _)| *known != name);
            wanted.push((name, value));
        }
        Ok(wanted)
    }

    fn ask_for(&self, bus: &mut Bus, wanted: &[(String, Value)]) -> Result<String, Failed> {
        let mut body = Writer::default();
        body.text(&self.unit)?.text("fail")?.properties(wanted)?.no_units()?;
        let job = bus.manage("StartTransientUnit", "ssa(sv)a(sa(sv))", body)?.into_iter().next();
        Ok(job.ok_or_else(|| RuntimeError::Systemd("StartTransientUnit: no job came back".to_owned()))?)
    }

    /// Its group's path below the hierarchy's root.
    fn group(&self, bus: &mut Bus) -> Result<String, RuntimeError> {
        let mut body = Writer::default();
        body.text(&self.unit)?;
        let unit = bus.manage("GetUnit", "s", body)?.into_iter().next().unwrap_or_default();
        let mut body = Writer::default();
        body.text("org.freedesktop.systemd1.Scope")?.text("ControlGroup")?;
        let found = bus.of_unit(&unit, "org.freedesktop.DBus.Properties", "Get", "ss", body)?;
        let path = found.into_iter().next().filter(|path| !path.is_empty());
        path.ok_or_else(|| RuntimeError::Systemd(format!("{} has no control group", self.unit)))
    }

    /// Tells systemd of other limits, for as long as the unit lives.
    pub(crate) fn set(&self, resources: &LinuxResources, present: Present) -> Result<(), RuntimeError> {
        let wanted = properties::of(resources, present)?;
        if wanted.is_empty() {
            return Ok(());
        }
        let mut body = Writer::default();
        body.text(&self.unit)?.flag(true).properties(&wanted)?;
        Bus::connect(&self.manager)?.manage("SetUnitProperties", "sba(sv)", body)?;
        Ok(())
    }

    /// Ends it, and waits until it has. One that is not there (any more) is as good.
    pub(crate) fn stop(&self) -> Result<(), RuntimeError> {
        let mut bus = Bus::connect(&self.manager)?;
        bus.hurry();
        let mut body = Writer::default();
        body.text(&self.unit)?.text("replace")?;
        let stopped = match bus.manage("StopUnit", "ss", body) {
            Err(Failed::Refused { name, .. }) if name.ends_with(".NoSuchUnit") => return Ok(()),
            Err(failed) => Err(failed.into()),
            Ok(job) => {
                // It may have ended by itself meanwhile, and the job with it: nobody hears of the job then.
                let either = [job.first().map_or("", String::as_str), &self.unit];
                bus.until_done(&format!("stop {}", self.unit), &either)
            }
        };
        self.reset_failed(&mut bus);
        stopped
    }

    fn reset_failed(&self, bus: &mut Bus) {
        let mut body = Writer::default();
        if body.text(&self.unit).is_ok() {
            // One that did not fail needs none.
            let _none = bus.manage("ResetFailedUnit", "s", body);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_slice_and_scope() {
        let user = || Manager::User("/run/user/1000".into());
        let scope = |path, manager| Scope::new(manager, path, "id").map(|scope| (scope.slice, scope.unit));
        let named = |slice: &str, unit: &str| (slice.to_owned(), unit.to_owned());
        assert_eq!(scope(None, Manager::System).unwrap(), named("system.slice", "ctr-id.scope"));
        assert_eq!(scope(None, user()).unwrap(), named("user.slice", "ctr-id.scope"));
        let found = scope(Some("machine.slice:libpod:0a1b"), Manager::System).unwrap();
        assert_eq!(found, named("machine.slice", "libpod-0a1b.scope"));
        assert_eq!(scope(Some("::x"), Manager::System).unwrap(), named("system.slice", "x.scope"));
        assert_eq!(scope(Some("-.slice:a:x"), user()).unwrap(), named("-.slice", "a-x.scope"));
        for bad in [
            "/a/b",
            "a:b",
            "a:b:c:d",
            "system:a:b",
            "a/b.slice:a:b",
            "a--b.slice:a:b",
            "-a.slice:a:b",
            ".slice:a:b",
            "a.slice:b:",
            "a.slice:b:c d",
            "a.slice:b:c/d",
            "a.slice:b:c.slice",
        ] {
            assert!(scope(Some(bad), Manager::System).is_err(), "{bad}");
        }
        let error = scope(Some("/a/b"), Manager::System).unwrap_err().to_string();
        assert!(error.contains("expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got"));
    }

    #[test]
    fn what_a_scope_is_cannot_be_annotated_away() {
        let scope = Scope::new(Manager::System, None, "id").unwrap();
        let with = |name: &str, value: &str| {
            let annotations = HashMap::from([(format!("{ANNOTATION}{name}"), value.to_owned())]);
            scope.properties(Pid::INIT, None, Some(&annotations))
        };
        assert!(with("Slice", "'other.slice'").is_err() && with("PIDs", "[]").is_err());
        let found = with("Description", "'mine'").unwrap();
        let descriptions: Vec<_> = found.iter().filter(|(name, _)| name == "Description").collect();
        assert_eq!(descriptions, [&("Description".to_owned(), Value::Text("mine".to_owned()))]);
    }
}
