//! OCI's capability names as the kernel's numbers.

use linux::capability::Sets;
use oci_spec::runtime::{Capability, LinuxCapabilities};
use std::collections::HashSet;

/// Every capability, at the index that is its number (linux/capability.h).
pub const ALL: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// The 14 capabilities docker gives a container.
pub const DEFAULT: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// A capability by its name, with or without `CAP_`, in any case; `ALL` is not one.
pub fn by_name(name: &str) -> Option<Capability> {
    let name = name.to_ascii_uppercase();
    name.strip_prefix("CAP_").unwrap_or(&name).parse().ok()
}

/// The bit mask of a set.
pub(crate) fn mask(set: &HashSet<Capability>) -> u64 {
    (0..).zip(ALL).filter(|(_, capability)| set.contains(capability)).fold(0, |mask, (bit, _)| mask | 1 << bit)
}

/// The five sets of a process, cut to what the caller can grant, with warnings about the rest. A process that is given none
/// has none.
pub(crate) fn sets(wanted: Option<&LinuxCapabilities>, warnings: &mut Vec<String>) -> Sets {
    let Some(wanted) = wanted else { return Sets::default() };
    let of = |set: &Option<HashSet<Capability>>| set.as_ref().map_or(0, mask);
    let mut sets = Sets {
        bounding: of(wanted.bounding()),
        effective: of(wanted.effective()),
        permitted: of(wanted.permitted()),
        inheritable: of(wanted.inheritable()),
        ambient: of(wanted.ambient()),
    };
    let Ok(have) = linux::capability::current() else { return sets };
    let missing = (sets.bounding | sets.effective | sets.permitted) & !(have.bounding & have.permitted);
    if missing != 0 {
        let names: Vec<String> =
            (0..).zip(ALL).filter(|(bit, _)| missing & 1 << bit != 0).map(|(_, c)| format!("CAP_{c}")).collect();
        warnings.push(format!("can't grant {}: this process does not have it", names.join(", ")));
    }
    for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted, &mut sets.inheritable, &mut sets.ambient]
    {
        *set &= !missing;
    }
    // The kernel's own rules: effective within permitted, ambient within both permitted and inheritable.
    sets.effective &= sets.permitted;
    sets.ambient &= sets.permitted & sets.inheritable;
    sets
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree_with_the_kernel_header() {
        assert_eq!(mask(&HashSet::from([Capability::Chown])), 1);
        assert_eq!(mask(&HashSet::from([Capability::SysAdmin])), 1 << 21);
        assert_eq!(mask(&HashSet::from([Capability::CheckpointRestore])), 1 << 40);
        assert_eq!(mask(&HashSet::from(DEFAULT)), 0xa804_25fb);
        for name in ["net_admin", "CAP_NET_ADMIN", "cap_net_admin"] {
            assert_eq!(by_name(name), Some(Capability::NetAdmin));
        }
        assert_eq!(by_name("ALL"), None);
    }
}
