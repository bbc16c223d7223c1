//! System call filters: docker's default profile, and a compiler from OCI's form to BPF. Our own, because libseccomp takes
//! 20 ms for this profile: here numbers with the same answer are joined into ranges and found by bisection.

mod compile;
mod filter;
mod numbers;
mod profile;

pub use compile::{Compiled, compile};
pub(crate) use filter::Filter;
pub use profile::default_profile;

/// Answers of a filter that denies.
mod errno {
    /// EPERM: the default.
    pub(super) const NOT_PERMITTED: u32 = 1;
    /// ENOSYS: for calls younger than the profile, so that programs fall back to older ones.
    pub(super) const NO_SYSCALL: u32 = 38;
}
