//! The engine's default network, and names of what is global on a machine: several data roots live side by side.

use crate::config::ContainerConfig;
use crate::monitor::presence::LastOut;
use crate::{Engine, EngineError, Result};
use network::BridgeNetwork;
use std::path::{Path, PathBuf};

/// The default network's name.
pub(crate) const DEFAULT_NETWORK: &str = "bridge";

impl Engine {
    /// Empty for the default root, else six hex digits of its hash.
    pub(crate) fn tag(&self) -> &str {
        &self.tag
    }

    /// The cgroup under which this root's containers are.
    pub(crate) fn cgroup_parent(&self) -> String {
        if self.tag.is_empty() { "/ctr".to_owned() } else { format!("/ctr-{}", self.tag) }
    }

    /// A container's control group: below `--cgroup-parent`, else below that of the root.
    pub(crate) fn cgroup_of(&self, id: &str, config: Option<&ContainerConfig>) -> String {
        match config.and_then(|config| config.spec.cgroup_parent.as_ref()) {
            Some(parent) => format!("/{}/{id}", parent.trim_matches('/')),
            None => format!("{}/{id}", self.cgroup_parent()),
        }
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
            cgroup_parent: self.cgroup_parent(),
        })
    }

    /// The default network, chosen at its first use.
    pub(crate) fn default_network(&self) -> Result<BridgeNetwork> {
        let parse = |config: serde_json::Value| {
            serde_json::from_value(config).map_err(|e| EngineError::Invalid(format!("network bridge: {e}")))
        };
        if let Ok(row) = self.store().network(DEFAULT_NETWORK) {
            return parse(row.config);
        }
        let made = BridgeNetwork::default_for(self.tag(), network::choose_subnet(&[])?);
        let value = serde_json::to_value(&made).map_err(|e| EngineError::Invalid(e.to_string()))?;
        let row = self.store().network_or_create(DEFAULT_NETWORK, &mut |_| value.clone())?;
        parse(row.config)
    }
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
