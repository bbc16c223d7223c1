//! Every unsafe block and raw system call of ctr, as small safe functions with named errors.

pub mod bpf;
pub mod capability;
pub mod copy;
pub mod error;
pub mod file;
pub mod memory;
pub mod mount;
pub mod netlink;
mod overlay;
pub mod process;
pub mod procfs;
pub mod pty;
pub mod resolve;
pub mod schedule;
pub mod seccomp;
pub mod selfexe;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod terminal;
pub mod userns;

pub use error::CallError;
