//! Idmapped mounts: a mount whose files belong to others than the disk says, by the mapping of a user namespace.

use crate::RuntimeError;
use crate::container::{end, map_ids};
use crate::mount_options::MountOptions;
use linux::process::{Forked, Namespaces};
use linux::{mount, resolve};
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, Mount};
use rustix::fs::OFlags;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// The source of an idmapped mount, mapped; None if the mount is none. Done by the caller: it takes privilege over the file
/// system, which the container's user namespace does not have.
pub(crate) fn source(
    wanted: &Mount,
    options: &MountOptions,
    container: Option<&Linux>,
) -> Result<Option<OwnedFd>, RuntimeError> {
    let refuse = |why: &str| RuntimeError::Spec(format!("idmapped mount {}: {why}", wanted.destination().display()));
    let of = |mappings: &Option<Vec<LinuxIdMapping>>| mappings.clone().unwrap_or_default();
    let (mut uids, mut gids) = (of(wanted.uid_mappings()), of(wanted.gid_mappings()));
    if options.id_map.is_none() && uids.is_empty() && gids.is_empty() {
        return Ok(None);
    }
    let is_bind = options.bind.is_some() || wanted.typ().as_deref() == Some("bind");
    let source =
        wanted.source().as_deref().filter(|_| is_bind).ok_or_else(|| refuse("only a bind mount can be one"))?;
    if uids.is_empty() != gids.is_empty() {
        return Err(refuse("uidMappings and gidMappings go together"));
    }
    let namespace = if uids.is_empty() {
        // The container's own mapping.
        match joined_user_namespace(container) {
            Some(path) => resolve::open_host(&path, OFlags::RDONLY)?,
            None => {
                (uids, gids) = container.map(|l| (of(l.uid_mappings()), of(l.gid_mappings()))).unwrap_or_default();
                if uids.is_empty() || gids.is_empty() {
                    return Err(refuse("it has no mappings, and the container has no user namespace"));
                }
                user_namespace(&uids, &gids)?
            }
        }
    } else {
        user_namespace(&uids, &gids)?
    };
    let tree = mount::clone_tree(source, options.bind == Some(true))?;
    mount::map_ids(tree.as_fd(), namespace.as_fd(), options.id_map == Some(true))
        .map_err(|e| refuse(&format!("{e} (the file system of {} may not support it)", source.display())))?;
    Ok(Some(tree))
}

fn joined_user_namespace(container: Option<&Linux>) -> Option<PathBuf> {
    let namespaces = container?.namespaces().as_deref()?;
    let user = namespaces.iter().find(|namespace| namespace.typ() == LinuxNamespaceType::User)?;
    user.path().clone().filter(|path| !path.as_os_str().is_empty())
}

/// A user namespace of this mapping in which nobody lives: the descriptor, and what is made by it, keep it.
///
/// Single-threaded callers only. Fails where this process may not map these ids.
pub fn user_namespace(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<OwnedFd, RuntimeError> {
    let (pid, pidfd) = match linux::process::fork_into(Namespaces::USER, None)? {
        Forked::Parent { pid, pidfd } => (pid, pidfd),
        Forked::Child => loop {
            let _ended_by_the_parent = linux::process::wait_signal();
        },
    };
    let path = PathBuf::from(format!("/proc/{}/ns/user", pid.as_raw_nonzero()));
    let namespace = map_ids(pid, uids, gids).and_then(|()| Ok(resolve::open_host(&path, OFlags::RDONLY)?));
    end(pidfd.as_fd());
    namespace
}
