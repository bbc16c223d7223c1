//! What a user asks for: everything `run` and `create` accept, parsed and typed. It is kept in the container's
//! `config.json` as it came, so `inspect` and a later `start` see the same.

use network::{PortRequest, Protocol};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// A container as asked for. `ContainerSpec::new(image)` gives every option's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// The image as the user named it.
    pub image: String,
    /// Arguments after the image; None: the image's CMD.
    pub command: Option<Vec<String>>,
    /// `--entrypoint`; None: the image's; empty: cleared.
    pub entrypoint: Option<Vec<String>>,
    /// In the order given, the last of a name wins; None removes the image's variable of that name (`-e NAME` where the
    /// caller has no NAME).
    pub env: Vec<(String, Option<String>)>,
    /// `--name`; None: one is made up.
    pub name: Option<String>,
    /// `--hostname`; None: the first 12 digits of the id (or the host's own with `--network host`).
    pub hostname: Option<String>,
    /// `--domainname`.
    pub domainname: Option<String>,
    /// `-u user[:group]`.
    pub user: Option<String>,
    /// `-w`.
    pub workdir: Option<String>,
    /// `-t`.
    pub tty: bool,
    /// `-i`: standard input stays open.
    pub open_stdin: bool,
    /// Standard input closes when the first attached client's does (`-i` in the foreground).
    pub stdin_once: bool,
    /// Which streams the foreground command attached (`-a`), for `inspect`: stdin, stdout, stderr.
    pub attach: [bool; 3],
    /// `--network`.
    pub network: NetworkMode,
    /// `--network-alias`.
    pub network_aliases: Vec<String>,
    /// `--ip`.
    pub ip: Option<IpAddr>,
    /// `-p`.
    pub publish: Vec<PortRequest>,
    /// `-P`.
    pub publish_all: bool,
    /// `--expose`.
    pub expose: Vec<(u16, Protocol)>,
    /// `-v`, `--mount` and `--tmpfs`.
    pub mounts: Vec<MountSpec>,
    /// `--volumes-from`.
    pub volumes_from: Vec<String>,
    /// `-l`.
    pub labels: BTreeMap<String, String>,
    /// `--annotation`.
    pub annotations: BTreeMap<String, String>,
    /// `--restart`.
    pub restart: RestartPolicy,
    /// `--init`.
    pub init: bool,
    /// `--rm`.
    pub auto_remove: bool,
    /// `--read-only`.
    pub read_only: bool,
    /// `--privileged`.
    pub privileged: bool,
    /// `--cap-add`: names with or without `CAP_`, or `ALL`.
    pub cap_add: Vec<String>,
    /// `--cap-drop`.
    pub cap_drop: Vec<String>,
    /// `--security-opt`: `no-new-privileges`, `seccomp=unconfined`, …
    pub security_opt: Vec<String>,
    /// Limits.
    pub resources: Resources,
    /// `--ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// `--shm-size`, in bytes; None: 64 MiB.
    pub shm_size_bytes: Option<u64>,
    /// `--stop-signal`: a name or number; None: the image's, else SIGTERM.
    pub stop_signal: Option<String>,
    /// `--stop-timeout` in seconds; negative waits without end; None: the image's, else 10.
    pub stop_timeout: Option<i64>,
    /// `--dns`.
    pub dns: Vec<IpAddr>,
    /// `--dns-search`.
    pub dns_search: Vec<String>,
    /// `--dns-option`.
    pub dns_options: Vec<String>,
    /// `--add-host NAME:IP`, as given.
    pub add_hosts: Vec<String>,
    /// `--sysctl`.
    pub sysctls: BTreeMap<String, String>,
    /// `--device`.
    pub devices: Vec<DeviceSpec>,
    /// `--group-add`.
    pub group_add: Vec<String>,
    /// `--log-driver` and `--log-opt`.
    pub log: LogConfig,
    /// `--health-*` and `--no-healthcheck` (`["NONE"]`), laid over the image's field by field.
    pub healthcheck: Option<oci::Healthcheck>,
    /// `--pid`.
    pub pid: NamespaceMode,
    /// `--ipc`.
    pub ipc: NamespaceMode,
    /// `--uts`.
    pub uts: NamespaceMode,
    /// `--cgroupns`.
    pub cgroupns: NamespaceMode,
    /// `--userns`.
    pub userns: UserNamespaceMode,
    /// `--cgroup-parent`.
    pub cgroup_parent: Option<String>,
    /// `--oom-score-adj`.
    pub oom_score_adj: Option<i32>,
    /// `--platform`, as given.
    pub platform: Option<String>,
}

