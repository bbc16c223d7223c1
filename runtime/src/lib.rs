//! The OCI runtime: a container from a spec, a root and prepared file descriptors.
