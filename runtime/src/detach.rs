//! A root in somebody else's mount namespace: there it was mounted over its own folder, with all that a container has mounted,
//! and nothing of that goes with the container's last process, as it does in a namespace of its own.

use crate::RuntimeError;
use linux::process::{Forked, Namespaces};
use linux::resolve;
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::fs::OFlags;
use std::os::fd::AsFd;
use std::path::Path;

fn joined(spec: &Spec) -> Option<&Path> {
    let namespaces = spec.linux().as_ref()?.namespaces().as_deref()?;
    let mount = namespaces.iter().find(|namespace| namespace.typ() == LinuxNamespaceType::Mount)?;
    mount.path().as_deref().filter(|path| !path.as_os_str().is_empty())
}

/// Which mount namespace a container joins, if it does: for [`detach_root`].
pub fn joined_mount_namespace(spec: &Spec) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    Some(std::fs::metadata(joined(spec)?).ok()?.ino())
}

/// Takes the mounts of a container that has ended out of the mount namespace it had joined, if that is `namespace` still and
/// not another one that goes by the same path now. Single-threaded callers only.
pub fn detach_root(spec: &Spec, rootfs: &Path, namespace: u64) -> Result<(), RuntimeError> {
    let Some(path) = joined(spec) else { return Ok(()) };
    let Ok(file) = resolve::open_host(path, OFlags::RDONLY) else { return Ok(()) };
    let is_same = rustix::fs::fstat(&file).is_ok_and(|found| found.st_ino == namespace);
    if !is_same {
        return Ok(());
    }
    match linux::process::fork_into(Namespaces::none(), None)? {
        Forked::Child => {
            let joined = linux::process::join_namespace(file.as_fd(), Namespaces::MOUNT);
            let detached = joined.is_ok() && linux::mount::unmount_lazily(rootfs).is_ok();
            linux::process::exit_now(u8::from(!detached))
        }
        Forked::Parent { pidfd, .. } => match linux::process::reap(pidfd.as_fd())? {
            0 => Ok(()),
            _ => Err(RuntimeError::Init(format!("its mounts below {} stay in {}", rootfs.display(), path.display()))),
        },
    }
}