impl ContainerSpec {
    /// A container of this image with every option at its default.
    pub fn new(image: impl Into<String>) -> ContainerSpec {
        ContainerSpec { image: image.into(), ..ContainerSpec::default() }
    }
}

/// The network a container is in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// The default network, behind NAT.
    #[default]
    Bridge,
    /// Loopback alone.
    None,
    /// The host's own namespace.
    Host,
    /// Another container's namespace (`container:X`), by name or id.
    Container(String),
    /// A user network by name.
    Named(String),
}

impl std::str::FromStr for NetworkMode {
    type Err = std::convert::Infallible;

    /// `--network`'s text.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "" | "bridge" | "default" => NetworkMode::Bridge,
            "none" => NetworkMode::None,
            "host" => NetworkMode::Host,
            _ => match text.strip_prefix("container:") {
                Some(other) => NetworkMode::Container(other.to_owned()),
                None => NetworkMode::Named(text.to_owned()),
            },
        })
    }
}

impl std::fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NetworkMode::Bridge => f.write_str("bridge"),
            NetworkMode::None => f.write_str("none"),
            NetworkMode::Host => f.write_str("host"),
            NetworkMode::Container(other) => write!(f, "container:{other}"),
            NetworkMode::Named(name) => f.write_str(name),
        }
    }
}

/// Whose pid, ipc, uts or cgroup namespace a container uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceMode {
    /// A new one.
    #[default]
    Private,
    /// The host's.
    Host,
    /// Another container's, by name or id.
    Container(String),
}

/// Who a container's users are outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserNamespaceMode {
    /// The engine's own: root's are the machine's, an ordinary user's those that he was given.
    #[default]
    Host,
    /// A namespace in which the engine's user has the id that he has outside, or these.
    KeepId {
        /// His user id inside.
        uid: Option<u32>,
        /// His group id inside.
        gid: Option<u32>,
    },
    /// Ids that no other container has.
    Auto {
        /// How many.
        size: Option<u32>,
    },
}

impl std::str::FromStr for UserNamespaceMode {
    type Err = String;

    /// `--userns`'s text: `host`, `keep-id[:uid=N,gid=N]`, `auto[:size=N]`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (mode, options) = text.split_once(':').unwrap_or((text, ""));
        let unknown = || format!("invalid --userns {text:?}: use host, keep-id[:uid=N,gid=N] or auto[:size=N]");
        let mut values = BTreeMap::new();
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let (name, number) = option.split_once('=').ok_or_else(unknown)?;
            // The last number stands for "none" everywhere.
            let number = number.parse::<u32>().ok().filter(|n| *n != u32::MAX).ok_or_else(unknown)?;
            values.insert(name, number);
        }
        let mode = match mode {
            "" | "host" => UserNamespaceMode::Host,
            "keep-id" => UserNamespaceMode::KeepId { uid: values.remove("uid"), gid: values.remove("gid") },
            "auto" => UserNamespaceMode::Auto { size: values.remove("size") },
            _ => return Err(unknown()),
        };
        if values.is_empty() && mode != (UserNamespaceMode::Auto { size: Some(0) }) { Ok(mode) } else { Err(unknown()) }
    }
}

impl std::fmt::Display for UserNamespaceMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, options) = match self {
            UserNamespaceMode::Host => ("host", [None, None]),
            UserNamespaceMode::KeepId { uid, gid } => {
                ("keep-id", [uid.map(|n| format!("uid={n}")), gid.map(|n| format!("gid={n}"))])
            }
            UserNamespaceMode::Auto { size } => ("auto", [size.map(|n| format!("size={n}")), None]),
        };
        let options: Vec<String> = options.into_iter().flatten().collect();
        let colon = if options.is_empty() { "" } else { ":" };
        write!(f, "{name}{colon}{}", options.join(","))
    }
}

