//! The flags that `run` and `create` share. What they mean is in [`ContainerSpec`](engine::ContainerSpec); how they
//! become one stands in `container_spec`.

use clap::{ArgAction, Args};

/// The flags of `run` and `create`.
#[derive(Args, Debug, Clone)]
pub(crate) struct ContainerOptions {
    /// Assign a name to the container
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Keep standard input open even if not attached
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Remove the container and its anonymous volumes when it exits
    #[arg(long)]
    pub(crate) rm: bool,
    /// Publish a container's port to the host: [ip:][hostPort:]containerPort[/protocol]
    #[arg(short, long, value_name = "PORT")]
    pub(crate) publish: Vec<String>,
    /// Publish all exposed ports to random ports
    #[arg(short = 'P', long)]
    pub(crate) publish_all: bool,
    /// Expose a port or a range of ports
    #[arg(long, value_name = "PORT")]
    pub(crate) expose: Vec<String>,
    /// Set an environment variable, or take it from the caller's (NAME alone)
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<String>,
    /// Mount a folder of the host or a volume: [source:]target[:options]
    #[arg(short, long, value_name = "VOLUME")]
    pub(crate) volume: Vec<String>,
    /// Mount something: type=bind|volume|tmpfs|image,source=…,target=…[,readonly…]
    #[arg(long, value_name = "MOUNT")]
    pub(crate) mount: Vec<String>,
    /// Mount a tmpfs: target[:options]
    #[arg(long, value_name = "TARGET")]
    pub(crate) tmpfs: Vec<String>,
    /// Mount the volumes of another container
    #[arg(long, value_name = "CONTAINER")]
    pub(crate) volumes_from: Vec<String>,
    /// Connect to a network: bridge, none, host, container:NAME or a network's name
    #[arg(long, alias = "net", value_name = "NETWORK")]
    pub(crate) network: Option<String>,
    /// Add a name for the container on its network
    #[arg(long, alias = "net-alias", value_name = "NAME")]
    pub(crate) network_alias: Vec<String>,
    /// The container's IPv4 address
    #[arg(long, value_name = "IP")]
    pub(crate) ip: Option<std::net::Ipv4Addr>,
    /// The container's host name
    #[arg(short = 'h', long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// The container's NIS domain name
    #[arg(long, value_name = "NAME")]
    pub(crate) domainname: Option<String>,
    /// Run as this user: name|uid[:group|gid]
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Replace the image's ENTRYPOINT ("" clears it)
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Set a label
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) label: Vec<String>,
    /// Read labels from a file
    #[arg(long, value_name = "FILE")]
    pub(crate) label_file: Vec<String>,
    /// Add an annotation to the runtime's configuration
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) annotation: Vec<String>,
    /// When to restart: no, always, unless-stopped, on-failure[:max-retries]
    #[arg(long, value_name = "POLICY")]
    pub(crate) restart: Option<String>,
    /// Run an init inside that forwards signals and reaps processes
    #[arg(long)]
    pub(crate) init: bool,
    /// Write the container's id to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<std::path::PathBuf>,
    /// Pull the image before: always, missing, never
    #[arg(long, value_name = "WHEN", default_value = "missing", value_parser = ["always", "missing", "never"])]
    pub(crate) pull: String,
    /// Don't show the pull's progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Use the image's variant for a platform: os/arch[/variant]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// Give the container every privilege
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Add a Linux capability
    #[arg(long, value_name = "CAP")]
    pub(crate) cap_add: Vec<String>,
    /// Drop a Linux capability
    #[arg(long, value_name = "CAP")]
    pub(crate) cap_drop: Vec<String>,
    /// A security option: no-new-privileges, seccomp=FILE|unconfined, …
    #[arg(long, value_name = "OPTION")]
    pub(crate) security_opt: Vec<String>,
    /// Mount the container's root read-only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Add a line to /etc/hosts: name:ip
    #[arg(long, value_name = "NAME:IP")]
    pub(crate) add_host: Vec<String>,
    /// A name server
    #[arg(long, value_name = "IP")]
    pub(crate) dns: Vec<std::net::IpAddr>,
    /// A search domain
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) dns_search: Vec<String>,
    /// An option of resolv.conf
    #[arg(long, alias = "dns-opt", value_name = "OPTION")]
    pub(crate) dns_option: Vec<String>,
    /// Signal that stops the container
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<String>,
    /// Seconds from the stop signal to SIGKILL; -1 waits without end
    #[arg(long, value_name = "SECONDS")]
    pub(crate) stop_timeout: Option<i64>,
    /// A limit of the container's processes: name=soft[:hard]
    #[arg(long, value_name = "ULIMIT")]
    pub(crate) ulimit: Vec<String>,
    /// Set a kernel parameter: name=value
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) sysctl: Vec<String>,
    /// Add a device of the host: source[:target[:permissions]]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Vec<String>,
    /// Add a supplementary group
    #[arg(long, value_name = "GROUP")]
    pub(crate) group_add: Vec<String>,
    /// How output is kept: json-file, local, none
    #[arg(long, value_name = "DRIVER")]
    pub(crate) log_driver: Option<String>,
    /// An option of the log driver: max-size=10m, max-file=3
    #[arg(long, value_name = "OPTION")]
    pub(crate) log_opt: Vec<String>,
    /// The process namespace: host or container:NAME
    #[arg(long, value_name = "MODE")]
    pub(crate) pid: Option<String>,
    /// The IPC namespace: private, shareable, host or container:NAME
    #[arg(long, value_name = "MODE")]
    pub(crate) ipc: Option<String>,
    /// The UTS namespace: host
    #[arg(long, value_name = "MODE")]
    pub(crate) uts: Option<String>,
    /// The cgroup namespace: private or host
    #[arg(long, value_name = "MODE")]
    pub(crate) cgroupns: Option<String>,
    /// The user namespace: host, keep-id (its user has the id he has outside) or auto (ids that no other container has)
    #[arg(long, value_name = "MODE")]
    pub(crate) userns: Option<String>,
    /// Parent of the container's cgroup
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup_parent: Option<String>,
    /// Tune the host's OOM preference (-1000 to 1000)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    pub(crate) oom_score_adj: Option<i32>,
    /// Attach to standard streams only: stdin, stdout, stderr
    #[arg(short, long, value_name = "STREAM", value_parser = ["stdin", "stdout", "stderr"], ignore_case = true)]
    pub(crate) attach: Vec<String>,
    #[command(flatten)]
    pub(crate) limits: LimitOptions,
    #[command(flatten)]
    pub(crate) health: HealthOptions,
    #[command(flatten)]
    pub(crate) unsupported: UnsupportedOptions,
    /// Print this help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

