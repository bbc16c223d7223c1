//! What the end-to-end tests share, so that a test reads as a user would say it:
//!
//! ```no_run
//! use test_support::TestEnv;
//!
//! let env = TestEnv::new();
//! env.ctr("run --rm busybox echo hello").ok().prints("hello");
//! env.ctr("run --rm busybox sh -c 'exit 3'").fails(3);
//! env.ctr("run nothing:here").fails(125).says("No such image");
//! ```
//!
//! Every [`TestEnv`] is an engine of its own – its own data root, state, bridge, nftables table and
//! cgroup parent – so tests run side by side. Dropping it removes every container and then looks for
//! what was left behind: a leak fails the test that made it.
//!
//! Nothing here waits for a fixed time. What can be awaited is awaited ([`Running::line`],
//! [`Terminal::expect`], pidfds); what has no event is asked again until a deadline ([`eventually`]).

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // A test helper reports by panicking.
#![allow(clippy::print_stderr)]

mod args;
mod env;
mod finished;
pub mod http;
mod leaks;
mod network;
mod registry;
mod running;
mod terminal;
mod tun;
mod user;
mod wait;

pub use args::IntoArgs;
pub use env::{Invocation, TestEnv, base_image};
pub use finished::Finished;
pub use leaks::{Leaks, cgroup_mounts, links};
pub use network::{Namespace, http_get, http_try, udp_ask};
pub use registry::{Registry, RegistryKind};
pub use running::Running;
pub use terminal::Terminal;
pub use tun::OpenTun;
pub use user::TestUser;
pub use wait::{PATIENCE, eventually, wait_for_exit};

use std::path::PathBuf;

/// The top of the source tree.
pub fn source_root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the source tree is there")
}

/// The `ctr` under test: `$CTR_BIN`, else the one that cargo built beside the test
/// (`target/<triple>/<profile>/ctr`; the test itself lies in `deps/` there).
pub fn ctr_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("CTR_BIN") {
        return PathBuf::from(path);
    }
    beside_the_test("ctr", "CTR_BIN")
}

/// The `ctr-runtime` under test: `$CTR_RUNTIME_BIN`, else the one that cargo built beside the test (`-p runtime`).
pub fn runtime_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("CTR_RUNTIME_BIN") {
        return PathBuf::from(path);
    }
    beside_the_test("ctr-runtime", "CTR_RUNTIME_BIN")
}

fn beside_the_test(name: &str, variable: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("tests lie in <profile>/deps");
    let binary = profile.join(name);
    assert!(binary.exists(), "{} is missing: build it, or name another by {variable}", binary.display());
    binary
}
