//! What `inspect` shows: docker's JSON of a container.

use crate::config::{ContainerConfig, MountPoint};
use crate::monitor::launch::UPPER;
use crate::monitor::log::LOG_FILE;
use crate::net::DEFAULT_NETWORK;
use crate::{
    Engine, MountKind, NamespaceMode, NetworkMode, PortSpec, RestartPolicy, Result, State, Status, UserNamespaceMode,
};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::net::{IpAddr, Ipv4Addr};
use store::ContainerRow;

/// Go's zero time, which docker shows for "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

impl Engine {
    /// Docker-shaped JSON: `Id`, `Created`, `Path`, `Args`, `State`, `Image`, `Name`, `HostConfig`, `Mounts`, `Config`,
    /// `NetworkSettings`, … With `sizes` also `SizeRw` and `SizeRootFs`, in bytes; these take a walk through what it wrote.
    pub fn inspect(&self, container: &str, sizes: bool) -> Result<Value> {
        let row = self.store().container(container)?;
        let folder = self.store().container_dir(&row.id);
        let state = self.observe(&row)?;
        let config = ContainerConfig::load(&folder)?;
        let network = match config.spec.network {
            NetworkMode::Bridge => self.default_network().ok(),
            _ => None,
        };
        let log_path = if config.spec.log.driver == "none" { None } else { Some(folder.join(LOG_FILE)) };
        let mut shown = json!({
            "Id": row.id,
            "Created": row.created.to_string(),
            "Path": config.argv.first(),
            "Args": config.argv.get(1..),
            "State": state_json(&state),
            "Image": config.image_id,
            "ResolvConfPath": folder.join("resolv.conf"),
            "HostnamePath": folder.join("hostname"),
            "HostsPath": folder.join("hosts"),
            "LogPath": log_path.unwrap_or_default(),
            "Name": format!("/{}", row.name),
            "RestartCount": state.restart_count,
            "Driver": "overlay",
            "Platform": "linux",
            "MountLabel": "",
            "ProcessLabel": "",
            "AppArmorProfile": crate::ocispec::apparmor_profile(&config.spec),
            "ExecIDs": null,
            "HostConfig": host_config(&config),
            "GraphDriver": { "Name": "overlay", "Data": {
                "LowerDir": self.lower_dirs(&row),
                "UpperDir": folder.join(UPPER),
            }},
            "Mounts": config.mounts.iter().map(mount_json).collect::<Vec<_>>(),
            "Config": container_config(&config),
            "NetworkSettings": network_settings(&config, &state, network.as_ref()),
        });
        if sizes {
            let written = store::folder_bytes(&folder.join(UPPER));
            let image = row.image.as_ref().map(|id| self.store().image(id.as_str())).transpose()?;
            shown["SizeRw"] = json!(written);
            shown["SizeRootFs"] = json!(written + image.map_or(0, |image| image.size));
        }
        Ok(shown)
    }

    fn lower_dirs(&self, row: &ContainerRow) -> String {
        let layers = self.store().container_layers(row).unwrap_or_default();
        layers.iter().rev().map(|path| path.display().to_string()).collect::<Vec<_>>().join(":")
    }
}

fn time(time: Option<Timestamp>) -> String {
    time.map_or(NEVER.to_owned(), |time| time.to_string())
}

fn state_json(state: &State) -> Value {
    json!({
        "Status": state.status.as_str(),
        "Running": state.status.is_active(),
        "Paused": state.status == Status::Paused,
        "Restarting": state.status == Status::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": state.status == Status::Dead,
        "Pid": state.init.filter(|_| state.status.is_active()).map_or(0, |init| init.pid),
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": time(state.started_at),
        "FinishedAt": time(state.finished_at),
        "MonitorPid": state.monitor.map_or(0, |monitor| monitor.pid),
    })
}

fn namespace(mode: &NamespaceMode, private: &str) -> String {
    match mode {
        NamespaceMode::Private => private.to_owned(),
        NamespaceMode::Host => "host".to_owned(),
        NamespaceMode::Container(other) => format!("container:{other}"),
    }
}

fn network_mode(mode: &NetworkMode) -> String {
    mode.to_string()
}

fn restart_json(policy: RestartPolicy) -> Value {
    let (name, count) = match policy {
        RestartPolicy::No => ("no", 0),
        RestartPolicy::Always => ("always", 0),
        RestartPolicy::UnlessStopped => ("unless-stopped", 0),
        RestartPolicy::OnFailure(count) => ("on-failure", count),
    };
    json!({ "Name": name, "MaximumRetryCount": count })
}

