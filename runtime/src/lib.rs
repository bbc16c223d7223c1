//! The OCI runtime: a container from a spec, a root and prepared file descriptors.
//!
//! [`create`] makes everything up to the point of executing the program, [`Created::start`] executes
//! it, [`exec`] adds a process. The caller is single-threaded (asserted): the container's init is a
//! plain fork of it that goes on in Rust.

mod attributes;
mod birth;
pub mod capabilities;
mod cgroup;
mod channel;
mod container;
mod defaults;
mod detach;
mod error;
mod exec;
pub mod hooks;
mod idmap;
mod init;
mod mount_options;
mod net_devices;
mod plan;
mod process;
mod program;
pub mod seccomp;
mod sysctl;
pub mod systemd;
mod user;

pub use cgroup::{Cgroup, CgroupStats};
pub use container::{
    CgroupRequest, CreateRequest, Created, MountSource, Root, Stdio, create, create_listening, start_over,
};
pub use defaults::{OCI_VERSION, capability_sets, default_spec};
pub use detach::{detach_root, joined_mount_namespace};
pub use error::RuntimeError;
pub use exec::{ExecRequest, Executed, exec};
pub use idmap::user_namespace;
pub use plan::check;
pub use user::{ResolvedUser, UserError, files_with_user, resolve_groups, resolve_user, resolve_user_in};
