//! Other engines with `ctr-runtime` in the place of runc: podman, buildah, docker's daemon, and containerd through its CRI
//! plugin as Kubernetes uses it. What they ask of a runtime, by which flags and files, is written down nowhere as surely as
//! in themselves.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // A test reports by panicking.
#![allow(clippy::print_stderr)]

mod buildah;
mod containerd;
mod cri;
mod docker;
mod podman;
mod sandbox;