/// What a container may use.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitOptions {
    /// Memory limit: a number with b, k, m or g
    #[arg(short, long, value_name = "BYTES", value_parser = super::units::parse_size)]
    pub(crate) memory: Option<u64>,
    /// Limit of memory and swap together; -1 is unlimited
    #[arg(long, value_name = "BYTES", value_parser = super::units::parse_size_or_unlimited)]
    pub(crate) memory_swap: Option<i64>,
    /// Soft memory limit
    #[arg(long, value_name = "BYTES", value_parser = super::units::parse_size)]
    pub(crate) memory_reservation: Option<u64>,
    /// Number of CPUs
    #[arg(long, value_name = "N", value_parser = super::units::parse_cpus)]
    pub(crate) cpus: Option<u64>,
    /// CPU shares (relative weight)
    #[arg(short, long, value_name = "N")]
    pub(crate) cpu_shares: Option<u64>,
    /// CPU time a period, in microseconds
    #[arg(long, value_name = "US")]
    pub(crate) cpu_quota: Option<i64>,
    /// Length of that period, in microseconds
    #[arg(long, value_name = "US")]
    pub(crate) cpu_period: Option<u64>,
    /// CPUs to run on: 0-3, 0,1
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes to use: 0-3, 0,1
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    /// Number of processes; -1 is unlimited
    #[arg(long, value_name = "N")]
    pub(crate) pids_limit: Option<i64>,
    /// Don't kill processes when memory runs out
    #[arg(long)]
    pub(crate) oom_kill_disable: bool,
    /// Add a rule to the list of allowed devices
    #[arg(long, value_name = "RULE")]
    pub(crate) device_cgroup_rule: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES", value_parser = super::units::parse_size)]
    pub(crate) shm_size: Option<u64>,
}

