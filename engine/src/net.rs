//! The engine's default network, and names of what is global on a machine: several data roots live side by side.

use crate::config::ContainerConfig;
use crate::monitor::presence::LastOut;
use crate::{Engine, EngineError, Result, State};
use ipnet::Ipv4Net;
use network::{BridgeNetwork, UserNetwork};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

/// The default network's name.
pub(crate) const DEFAULT_NETWORK: &str = "bridge";
/// The subnets that data roots have chosen since the machine started, a line each: subnet, blank, root.
const CLAIMS: &str = "/run/ctr-subnets";
/// The largest such file believed, in bytes.
const MAX_CLAIMS_BYTES: u64 = 1 << 20;

impl Engine {
    /// Empty for the default root, else six hex digits of its hash.
    pub(crate) fn tag(&self) -> &str {
        &self.tag
    }

    /// The cgroup under which this root's containers are.
    /// Empty: they have none of their own.
    pub(crate) fn cgroup_parent(&self) -> String {
        if self.config().rootless.is_some() {
            let place = crate::monitor::cgroups::delegated();
            return place.map(|place| format!("{}/ctr-{}", place.trim_end_matches('/'), self.tag)).unwrap_or_default();
        }
        if self.tag.is_empty() { "/ctr".to_owned() } else { format!("/ctr-{}", self.tag) }
    }

    /// A container's control group: below `--cgroup-parent`, else below that of the root.
    pub(crate) fn cgroup_of(&self, id: &str, config: Option<&ContainerConfig>) -> String {
        if self.config().rootless.is_some() {
            return match self.cgroup_parent() {
                parent if parent.is_empty() => parent,
                parent => format!("{parent}/{id}"),
            };
        }
        match config.and_then(|config| config.spec.cgroup_parent.as_ref()) {
            Some(parent) => format!("/{}/{id}", parent.trim_matches('/')),
            None => format!("{}/{id}", self.cgroup_parent()),
        }
    }

    /// The same of one that has run: it is where it was when it was started.
    pub(crate) fn recorded_cgroup(&self, id: &str, config: Option<&ContainerConfig>, state: &State) -> String {
        state.cgroup.clone().unwrap_or_else(|| self.cgroup_of(id, config))
    }

    /// Below which monitors and helpers move out of their callers' groups. Empty: they stay, for an ordinary user could not
    /// remove a group that he is in himself.
    pub(crate) fn monitors_parent(&self) -> String {
        if self.config().rootless.is_some() { String::new() } else { self.cgroup_parent() }
    }

    /// The folder of a container's socket.
    pub(crate) fn run_dir(&self, id: &str) -> PathBuf {
        self.config().state.join("containers").join(id)
    }

    /// What a monitor of a root that is not the default one removes, if it is the last.
    pub(crate) fn last_out(&self) -> Option<LastOut> {
        if self.tag.is_empty() {
            return None;
        }
        let network = self.store().network(DEFAULT_NETWORK).ok();
        Some(LastOut {
            lock: self.config().state.join("users.lock"),
            network: network.and_then(|row| serde_json::from_value(row.config).ok()),
            network_file: self.store().network_file(DEFAULT_NETWORK),
            cgroup_parent: self.cgroup_parent(),
        })
    }

    /// The programs that connect an ordinary user's containers.
    pub(crate) fn user_network(&self) -> UserNetwork {
        let find = |name| crate::rootless::find_program(&self.config().search_path, name);
        UserNetwork { pasta: find("pasta"), slirp4netns: find("slirp4netns") }
    }

    /// The default network, chosen at its first use.
    pub(crate) fn default_network(&self) -> Result<BridgeNetwork> {
        let parse = |config: serde_json::Value| {
            serde_json::from_value(config).map_err(|e| EngineError::Invalid(format!("network bridge: {e}")))
        };
        if let Ok(row) = self.store().network(DEFAULT_NETWORK) {
            return parse(row.config);
        }
        let made = BridgeNetwork::default_for(self.tag(), claim_subnet(self.root())?);
        let value = serde_json::to_value(&made).map_err(|e| EngineError::Invalid(e.to_string()))?;
        let row = self.store().network_or_create(DEFAULT_NETWORK, &mut |_| value.clone())?;
        parse(row.config)
    }
}

/// A subnet for this root that no other root has chosen: its bridge may not be there yet, so the host's routes alone do
/// not tell. Claims of roots that are gone are forgotten.
fn claim_subnet(root: &Path) -> Result<Ipv4Net> {
    let error = |e: io::Error| EngineError::io("choose a subnet with", CLAIMS, e);
    let open = File::options().read(true).write(true).create(true).truncate(false).open(CLAIMS);
    let mut file = open.map_err(error)?;
    file.lock().map_err(error)?;
    let mut text = String::new();
    (&file).take(MAX_CLAIMS_BYTES).read_to_string(&mut text).map_err(error)?;
    let claims = text.lines().filter_map(|line| {
        let (subnet, root) = line.split_once(' ')?;
        Some((subnet.parse::<Ipv4Net>().ok()?, root))
    });
    let mut claims: Vec<_> = claims.filter(|(_, holder)| Path::new(holder).exists()).collect();
    let taken: Vec<Ipv4Net> = claims.iter().map(|(subnet, _)| *subnet).collect();
    let chosen = network::choose_subnet(&taken)?;
    let holder = root.display().to_string();
    claims.push((chosen, &holder));
    let lines: String = claims.iter().map(|(subnet, holder)| format!("{subnet} {holder}\n")).collect();
    file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(lines.as_bytes())).map_err(error)?;
    Ok(chosen)
}

/// The tag of a root: its resolved path decides.
pub(crate) fn tag_of(root: &Path) -> String {
    if root == Path::new(crate::DEFAULT_ROOT) {
        return String::new();
    }
    let path = std::fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    if path == Path::new(crate::DEFAULT_ROOT) {
        return String::new();
    }
    let digest = oci::Digest::sha256(path.as_os_str().as_encoded_bytes());
    digest.hex().chars().take(6).collect()
}
