//! Capabilities, the system call filter, masked paths: what `--privileged`, `--cap-add` and `--security-opt` change.

use crate::{ContainerSpec, EngineError, Result};
use oci_spec::runtime::{Capability, Linux, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, LinuxSeccomp, Process};
use std::collections::HashSet;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

pub(super) fn apply(asked: &ContainerSpec, process: &mut Process, linux: &mut Linux) -> Result<()> {
    linux.set_seccomp(confine(asked, process)?);
    if !security_options(asked)?.masked {
        linux.set_masked_paths(None).set_readonly_paths(None);
    }
    if asked.privileged {
        all_devices(linux);
    }
    Ok(())
}

/// What a process of this container may do: its capabilities, and the filter it runs under.
pub(crate) fn confine(asked: &ContainerSpec, process: &mut Process) -> Result<Option<LinuxSeccomp>> {
    let capabilities = capabilities(asked)?;
    process.set_capabilities(Some(runtime::capability_sets(&capabilities)));
    let options = security_options(asked)?;
    process.set_no_new_privileges(options.no_new_privileges.then_some(true));
    // One that is asked for is passed over where nobody enforces it, as docker does.
    process.set_apparmor_profile(options.apparmor.filter(|_| crate::apparmor::is_on()));
    Ok(options.filtered.then(|| runtime::seccomp::default_profile(&capabilities)))
}

/// Finds what is wrong with the command line.
pub(super) fn check(asked: &ContainerSpec) -> Result<()> {
    capabilities(asked)?;
    security_options(asked).map(drop)
}

struct SecurityOptions {
    no_new_privileges: bool,
    filtered: bool,
    masked: bool,
    /// The profile asked for by name, or the one of all containers.
    apparmor: Option<String>,
}

/// The AppArmor profile of a container, as docker shows it: nothing where the kernel has no profiles.
pub(crate) fn apparmor_profile(asked: &ContainerSpec) -> String {
    if !crate::apparmor::is_on() {
        return String::new();
    }
    let profile = security_options(asked).ok().and_then(|options| options.apparmor);
    profile.unwrap_or_else(|| "unconfined".to_owned())
}

fn security_options(asked: &ContainerSpec) -> Result<SecurityOptions> {
    let (filtered, masked) = (!asked.privileged, !asked.privileged);
    let mut options = SecurityOptions { no_new_privileges: false, filtered, masked, apparmor: None };
    if !asked.privileged {
        options.apparmor = crate::apparmor::default_profile();
    }
    for option in &asked.security_opt {
        let (name, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        match (name, value) {
            ("no-new-privileges", "" | "true") => options.no_new_privileges = true,
            ("no-new-privileges", "false") => {}
            ("seccomp", "unconfined") => options.filtered = false,
            ("seccomp", "builtin" | "default") => {}
            ("systempaths", "unconfined") => options.masked = false,
            ("apparmor", "unconfined") => options.apparmor = None,
            ("apparmor", profile) if !profile.is_empty() => options.apparmor = Some(profile.to_owned()),
            ("label", _) => {}
            ("seccomp", _) => {
                return Err(EngineError::Invalid(format!(
                    "--security-opt {option}: profiles from files are not supported: use seccomp=unconfined or the default"
                )));
            }
            _ => return Err(EngineError::Invalid(format!("invalid --security-opt {option:?}"))),
        }
    }
    Ok(options)
}

/// The capabilities of a container: docker's 14, all if privileged, with those added and dropped.
pub(crate) fn capabilities(asked: &ContainerSpec) -> Result<HashSet<Capability>> {
    let all = || runtime::capabilities::ALL.into_iter();
    if asked.privileged {
        return Ok(all().collect());
    }
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL") || name.eq_ignore_ascii_case("CAP_ALL");
    let mut set: HashSet<Capability> = if asked.cap_add.iter().any(is_all) {
        all().collect()
    } else if asked.cap_drop.iter().any(is_all) {
        HashSet::new()
    } else {
        runtime::capabilities::DEFAULT.into_iter().collect()
    };
    for name in asked.cap_drop.iter().filter(|name| !is_all(name)) {
        set.remove(&capability(name)?);
    }
    for name in asked.cap_add.iter().filter(|name| !is_all(name)) {
        set.insert(capability(name)?);
    }
    Ok(set)
}

fn capability(name: &str) -> Result<Capability> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    serde_json::from_value(serde_json::Value::String(full))
        .map_err(|_| EngineError::Invalid(format!("invalid capability {name:?}: see capabilities(7) for the names")))
}

/// `--privileged`: every device of the host, usable.
fn all_devices(linux: &mut Linux) {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(true).set_access(Some("rwm".to_owned()));
    let mut resources = linux.resources().clone().unwrap_or_default();
    resources.set_devices(Some(vec![rule]));
    let mut devices = Vec::new();
    host_devices(Path::new("/dev"), 0, &mut devices);
    linux.set_resources(Some(resources)).set_devices(Some(devices));
}

/// Device nodes below a folder of /dev, but for those every container has of its own.
fn host_devices(folder: &Path, depth: u32, found: &mut Vec<LinuxDevice>) {
    const OWN: [&str; 12] =
        ["pts", "shm", "mqueue", "fd", "console", "ptmx", "null", "zero", "full", "random", "urandom", "tty"];
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let own = depth == 0 && entry.file_name().to_str().is_some_and(|name| OWN.contains(&name));
        let Ok(kind) = entry.file_type() else { continue };
        if own || found.len() > 4096 {
            continue;
        }
        if kind.is_dir() && depth < 4 {
            host_devices(&entry.path(), depth + 1, found);
        } else if kind.is_char_device() || kind.is_block_device() {
            found.extend(device(&entry.path(), &entry.path()));
        }
    }
}

/// A device node of the host as one of the container's.
pub(super) fn device(source: &Path, target: &Path) -> Option<LinuxDevice> {
    let meta = std::fs::metadata(source).ok()?;
    let kind = match meta.file_type() {
        kind if kind.is_char_device() => LinuxDeviceType::C,
        kind if kind.is_block_device() => LinuxDeviceType::B,
        _ => return None,
    };
    let mut device = LinuxDevice::default();
    device
        .set_path(target.to_owned())
        .set_typ(kind)
        .set_major(rustix::fs::major(meta.rdev()).into())
        .set_minor(rustix::fs::minor(meta.rdev()).into())
        .set_file_mode(Some(meta.mode() & 0o7777))
        .set_uid(Some(meta.uid()))
        .set_gid(Some(meta.gid()));
    Some(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(add: &[&str], drop: &[&str]) -> usize {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let spec = ContainerSpec { cap_add: list(add), cap_drop: list(drop), ..ContainerSpec::new("x") };
        capabilities(&spec).map_or(usize::MAX, |set| set.len())
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        assert_eq!(names(&[], &[]), 14);
        assert_eq!(names(&["net_admin"], &["CAP_CHOWN"]), 14);
        assert_eq!(names(&["NET_BIND_SERVICE"], &["ALL"]), 1);
        assert_eq!(names(&["ALL"], &["SYS_ADMIN"]), 40);
        assert_eq!(names(&["BOGUS"], &[]), usize::MAX);
    }
}
