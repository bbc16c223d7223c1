//! The nfnetlink socket of a thread, kept open.
//!
//! Closing such a socket makes the kernel finish all pending removals of nftables objects in the namespace, whoever asked for them:
//! 8–24 ms of waiting for a grace period (measured) just after any container's ports were withdrawn. So a process that does
//! several things to the firewall does them over one socket and closes it when it ends, off everyone's path.

use std::cell::Cell;
use std::os::fd::OwnedFd;

use linux::CallError;
use linux::netlink::{NetlinkError, Socket};

/// A socket belongs to the namespace that it was made in; a thread may have gone to another one.
struct Kept {
    namespace: u64,
    socket: Socket,
}

thread_local! {
    static KEPT: Cell<Option<Kept>> = const { Cell::new(None) };
}

const OWN: &str = "/proc/thread-self/ns/net";

/// Does something with the thread's socket.
pub(crate) fn with<T>(work: impl FnOnce(&mut Socket) -> Result<T, NetlinkError>) -> Result<T, NetlinkError> {
    let namespace = rustix::fs::stat(OWN).map_err(|errno| CallError::path("stat", OWN, errno))?.st_ino;
    let mut socket = match KEPT.take().filter(|kept| kept.namespace == namespace) {
        Some(kept) => kept.socket,
        None => Socket::netfilter()?,
    };
    let result = work(&mut socket);
    // After a failure of the socket itself nobody knows what is still to come out of it.
    if matches!(result, Ok(_) | Err(NetlinkError::Refused { .. })) {
        KEPT.set(Some(Kept { namespace, socket }));
    }
    result
}

/// Takes the socket away from the thread, to be closed when there is time for it.
pub(crate) fn release() -> Option<OwnedFd> {
    KEPT.take().map(|kept| kept.socket.into())
}
