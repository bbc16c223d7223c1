//! /dev/net/tun as Debian has it: everybody's. Some machines keep it to root.

use rustix::fs::{FlockOperation, flock};
use std::fs::{File, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;

const TUN: &str = "/dev/net/tun";
/// Holds the mode that was there before; its users hold it.
const USERS: &str = "/run/lock/ctr-test-tun";

/// While one of these is there, any user may open /dev/net/tun; then its mode is what it was.
pub struct OpenTun(File);

impl OpenTun {
    /// None: this machine has no such device.
    pub fn new() -> Option<OpenTun> {
        let mode = std::fs::metadata(TUN).ok()?.permissions().mode();
        let mut users = File::options().read(true).write(true).create(true).truncate(false).open(USERS).ok()?;
        if flock(&users, FlockOperation::NonBlockingLockExclusive).is_ok() {
            users.set_len(0).and_then(|()| users.write_all(format!("{mode:o}").as_bytes())).ok()?;
            std::fs::set_permissions(TUN, Permissions::from_mode(0o666)).ok()?;
        }
        flock(&users, FlockOperation::LockShared).ok()?;
        // Between the two locks the last user may have left.
        std::fs::set_permissions(TUN, Permissions::from_mode(0o666)).ok()?;
        Some(OpenTun(users))
    }
}

impl Drop for OpenTun {
    fn drop(&mut self) {
        let mut text = String::new();
        let last = flock(&self.0, FlockOperation::NonBlockingLockExclusive).is_ok();
        let read = self.0.rewind().and_then(|()| self.0.read_to_string(&mut text));
        if let (true, Ok(_), Ok(mode)) = (last, read, u32::from_str_radix(&text, 8)) {
            let _ = std::fs::set_permissions(TUN, Permissions::from_mode(mode & 0o777));
        }
    }
}
