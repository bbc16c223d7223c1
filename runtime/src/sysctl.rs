//! Which kernel settings a container may have: only those that belong to a namespace it owns.

use crate::RuntimeError;
use oci_spec::runtime::LinuxNamespaceType;
use std::path::PathBuf;

/// Settings of the IPC namespace, as paths.
const IPC: &[&str] = &[
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
    "kernel/msg_next_id",
    "kernel/sem_next_id",
    "kernel/shm_next_id",
    "kernel/auto_msgmni",
];

/// The file of a setting beneath /proc/sys, if a container with its own namespaces of the kinds `own` may set it.
///
/// Dots separate, except that a name with a slash uses slashes (`net/ipv4/conf/eth0.100/rp_filter`).
pub(crate) fn file(name: &str, value: &str, own: impl Fn(LinuxNamespaceType) -> bool) -> Result<PathBuf, RuntimeError> {
    let refuse = |why: &str| Err(RuntimeError::Spec(format!("sysctl {name:?}: {why}")));
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/' | b'*');
    if name.is_empty() || name.len() > 255 || !name.bytes().all(plain) {
        return refuse("not a setting's name");
    }
    if value.len() > 4096 || value.bytes().any(|b| b == 0 || b == b'\n') {
        return refuse("its value must be one line");
    }
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return refuse("not a setting's name");
    }
    // The path decides, not the name: a folder may have dots in it, and `net./x` is not in `net`.
    let needs = if IPC.contains(&path.as_str()) || path.starts_with("fs/mqueue/") {
        LinuxNamespaceType::Ipc
    } else if path.starts_with("net/") {
        LinuxNamespaceType::Network
    } else if matches!(path.as_str(), "kernel/domainname" | "kernel/hostname") {
        LinuxNamespaceType::Uts
    } else {
        return refuse("it is not in any namespace, setting it would change the host");
    };
    if !own(needs) {
        return refuse("the container has no namespace of its own for it, setting it would change the host");
    }
    Ok(PathBuf::from("sys").join(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_a_namespace_holds_is_allowed() {
        let all = |name: &str, value: &str| file(name, value, |_| true).ok();
        assert_eq!(all("net.ipv4.ip_forward", "1"), Some("sys/net/ipv4/ip_forward".into()));
        assert_eq!(all("net/ipv4/conf/eth0.100/rp_filter", "1"), Some("sys/net/ipv4/conf/eth0.100/rp_filter".into()));
        assert_eq!(all("kernel.shmmax", "1"), Some("sys/kernel/shmmax".into()));
        for bad in [
            "kernel.core_pattern",
            "vm.swappiness",
            "net.../../kernel",
            "net/../kernel/core_pattern",
            "",
            "net.",
            "net./x",
            "fs/mqueue.x/y",
        ] {
            assert_eq!(all(bad, "1"), None, "{bad}");
        }
        assert_eq!(all("net.ipv4.ip_forward", "1\nkernel.core_pattern=x"), None);
        assert!(file("net.ipv4.ip_forward", "1", |_| false).is_err());
    }
    proptest! {
        #[test]
        fn no_name_leads_out_of_the_namespaces(name in "(net|kernel|fs|user|vm)?[./a-z_*-]{0,24}", value in ".{0,12}") {
            if let Ok(path) = file(&name, &value, |_| true) {
                let text = path.to_str().unwrap_or_default().to_owned();
                let allowed = ["sys/net/", "sys/fs/mqueue/", "sys/kernel/"];
                prop_assert!(allowed.iter().any(|folder| text.starts_with(folder)), "{}", text);
                prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))), "{}", text);
                prop_assert!(!value.contains('\n'));
            }
        }
    }
}
