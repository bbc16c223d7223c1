//! Users and groups out of the container's own /etc/passwd and /etc/group.

use oci::UserSpec;
use std::os::fd::BorrowedFd;

/// Who a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// The groups that list the user as a member (none where the group was given).
    pub additional_gids: Vec<u32>,
    /// Home from passwd; `/` if the user has no line there.
    pub home: String,
}

/// Why a user could not be resolved.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UserError {
    /// A name without a line in passwd.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// A name without a line in group.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// A file is there but can't be read.
    #[error("read {path} in the container: {reason}")]
    Unreadable {
        /// The file in the container.
        path: &'static str,
        /// Why.
        reason: String,
    },
}

/// Resolves `user[:group]` with the files beneath `root`.
pub fn resolve_user(root: BorrowedFd<'_>, user: &UserSpec) -> Result<ResolvedUser, UserError> {
    let _ = (root, user);
    todo!()
}

/// Resolves `--group-add` values: numbers, or names in the container's /etc/group.
pub fn resolve_groups(root: BorrowedFd<'_>, groups: &[String]) -> Result<Vec<u32>, UserError> {
    let _ = (root, groups);
    todo!()
}
