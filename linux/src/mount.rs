//! The new mount API: every mount is made detached, as a file descriptor, and attached to a file
//! descriptor – no path is resolved twice, so nothing can be swapped in between.
#![allow(clippy::todo)]

use crate::CallError;
use std::os::fd::{BorrowedFd, OwnedFd};

/// What an overlay mount asks for beside its folders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OverlayOptions {
    /// Mount read-only even though there is an upper folder.
    pub read_only: bool,
    /// `userxattr`: overlay's own marks in `user.overlay.*`, for mounts in a user namespace.
    pub user_xattr: bool,
    /// `volatile`: no syncs; for roots that are thrown away.
    pub volatile: bool,
}

/// A detached overlay mount. `lowers` are O_PATH descriptors of folders, **lowest layer first** as the
/// image lists them; `upper` is (upperdir, workdir), None makes a read-only view.
pub fn overlay(
    lowers: &[BorrowedFd<'_>],
    upper: Option<(BorrowedFd<'_>, BorrowedFd<'_>)>,
    options: OverlayOptions,
) -> Result<OwnedFd, CallError> {
    let _ = (lowers, upper, options);
    todo!()
}
