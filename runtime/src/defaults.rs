//! Docker's defaults of a container, as a spec.

use crate::{capabilities, seccomp};
use oci_spec::runtime::{
    Capability, Linux, LinuxCapabilities, LinuxDeviceCgroup, LinuxDeviceType, LinuxNamespace, LinuxNamespaceType,
    LinuxResources, Mount, Process, Root, Spec, User,
};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// The version of the runtime-spec this is made to.
pub const OCI_VERSION: &str = "1.3.0";

const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const NAMESPACES: &[LinuxNamespaceType] = &[
    LinuxNamespaceType::Mount,
    LinuxNamespaceType::Uts,
    LinuxNamespaceType::Ipc,
    LinuxNamespaceType::Pid,
    LinuxNamespaceType::Network,
    LinuxNamespaceType::Cgroup,
];

/// Destination, type, source, options.
const MOUNTS: &[(&str, &str, &str, &[&str])] = &[
    ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]),
    ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
];

/// Type, major, minor, access of the devices a container may use; none it may make but not use is of harm.
const DEVICES: &[(LinuxDeviceType, Option<i64>, Option<i64>, &str)] = &[
    (LinuxDeviceType::C, None, None, "m"),
    (LinuxDeviceType::B, None, None, "m"),
    (LinuxDeviceType::C, Some(1), Some(3), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(5), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(7), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(8), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(9), "rwm"),
    (LinuxDeviceType::C, Some(5), Some(0), "rwm"),
    (LinuxDeviceType::C, Some(5), Some(1), "rwm"),
    (LinuxDeviceType::C, Some(5), Some(2), "rwm"),
    (LinuxDeviceType::C, Some(136), None, "rwm"),
];

/// What docker gives a container nobody said anything about: 14 capabilities, masked and read-only paths, mounts,
/// namespaces, devices, sysctls and the seccomp profile. To be edited by the engine.
pub fn default_spec() -> Spec {
    let capabilities = HashSet::from(capabilities::DEFAULT);
    let mut root = Root::default();
    root.set_path("rootfs".into()).set_readonly(None);
    let mut spec = Spec::default();
    spec.set_version(OCI_VERSION.to_owned())
        .set_root(Some(root))
        .set_process(Some(default_process(&capabilities)))
        .set_hostname(None)
        .set_mounts(Some(MOUNTS.iter().map(|(to, kind, from, options)| mount(to, kind, from, options)).collect()))
        .set_linux(Some(default_linux(&capabilities)));
    spec
}

fn default_process(capabilities: &HashSet<Capability>) -> Process {
    let mut process = Process::default();
    process
        .set_user(User::default())
        .set_args(Some(vec!["sh".to_owned()]))
        .set_env(Some(vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()]))
        .set_cwd("/".into())
        .set_capabilities(Some(capability_sets(capabilities)))
        .set_rlimits(None)
        .set_no_new_privileges(None);
    process
}

/// The five sets of a process with these capabilities: inheritable and ambient stay empty (CVE-2022-29162).
pub fn capability_sets(capabilities: &HashSet<Capability>) -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(capabilities.clone()))
        .set_effective(Some(capabilities.clone()))
        .set_permitted(Some(capabilities.clone()))
        .set_inheritable(None)
        .set_ambient(None);
    sets
}

fn default_linux(capabilities: &HashSet<Capability>) -> Linux {
    let namespace = |kind: &LinuxNamespaceType| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(*kind);
        namespace
    };
    let mut resources = LinuxResources::default();
    // Nothing beside those of every container.
    resources.set_devices(Some(vec![device_rule(false, None, None, None, "rwm")]));
    let masked = MASKED.iter().map(|path| (*path).to_owned()).chain(thermal_throttles()).collect();
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(NAMESPACES.iter().map(namespace).collect()))
        .set_resources(Some(resources))
        .set_masked_paths(Some(masked))
        .set_readonly_paths(Some(READ_ONLY.iter().map(|path| (*path).to_owned()).collect()))
        .set_sysctl(Some(HashMap::from([
            ("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned()),
            ("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned()),
        ])))
        .set_seccomp(Some(seccomp::default_profile(capabilities)));
    linux
}

/// The devices every container may use, whatever its spec says: what the runtime itself makes in /dev, and making nodes
/// that can't be used.
pub(crate) fn device_rules() -> Vec<LinuxDeviceCgroup> {
    DEVICES.iter().map(|(kind, major, minor, access)| device_rule(true, Some(*kind), *major, *minor, access)).collect()
}

fn device_rule(
    allow: bool,
    kind: Option<LinuxDeviceType>,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow).set_typ(kind).set_major(major).set_minor(minor).set_access(Some(access.to_owned()));
    rule
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(destination.into())
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.into()))
        .set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
    mount
}

/// Each CPU's throttling counters tell one container about the load of another; only some machines have them.
fn thermal_throttles() -> Vec<String> {
    let path = |cpu: usize| format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle");
    if !Path::new(&path(0)).exists() {
        return Vec::new();
    }
    (0..4096).map(path).take_while(|path| Path::new(path).exists()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_default_survives_a_round_trip() {
        let spec = default_spec();
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), spec);
        let capabilities = spec.process().as_ref().unwrap().capabilities().as_ref().unwrap();
        assert_eq!(capabilities.bounding().as_ref().unwrap().len(), 14);
        assert_eq!((capabilities.inheritable(), capabilities.ambient()), (&None, &None));
    }
}
