//! A container's `config.json`: image config × command line, merged once when it is made. What the image says later does
//! not matter to it any more.

use crate::idmap::IdMap;
use crate::{ContainerSpec, EngineError, MountKind, NetworkMode, Result};
use jiff::Timestamp;
use network::{PortRequest, Protocol, parse_expose};
use oci::{Healthcheck, ImageConfig};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The format of `config.json`.
pub(crate) const CONFIG_VERSION: u32 = 1;
/// Its name in the container's folder.
pub(crate) const CONFIG_FILE: &str = "config.json";
/// PATH where neither the image nor the user sets one.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Everything a container is started from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ContainerConfig {
    pub(crate) version: u32,
    pub(crate) id: String,
    pub(crate) created: Timestamp,
    /// `sha256:…`.
    pub(crate) image_id: String,
    /// Program and arguments, never empty.
    pub(crate) argv: Vec<String>,
    /// `NAME=value`, without what is only known at the start (HOSTNAME, HOME, TERM).
    pub(crate) env: Vec<String>,
    pub(crate) user: String,
    pub(crate) workdir: String,
    pub(crate) hostname: String,
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) cmd: Option<Vec<String>>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) stop_signal: String,
    pub(crate) stop_timeout: Option<i64>,
    pub(crate) exposed: Vec<(u16, Protocol)>,
    /// What is published: `-p`, and with `-P` all that is exposed.
    pub(crate) publish: Vec<PortRequest>,
    pub(crate) healthcheck: Option<Healthcheck>,
    /// Mount points that the image declares as volumes.
    pub(crate) image_volumes: Vec<String>,
    pub(crate) mounts: Vec<MountPoint>,
    /// In a user namespace of its own; its users' ids in the engine's.
    pub(crate) id_map: Option<IdMap>,
    pub(crate) spec: ContainerSpec,
}

/// A mount as it was worked out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct MountPoint {
    pub(crate) kind: MountKind,
    /// A volume's name.
    pub(crate) name: Option<String>,
    pub(crate) anonymous: bool,
    /// On the host; empty for a tmpfs.
    pub(crate) source: PathBuf,
    /// In the container.
    pub(crate) target: String,
    pub(crate) read_only: bool,
    pub(crate) propagation: Option<String>,
    pub(crate) recursive: bool,
    /// Options of a tmpfs.
    pub(crate) options: Vec<String>,
}

impl ContainerConfig {
    pub(crate) fn load(folder: &Path) -> Result<ContainerConfig> {
        let path = folder.join(CONFIG_FILE);
        let bytes = std::fs::read(&path).map_err(|e| EngineError::io("read", &path, e))?;
        serde_json::from_slice(&bytes).map_err(|e| EngineError::io("parse", &path, std::io::Error::from(e)))
    }

    /// The container's user and group as this process knows them.
    pub(crate) fn outside(&self, uid: u32, gid: u32) -> (u32, u32) {
        self.id_map.as_ref().map_or((uid, gid), |map| map.outside(uid, gid))
    }

    /// Names of volumes and sources of binds.
    pub(crate) fn mount_names(&self) -> Vec<String> {
        let name = |m: &MountPoint| m.name.clone().unwrap_or_else(|| m.source.display().to_string());
        self.mounts.iter().map(name).filter(|name| !name.is_empty()).collect()
    }

    /// Names of networks, as docker shows them.
    pub(crate) fn network_names(&self) -> Vec<String> {
        match &self.spec.network {
            NetworkMode::Container(_) => Vec::new(),
            mode => vec![mode.to_string()],
        }
    }
}

