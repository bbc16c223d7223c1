//! Every unsafe block and raw system call of ctr, as small safe functions with named errors.

pub mod capability;
pub mod error;
pub mod mount;
pub mod process;
pub mod pty;
pub mod resolve;
pub mod seccomp;
pub mod selfexe;

pub use error::CallError;