fn host_config(config: &ContainerConfig) -> Value {
    let spec = &config.spec;
    let binds: Vec<String> = config.mounts.iter().filter_map(bind_text).collect();
    let log_options = if spec.log.options.is_empty() {
        json!({ "max-size": spec.log.max_size_bytes.to_string(), "max-file": spec.log.max_files.to_string() })
    } else {
        json!(spec.log.options)
    };
    let mut json = json!({
        "Binds": if binds.is_empty() { Value::Null } else { json!(binds) },
        "ContainerIDFile": "",
        "LogConfig": { "Type": spec.log.driver, "Config": log_options },
        "NetworkMode": network_mode(&spec.network),
        "PortBindings": requested_ports(config),
        "RestartPolicy": restart_json(spec.restart),
        "AutoRemove": spec.auto_remove,
        "VolumesFrom": if spec.volumes_from.is_empty() { Value::Null } else { json!(spec.volumes_from) },
        "CapAdd": if spec.cap_add.is_empty() { Value::Null } else { json!(spec.cap_add) },
        "CapDrop": if spec.cap_drop.is_empty() { Value::Null } else { json!(spec.cap_drop) },
        "CgroupnsMode": namespace(&spec.cgroupns, "private"),
        "Dns": spec.dns,
        "DnsOptions": spec.dns_options,
        "DnsSearch": spec.dns_search,
        "ExtraHosts": if spec.add_hosts.is_empty() { Value::Null } else { json!(spec.add_hosts) },
        "GroupAdd": if spec.group_add.is_empty() { Value::Null } else { json!(spec.group_add) },
        "IpcMode": namespace(&spec.ipc, "private"),
        "OomScoreAdj": spec.oom_score_adj.unwrap_or(0),
        "PidMode": namespace(&spec.pid, ""),
        "Privileged": spec.privileged,
        "PublishAllPorts": spec.publish_all,
        "ReadonlyRootfs": spec.read_only,
        "SecurityOpt": if spec.security_opt.is_empty() { Value::Null } else { json!(spec.security_opt) },
        "Tmpfs": tmpfs_json(config),
        "UTSMode": namespace(&spec.uts, ""),
        "UsernsMode": if spec.userns == UserNamespaceMode::Host { String::new() } else { spec.userns.to_string() },
        "ShmSize": spec.shm_size_bytes.unwrap_or(64 << 20),
        "Sysctls": spec.sysctls,
        "Runtime": "ctr",
        "Isolation": "",
        "CgroupParent": spec.cgroup_parent.clone().unwrap_or_default(),
        "Init": spec.init,
    });
    if let (Value::Object(all), Value::Object(limits)) = (&mut json, limits_json(config)) {
        all.extend(limits);
    }
    json
}

/// The part of the host config that limits.
fn limits_json(config: &ContainerConfig) -> Value {
    let spec = &config.spec;
    let limits = &spec.resources;
    json!({
        "CpuShares": limits.cpu_shares.unwrap_or(0),
        "Memory": limits.memory_bytes.unwrap_or(0),
        "NanoCpus": limits.nano_cpus.unwrap_or(0),
        "CpuPeriod": limits.cpu_period_us.unwrap_or(0),
        "CpuQuota": limits.cpu_quota_us.unwrap_or(0),
        "CpusetCpus": limits.cpuset_cpus.clone().unwrap_or_default(),
        "CpusetMems": limits.cpuset_mems.clone().unwrap_or_default(),
        "Devices": spec.devices.iter().map(|d| json!({
            "PathOnHost": d.source, "PathInContainer": d.target, "CgroupPermissions": d.permissions,
        })).collect::<Vec<_>>(),
        "MemoryReservation": limits.memory_reservation_bytes.unwrap_or(0),
        "MemorySwap": limits.memory_swap_bytes.unwrap_or(0),
        "OomKillDisable": limits.oom_kill_disable,
        "PidsLimit": limits.pids_limit.map_or(Value::Null, |n| json!(n)),
        "Ulimits": spec.ulimits.iter().map(|u| json!({ "Name": u.name, "Soft": u.soft, "Hard": u.hard })).collect::<Vec<_>>(),
    })
}

/// `-v`'s text of a mount.
fn bind_text(mount: &MountPoint) -> Option<String> {
    let source = match mount.kind {
        MountKind::Bind => mount.source.display().to_string(),
        MountKind::Volume if !mount.anonymous => mount.name.clone()?,
        _ => return None,
    };
    let suffix = if mount.read_only { ":ro" } else { "" };
    Some(format!("{source}:{}{suffix}", mount.target))
}

fn tmpfs_json(config: &ContainerConfig) -> Value {
    let tmpfs = config.mounts.iter().filter(|mount| mount.kind == MountKind::Tmpfs);
    let map: Map<String, Value> =
        tmpfs.map(|mount| (mount.target.clone(), Value::String(mount.options.join(",")))).collect();
    if map.is_empty() { Value::Null } else { Value::Object(map) }
}

fn mount_json(mount: &MountPoint) -> Value {
    let kind = match mount.kind {
        MountKind::Bind => "bind",
        MountKind::Volume => "volume",
        MountKind::Tmpfs => "tmpfs",
        MountKind::Image => "image",
    };
    let mut json = json!({
        "Type": kind,
        "Source": mount.source,
        "Destination": mount.target,
        "Mode": if mount.read_only { "ro" } else { "" },
        "RW": !mount.read_only,
        "Propagation": match mount.kind {
            MountKind::Bind => mount.propagation.as_deref().unwrap_or("rprivate"),
            _ => "",
        },
    });
    if let (Some(map), Some(name)) = (json.as_object_mut(), &mount.name) {
        map.insert("Name".to_owned(), json!(name));
        map.insert("Driver".to_owned(), json!("local"));
    }
    json
}

