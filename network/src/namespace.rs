//! Network namespaces: making one, and doing something inside of another one.
//!
//! Only the calling thread moves (that is how the kernel has it), and it is back before the function returns. In a user
//! namespace there is no way back into a network that is another's: there a forked child goes, and sends what it opened.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use linux::process::{Forked, Namespaces};

use nix::sched::CloneFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::error::{NetworkError, Result, during};

/// The calling thread's namespace.
const OWN: &str = "/proc/thread-self/ns/net";

fn own() -> Result<OwnedFd> {
    File::open(OWN).map(OwnedFd::from).map_err(during(|| format!("open {OWN}")))
}

fn enter(namespace: BorrowedFd<'_>) -> Result<()> {
    nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET)
        .map_err(io::Error::from)
        .map_err(during(|| "enter the network namespace".to_owned()))
}

/// Does `work` in the namespace.
pub(crate) fn inside<T>(namespace: BorrowedFd<'_>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let home = own()?;
    enter(namespace)?;
    let result = work();
    enter(home.as_fd())?;
    result
}

/// A new namespace in which `work` was done, of the user namespace `owner` or of this one. With an owner, and in a user
/// namespace, for single-threaded callers only.
pub(crate) fn create(owner: Option<BorrowedFd<'_>>, work: impl FnOnce() -> Result<()>) -> Result<OwnedFd> {
    if owner.is_some() || !linux::userns::is_initial() {
        let namespaces = if owner.is_some() { Namespaces::none() } else { Namespaces::NETWORK };
        let made = from_child(namespaces, || {
            if let Some(owner) = owner {
                become_owner(owner).map_err(|e| during(|| "make a network namespace".to_owned())(e.errno))?;
            }
            work().and_then(|()| Ok(vec![own()?]))
        })?;
        let none = || std::io::Error::other("it sent none");
        return made.into_iter().next().ok_or_else(none).map_err(during(|| "make a network namespace".to_owned()));
    }
    let home = own()?;
    nix::sched::unshare(CloneFlags::CLONE_NEWNET)
        .map_err(io::Error::from)
        .map_err(during(|| "make a network namespace".to_owned()))?;
    let result = own().and_then(|namespace| work().map(|()| namespace));
    enter(home.as_fd())?;
    result
}

/// In a child: root of a user namespace, in a new network namespace of its.
fn become_owner(user_namespace: BorrowedFd<'_>) -> std::result::Result<(), linux::CallError> {
    linux::process::join_namespace(user_namespace, Namespaces::USER)?;
    // The settings belong to its root.
    rustix::thread::set_thread_gid(rustix::process::Gid::ROOT)
        .and_then(|()| rustix::thread::set_thread_uid(rustix::process::Uid::ROOT))
        .map_err(|errno| linux::CallError::new("setresuid", "root of the user namespace", errno))?;
    linux::process::unshare(Namespaces::NETWORK)
}

/// The longest error that a child tells, in bytes.
const MAX_MESSAGE_BYTES: usize = 1024;

/// What `work` opens in a child that is born in new namespaces (or joins one itself).
pub(crate) fn from_child(namespaces: Namespaces, work: impl FnOnce() -> Result<Vec<OwnedFd>>) -> Result<Vec<OwnedFd>> {
    let failed = || "make a network namespace".to_owned();
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(during(failed))?;
    let child = match linux::process::fork_into(namespaces, None).map_err(|e| during(failed)(e.errno))? {
        Forked::Parent { pidfd, .. } => pidfd,
        Forked::Child => {
            let sent = match work() {
                Ok(opened) => {
                    let opened: Vec<_> = opened.iter().map(AsFd::as_fd).collect();
                    linux::socket::send_fds(&theirs, b"!", &opened)
                }
                Err(error) => {
                    let text = error.to_string();
                    let text = text.as_bytes();
                    linux::socket::send_fds(&theirs, text.get(..MAX_MESSAGE_BYTES).unwrap_or(text), &[])
                }
            };
            linux::process::exit_now(u8::from(sent.is_err()));
        }
    };
    drop(theirs);
    let mut message = [0; MAX_MESSAGE_BYTES];
    let received = linux::socket::receive_fds(&ours, &mut message);
    let reaped = linux::process::reap(child.as_fd());
    let (length, opened) = received.map_err(|e| during(failed)(e.errno))?;
    reaped.map_err(|e| during(failed)(e.errno))?;
    if opened.is_empty() {
        let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default()).into_owned();
        return Err(during(failed)(io::Error::other(text)));
    }
    Ok(opened)
}

/// Writes a setting of the calling thread's namespace (`/proc/sys/net` shows each reader its own).
pub(crate) fn write_setting(path: &str, value: &str) -> Result<()> {
    // Neither created nor truncated: a setting that this kernel lacks is an error.
    File::options()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|source| NetworkError::Kernel { operation: format!("write {value:?} to {path}"), source })
}
