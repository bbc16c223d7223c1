//! A container's life: create, start, exec, logs, stop; the monitor.
//!
//! An [`Engine`] is a typed door to one data root: requests in, results and streams out. It keeps nothing in memory
//! between calls – the store and the containers' own files are the state – so any number of processes may each have one.

mod apparmor;
mod attach;
mod config;
mod create;
mod error;
mod exec;
mod export;
mod hidden;
mod idmap;
mod images;
mod inspect;
mod lifecycle;
mod list;
mod logs;
mod monitor;
mod mounts;
mod net;
mod ocispec;
mod protocol;
mod remove;
mod repair;
mod rootless;
mod spec;
mod start;
mod state;
mod step;
mod stubs;
mod top;
mod usage;

pub use apparmor::is_on as has_apparmor;
pub use attach::{AttachEvent, AttachOptions, Attached};
pub use create::Created;
pub use error::{EngineError, Result};
pub use exec::{ExecHandle, ExecRecord, ExecSpec};
pub use hidden::hidden_mode;
pub use images::{
    AttachRequest, Copied, CopyEvent, CopyRequest, CopyState, LayerInfo, LoginRequest, Place, PlaceError, Platforms,
    PullEvent, PullRequest, PullState, Pulled, PushEvent, PushRequest, PushState, Pushed, RegistrySettings,
};
pub use lifecycle::{ExitStatus, Started, TopTable, WaitCondition};
pub use list::{ContainerSummary, ListFilter};
pub use logs::{LogEntry, LogOptions, LogReader, LogStream};
pub use network::{PortRange, PortRequest, PortSpec, Protocol};
pub use registry_client::{Download, Kept, Validators, file_name_of};
pub use rootless::{Identity, Rootless, RootlessLimits, enter_user_namespace};
pub use spec::{
    ContainerSpec, DEFAULT_LOG_FILES, DEFAULT_LOG_SIZE_BYTES, DeviceSpec, LogConfig, MountKind, MountSpec,
    NamespaceMode, NetworkMode, Resources, RestartPolicy, Ulimit, UserNamespaceMode,
};
pub use state::{ProcessId, State, Status};
pub use step::{Cancel, StepMount, StepRequest, StepSource};
pub use usage::{DiskUsage, Usage};

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use store::{Store, StoreOptions};

/// Where an engine keeps its things. Everything that comes from the environment is read by the command line's owner.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Images, layers, containers, volumes: `/var/lib/ctr`.
    pub root: PathBuf,
    /// Additional stores, and how this one is kept.
    pub store: StoreOptions,
    /// Sockets and locks, gone after a reboot: `/run/ctr`.
    pub state: PathBuf,
    /// Where logins, certificates and proxies for registries come from.
    pub registries: RegistrySettings,
    /// For an ordinary user's engine; None: root's.
    pub rootless: Option<Rootless>,
    /// PATH: where helper programs (pasta, slirp4netns) are looked for.
    pub search_path: OsString,
}

/// The data root of root's own engine: the only one whose bridge, table and cgroup have plain names.
pub const DEFAULT_ROOT: &str = "/var/lib/ctr";
/// The state folder that goes with it.
pub const DEFAULT_STATE: &str = "/run/ctr";

impl EngineConfig {
    /// An engine in these two folders.
    pub fn new(root: impl Into<PathBuf>, state: impl Into<PathBuf>) -> EngineConfig {
        EngineConfig {
            root: root.into(),
            store: StoreOptions::default(),
            state: state.into(),
            registries: RegistrySettings::default(),
            rootless: None,
            search_path: OsString::new(),
        }
    }
}

/// A door to one data root.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    store: Store,
    tag: String,
}

impl Engine {
    /// Opens the data root; its folders are made where missing. Cheap: nothing is scanned.
    pub fn open(mut config: EngineConfig) -> Result<Engine> {
        config.store.refetch = Some(config.registries.refetch());
        let store = Store::open_with(&config.root, &config.store)?;
        let tag = net::tag_of(&config.root);
        Ok(Engine { config, store, tag })
    }

    /// What it was opened with.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// Images, layers, containers, volumes.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The data root.
    pub fn root(&self) -> &Path {
        &self.config.root
    }
}