/// How a container's health is probed.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Health")]
pub(crate) struct HealthOptions {
    /// Command that checks the container's health
    #[arg(long, value_name = "COMMAND")]
    pub(crate) health_cmd: Option<String>,
    /// Time between checks
    #[arg(long, value_name = "DURATION", value_parser = super::units::parse_duration)]
    pub(crate) health_interval: Option<std::time::Duration>,
    /// Time a check may take
    #[arg(long, value_name = "DURATION", value_parser = super::units::parse_duration)]
    pub(crate) health_timeout: Option<std::time::Duration>,
    /// Time at the start in which failures don't count
    #[arg(long, value_name = "DURATION", value_parser = super::units::parse_duration)]
    pub(crate) health_start_period: Option<std::time::Duration>,
    /// Time between checks at the start
    #[arg(long, value_name = "DURATION", value_parser = super::units::parse_duration)]
    pub(crate) health_start_interval: Option<std::time::Duration>,
    /// Failures in a row until unhealthy
    #[arg(long, value_name = "N")]
    pub(crate) health_retries: Option<i64>,
    /// Don't check the container's health
    #[arg(long)]
    pub(crate) no_healthcheck: bool,
}

/// Docker's flags that don't work here: each is refused by name, none is passed over in silence.
#[derive(Args, Debug, Clone)]
pub(crate) struct UnsupportedOptions {
    /// Not supported yet
    #[arg(long, hide = true)]
    pub(crate) gpus: Option<String>,
    /// Not supported yet
    #[arg(long, hide = true)]
    pub(crate) ip6: Option<String>,
    /// Not supported yet
    #[arg(long, hide = true)]
    pub(crate) mac_address: Option<String>,
    /// Not supported yet
    #[arg(long, hide = true)]
    pub(crate) runtime: Option<String>,
    /// Not supported yet
    #[arg(long, hide = true)]
    pub(crate) link: Vec<String>,
    /// Not supported yet
    #[arg(long, hide = true)]
    pub(crate) blkio_weight: Option<String>,
    /// Not supported yet
    #[arg(long, hide = true)]
    pub(crate) storage_opt: Vec<String>,
    /// Not supported yet
    #[arg(long, hide = true)]
    pub(crate) volume_driver: Option<String>,
    /// Not supported yet
    #[arg(long, hide = true)]
    pub(crate) memory_swappiness: Option<String>,
    /// Not supported yet
    #[arg(long, hide = true)]
    pub(crate) isolation: Option<String>,
}

impl UnsupportedOptions {
    /// The first one that was given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let single = [
            ("--gpus", &self.gpus),
            ("--ip6", &self.ip6),
            ("--mac-address", &self.mac_address),
            ("--runtime", &self.runtime),
            ("--blkio-weight", &self.blkio_weight),
            ("--volume-driver", &self.volume_driver),
            ("--memory-swappiness", &self.memory_swappiness),
        ];
        let many = [("--link", &self.link), ("--storage-opt", &self.storage_opt)];
        let host = |v: &Option<String>, fine: &[&str]| v.as_deref().is_some_and(|v| !fine.contains(&v));
        if host(&self.isolation, &["", "default"]) {
            return Some("--isolation");
        }
        let first = single.iter().find(|(_, value)| value.is_some()).map(|(name, _)| *name);
        first.or_else(|| many.iter().find(|(_, value)| !value.is_empty()).map(|(name, _)| *name))
    }
}