fn container_config(config: &ContainerConfig) -> Value {
    let spec = &config.spec;
    let empty = |names: &mut dyn Iterator<Item = String>| -> Value {
        let map: Map<String, Value> = names.map(|name| (name, json!({}))).collect();
        if map.is_empty() { Value::Null } else { Value::Object(map) }
    };
    json!({
        "Hostname": config.hostname,
        "Domainname": spec.domainname.clone().unwrap_or_default(),
        "User": config.user,
        "AttachStdin": spec.attach[0],
        "AttachStdout": spec.attach[1],
        "AttachStderr": spec.attach[2],
        "ExposedPorts": empty(&mut config.exposed.iter().map(|(port, protocol)| format!("{port}/{protocol}"))),
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "StdinOnce": spec.stdin_once,
        "Env": config.env,
        "Cmd": config.cmd,
        "Healthcheck": config.healthcheck,
        "Image": spec.image,
        "Volumes": empty(&mut config.image_volumes.iter().cloned()),
        "WorkingDir": config.workdir,
        "Entrypoint": config.entrypoint,
        "OnBuild": null,
        "Labels": config.labels,
        "StopSignal": config.stop_signal,
        "StopTimeout": config.stop_timeout,
    })
}

fn host_ip_texts(address: Option<IpAddr>) -> Vec<String> {
    match address {
        Some(address) => vec![address.to_string()],
        None => vec!["0.0.0.0".to_owned(), "::".to_owned()],
    }
}

fn requested_ports(config: &ContainerConfig) -> Value {
    let mut map = Map::new();
    for port in &config.spec.publish {
        let host_port = match port.host_ports {
            None => String::new(),
            Some(range) if range.first == range.last => range.first.to_string(),
            Some(range) => format!("{}-{}", range.first, range.last),
        };
        let host_ip = port.host_ip.map_or(String::new(), |ip| ip.to_string());
        let entry = map.entry(format!("{}/{}", port.container_port, port.protocol)).or_insert_with(|| json!([]));
        if let Some(list) = entry.as_array_mut() {
            list.push(json!({ "HostIp": host_ip, "HostPort": host_port }));
        }
    }
    Value::Object(map)
}

fn ports_json(config: &ContainerConfig, published: &[PortSpec]) -> Value {
    let mut map: Map<String, Value> =
        config.exposed.iter().map(|(port, protocol)| (format!("{port}/{protocol}"), Value::Null)).collect();
    for port in published {
        let entry = map.entry(format!("{}/{}", port.container_port, port.protocol)).or_insert(Value::Null);
        if entry.is_null() {
            *entry = json!([]);
        }
        if let Some(list) = entry.as_array_mut() {
            let text = |ip| json!({ "HostIp": ip, "HostPort": port.host_port.to_string() });
            list.extend(host_ip_texts(port.host_ip).into_iter().map(text));
        }
    }
    Value::Object(map)
}

fn mac_text(address: Ipv4Addr) -> String {
    network::mac_address(address).map(|byte| format!("{byte:02x}")).join(":")
}

fn network_settings(config: &ContainerConfig, state: &State, network: Option<&network::BridgeNetwork>) -> Value {
    let address = state.address.filter(|_| state.status.is_active());
    let gateway = network.filter(|_| address.is_some()).map(|network| network.gateway.to_string()).unwrap_or_default();
    let prefix = network.filter(|_| address.is_some()).map_or(0, |network| network.subnet.prefix_len());
    let ip = address.map(|address| address.to_string()).unwrap_or_default();
    let mac = address.map(mac_text).unwrap_or_default();
    let endpoint = json!({
        "IPAMConfig": null,
        "Links": null,
        "Aliases": if config.spec.network_aliases.is_empty() { Value::Null } else { json!(config.spec.network_aliases) },
        "MacAddress": mac,
        "DriverOpts": null,
        "NetworkID": "",
        "EndpointID": "",
        "Gateway": gateway,
        "IPAddress": ip,
        "IPPrefixLen": prefix,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": null,
    });
    let name = match &config.spec.network {
        NetworkMode::Bridge => DEFAULT_NETWORK.to_owned(),
        NetworkMode::Container(_) => String::new(),
        other => other.to_string(),
    };
    let networks: Map<String, Value> =
        Some(name).filter(|name| !name.is_empty()).map(|name| (name, endpoint)).into_iter().collect();
    json!({
        "Bridge": network.map(|network| network.bridge.clone()).unwrap_or_default(),
        "SandboxID": "",
        "SandboxKey": state.init.map(|init| format!("/proc/{}/ns/net", init.pid)).unwrap_or_default(),
        "Ports": ports_json(config, &state.ports),
        "Gateway": gateway,
        "IPAddress": ip,
        "IPPrefixLen": prefix,
        "MacAddress": mac,
        "Networks": networks,
    })
}
