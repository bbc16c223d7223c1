//! What a monitor is started with, and what it says once the container runs (or does not).

use super::presence::LastOut;
use crate::config::ContainerConfig;
use crate::protocol::Failure;
use network::{BridgeNetwork, PortSpec, UserNetwork};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// The format of these messages.
pub(crate) const MESSAGE_VERSION: u32 = 1;

/// Everything a monitor needs: it opens no database.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MonitorRequest {
    pub(crate) version: u32,
    pub(crate) config: ContainerConfig,
    /// The container's folder.
    pub(crate) folder: PathBuf,
    /// Where its socket goes.
    pub(crate) run_dir: PathBuf,
    /// Where the folder goes at the end, with `--rm`.
    pub(crate) trash: PathBuf,
    /// Folders of volumes that go too.
    pub(crate) anonymous_volumes: Vec<PathBuf>,
    /// The layers' `fs` folders, lowest first.
    pub(crate) layers: Vec<PathBuf>,
    pub(crate) cgroup: String,
    /// The parent of it, and of the one that monitors move to.
    pub(crate) cgroup_parent: String,
    pub(crate) last_out: Option<LastOut>,
    pub(crate) network: Option<NetworkRequest>,
    /// What connects an ordinary user's container instead.
    #[serde(default)]
    pub(crate) user_network: Option<UserNetwork>,
    /// Inits of the containers whose namespaces are joined.
    pub(crate) joined: Vec<(JoinedNamespace, i32)>,
    /// The folder whose hosts, hostname and resolv.conf are used: another container's with `--network container:X`.
    pub(crate) files: PathBuf,
    /// Where a rootless engine's monitor writes itself down.
    #[serde(default)]
    pub(crate) members: Option<PathBuf>,
    /// The first client is at the third descriptor.
    pub(crate) has_client: bool,
}

/// A namespace of another container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum JoinedNamespace {
    Network,
    Pid,
    Ipc,
    Uts,
}

/// The container's place in the default network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NetworkRequest {
    pub(crate) network: BridgeNetwork,
    pub(crate) address: Ipv4Addr,
}

/// The one answer to a [`MonitorRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The program runs.
    Started { pid: i32, warnings: Vec<String>, ports: Vec<PortSpec> },
    /// It does not, and nothing is left of the attempt.
    Failed { failure: Failure, taken_port: Option<u16> },
}