/// Lays the command line over the image's defaults. Mounts are left for [`crate::mounts`].
pub(crate) fn merge(id: &str, image_id: &str, image: &ImageConfig, spec: &ContainerSpec) -> Result<ContainerConfig> {
    let defaults = &image.config;
    let entrypoint = match &spec.entrypoint {
        Some(given) if given.iter().all(String::is_empty) => None,
        Some(given) => Some(given.clone()),
        None => defaults.entrypoint.clone().filter(|e| !e.is_empty()),
    };
    let cmd = match (&spec.command, &spec.entrypoint) {
        (Some(command), _) if !command.is_empty() => Some(command.clone()),
        (_, Some(_)) => None,
        (_, None) => defaults.cmd.clone().filter(|c| !c.is_empty()),
    };
    let argv: Vec<String> = entrypoint.iter().chain(&cmd).flatten().cloned().collect();
    if argv.first().is_none_or(String::is_empty) {
        return Err(EngineError::Invalid(
            "no command specified: the image has no CMD or ENTRYPOINT, so name the program to run".to_owned(),
        ));
    }
    let exposed = exposed_ports(image, spec)?;
    let mut labels = defaults.labels.clone();
    labels.extend(spec.labels.clone());
    let hostname = match (&spec.hostname, &spec.network) {
        (Some(name), _) => name.clone(),
        (None, NetworkMode::Host) => String::new(),
        (None, _) => id.chars().take(12).collect(),
    };
    let or_image = |given: &Option<String>, image: &str| given.clone().unwrap_or_else(|| image.to_owned());
    Ok(ContainerConfig {
        version: CONFIG_VERSION,
        id: id.to_owned(),
        created: Timestamp::now(),
        image_id: image_id.to_owned(),
        argv,
        env: merge_env(&defaults.env, &spec.env),
        user: or_image(&spec.user, &defaults.user),
        workdir: or_image(&spec.workdir, &defaults.working_dir),
        hostname,
        entrypoint,
        cmd,
        labels,
        stop_signal: spec.stop_signal.clone().or_else(|| defaults.stop_signal.clone()).unwrap_or("SIGTERM".to_owned()),
        stop_timeout: spec.stop_timeout.or(defaults.stop_timeout),
        publish: published_ports(&exposed, spec),
        exposed,
        healthcheck: merge_health(defaults.healthcheck.as_ref(), spec.healthcheck.as_ref()),
        image_volumes: defaults.volumes.keys().cloned().collect(),
        mounts: Vec::new(),
        id_map: None,
        spec: spec.clone(),
    })
}

/// The image's variables with the user's over them, each at its first place; PATH is always there.
pub(crate) fn merge_env(image: &[String], user: &[(String, Option<String>)]) -> Vec<String> {
    let mut merged: Vec<(String, Option<String>)> = vec![("PATH".to_owned(), Some(DEFAULT_PATH.to_owned()))];
    let image = image.iter().map(|line| {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        (name.to_owned(), Some(value.to_owned()))
    });
    for (name, value) in image.chain(user.iter().cloned()) {
        match merged.iter_mut().find(|(known, _)| *known == name) {
            Some(entry) => entry.1 = value,
            None => merged.push((name, value)),
        }
    }
    merged.into_iter().filter_map(|(name, value)| value.map(|value| format!("{name}={value}"))).collect()
}

fn exposed_ports(image: &ImageConfig, spec: &ContainerSpec) -> Result<Vec<(u16, Protocol)>> {
    let mut ports = BTreeSet::new();
    for text in image.config.exposed_ports.keys() {
        ports.extend(parse_expose(text).map_err(|e| EngineError::Invalid(format!("the image's config: {e}")))?);
    }
    ports.extend(spec.expose.iter().copied());
    ports.extend(spec.publish.iter().map(|p| (p.container_port, p.protocol)));
    Ok(ports.into_iter().collect())
}

fn published_ports(exposed: &[(u16, Protocol)], spec: &ContainerSpec) -> Vec<PortRequest> {
    let mut publish = spec.publish.clone();
    if spec.publish_all {
        let named: BTreeSet<_> = spec.publish.iter().map(|p| (p.container_port, p.protocol)).collect();
        publish.extend(exposed.iter().filter(|port| !named.contains(port)).map(|(port, protocol)| PortRequest {
            host_ip: None,
            host_ports: None,
            container_port: *port,
            protocol: *protocol,
        }));
    }
    publish
}

