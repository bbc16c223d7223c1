//! Network namespaces: making one, and doing something inside of another one.
//!
//! Only the calling thread moves (that is how the kernel has it), and it is back before the function returns.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::CloneFlags;

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

/// A new namespace in which `work` was done.
pub(crate) fn create(work: impl FnOnce() -> Result<()>) -> Result<OwnedFd> {
    let home = own()?;
    nix::sched::unshare(CloneFlags::CLONE_NEWNET)
        .map_err(io::Error::from)
        .map_err(during(|| "make a network namespace".to_owned()))?;
    let result = own().and_then(|namespace| work().map(|()| namespace));
    enter(home.as_fd())?;
    result
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