/// One `-v`, `--mount` or `--tmpfs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountSpec {
    /// What is mounted.
    pub kind: MountKind,
    /// A host path (bind, absolute), a volume's name (None: anonymous), an image, or nothing (tmpfs).
    pub source: Option<String>,
    /// Where in the container, absolute.
    pub target: String,
    /// Read-only.
    pub read_only: bool,
    /// `rprivate` (default), `shared`, `rslave`, …
    pub propagation: Option<String>,
    /// False: sub-mounts of a bind's source are left out.
    pub recursive: Option<bool>,
    /// A missing bind source is made (`-v`) instead of being an error (`--mount`).
    pub create_source: bool,
    /// An empty volume is not filled from the image.
    pub no_copy: bool,
    /// A folder within the volume or image.
    pub subpath: Option<String>,
    /// A tmpfs's size in bytes; None: half of the memory.
    pub tmpfs_size_bytes: Option<u64>,
    /// A tmpfs's mode; None: 1777.
    pub tmpfs_mode: Option<u32>,
    /// Further tmpfs options as given to `--tmpfs` (`noexec`, `uid=1`), or the volume's (`volume-opt`).
    pub options: Vec<String>,
}

/// What a mount shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A file or folder of the host.
    Bind,
    /// A volume.
    #[default]
    Volume,
    /// Memory.
    Tmpfs,
    /// An image's root, read-only.
    Image,
}

/// `--restart`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// After every exit that the user did not ask for, and after a reboot.
    Always,
    /// The same, but a stopped container stays stopped over a reboot.
    UnlessStopped,
    /// After a non-zero exit, at most this many times (0: without end).
    OnFailure(u32),
}

/// Limits. None or 0 is docker's default, which mostly means no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// `-m`, in bytes.
    pub memory_bytes: Option<u64>,
    /// `--memory-swap`: memory and swap together, in bytes; -1 unlimited.
    pub memory_swap_bytes: Option<i64>,
    /// `--memory-reservation`, in bytes.
    pub memory_reservation_bytes: Option<u64>,
    /// `--cpus`, in billionths of a core.
    pub nano_cpus: Option<u64>,
    /// `-c`.
    pub cpu_shares: Option<u64>,
    /// `--cpu-quota`, in microseconds a period.
    pub cpu_quota_us: Option<i64>,
    /// `--cpu-period`, in microseconds.
    pub cpu_period_us: Option<u64>,
    /// `--cpuset-cpus`.
    pub cpuset_cpus: Option<String>,
    /// `--cpuset-mems`.
    pub cpuset_mems: Option<String>,
    /// `--pids-limit`; -1 unlimited.
    pub pids_limit: Option<i64>,
    /// `--oom-kill-disable`.
    pub oom_kill_disable: bool,
    /// `--device-cgroup-rule`, as given.
    pub device_cgroup_rules: Vec<String>,
}

/// `--ulimit name=soft[:hard]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// `nofile`, `nproc`, …
    pub name: String,
    /// The soft limit; u64::MAX is unlimited.
    pub soft: u64,
    /// The hard limit.
    pub hard: u64,
}

/// `--device source[:target[:permissions]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// On the host.
    pub source: PathBuf,
    /// In the container.
    pub target: PathBuf,
    /// Out of `rwm`.
    pub permissions: String,
}

/// How output is logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogConfig {
    /// `json-file` (also for `local`) or `none`.
    pub driver: String,
    /// A file is rotated when it gets larger, in bytes; 0: never.
    pub max_size_bytes: u64,
    /// How many files are kept, the current one included.
    pub max_files: u32,
    /// The options as given, for `inspect`.
    pub options: BTreeMap<String, String>,
}

/// A log file's size before it is rotated, where the user says nothing.
pub const DEFAULT_LOG_SIZE_BYTES: u64 = 10_000_000;
/// How many log files are kept, where the user says nothing.
pub const DEFAULT_LOG_FILES: u32 = 3;

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            driver: "json-file".to_owned(),
            max_size_bytes: DEFAULT_LOG_SIZE_BYTES,
            max_files: DEFAULT_LOG_FILES,
            options: BTreeMap::new(),
        }
    }
}