fn merge_health(image: Option<&Healthcheck>, user: Option<&Healthcheck>) -> Option<Healthcheck> {
    let (image, user) = match (image, user) {
        (None, user) => return user.cloned(),
        (Some(image), None) => return Some(image.clone()),
        (Some(image), Some(user)) => (image, user),
    };
    let or = |user: i64, image: i64| if user == 0 { image } else { user };
    Some(Healthcheck {
        test: if user.test.is_empty() { image.test.clone() } else { user.test.clone() },
        interval: or(user.interval, image.interval),
        timeout: or(user.timeout, image.timeout),
        start_period: or(user.start_period, image.start_period),
        start_interval: or(user.start_interval, image.start_interval),
        retries: or(user.retries, image.retries),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn image() -> ImageConfig {
        serde_json::from_value(serde_json::json!({
            "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
            "config": {
                "Env": ["A=1", "B=2"], "Entrypoint": ["/entry"], "Cmd": ["c1", "c2"], "User": "web", "WorkingDir": "/app",
                "ExposedPorts": {"80/tcp": {}}, "Labels": {"x": "image", "y": "image"}, "StopSignal": "SIGQUIT",
                "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5},
            },
        }))
        .unwrap()
    }

    fn merged(change: impl FnOnce(&mut ContainerSpec)) -> Result<ContainerConfig> {
        let mut spec = ContainerSpec::new("x");
        change(&mut spec);
        merge(&"a".repeat(64), "sha256:x", &image(), &spec)
    }

    fn words(text: &str) -> Option<Vec<String>> {
        Some(text.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn cmd_counts_only_where_neither_command_nor_entrypoint_is_given() {
        let argv = |entrypoint: Option<&str>, command: Option<&str>| {
            merged(|spec| {
                spec.entrypoint = entrypoint.and_then(words);
                spec.command = command.and_then(words);
            })
            .map(|config| config.argv.join(" "))
            .unwrap_or_else(|e| e.to_string())
        };
        assert_eq!(argv(None, None), "/entry c1 c2");
        assert_eq!(argv(None, Some("x y")), "/entry x y");
        assert_eq!(argv(Some("/mine"), None), "/mine");
        assert_eq!(argv(Some("/mine"), Some("x")), "/mine x");
        assert_eq!(argv(Some(""), Some("x")), "x");
        assert!(argv(Some(""), None).starts_with("no command specified"));
    }

    #[test]
    fn the_users_variables_win_and_may_remove() {
        let user = [("B", Some("3")), ("C", Some("")), ("A", None), ("C", Some("4"))];
        let user = user.map(|(n, v)| (n.to_owned(), v.map(str::to_owned)));
        let image = ["A=1".to_owned(), "B=2".to_owned(), "E".to_owned()];
        assert_eq!(merge_env(&image, &user), [&format!("PATH={DEFAULT_PATH}"), "B=3", "E=", "C=4"]);
        assert_eq!(merge_env(&["PATH=/x".to_owned()], &[]), ["PATH=/x"]);
    }

    #[test]
    fn unions_and_fallbacks() {
        let config = merged(|spec| {
            spec.labels.insert("y".into(), "user".into());
            spec.expose = vec![(53, Protocol::Udp)];
            spec.publish_all = true;
            spec.healthcheck = Some(Healthcheck { retries: 7, ..Healthcheck::default() });
        })
        .unwrap();
        assert_eq!(config.labels["x"], "image");
        assert_eq!(config.labels["y"], "user");
        assert_eq!(config.exposed, [(53, Protocol::Udp), (80, Protocol::Tcp)]);
        assert_eq!(config.publish.len(), 2);
        assert_eq!((config.user.as_str(), config.workdir.as_str()), ("web", "/app"));
        assert_eq!(config.stop_signal, "SIGQUIT");
        let health = config.healthcheck.unwrap();
        assert_eq!((health.interval, health.retries, health.test.len()), (5, 7, 2));
        assert_eq!(config.hostname, "aaaaaaaaaaaa");
    }
}
