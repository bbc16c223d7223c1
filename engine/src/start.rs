//! `start`: a monitor for a container that has none.

use crate::attach::{Control, socket_pair};
use crate::config::ContainerConfig;
use crate::idmap;
use crate::monitor::request::{JoinedNamespace, MESSAGE_VERSION, MonitorRequest, NetworkRequest, Report};
use crate::net::DEFAULT_NETWORK;
use crate::{
    AttachOptions, Attached, Engine, EngineError, NamespaceMode, NetworkMode, Result, Started, Status, hidden, protocol,
};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use store::{ContainerRow, Lock};

impl Engine {
    /// Starts a container that does not run; a running one is left as it is (and attached to if asked).
    pub fn start(&self, container: &str, attach: Option<AttachOptions>) -> Result<Started> {
        let row = self.store().container(container)?;
        let Some(lock) = self.lock_to_start(&row)? else {
            let attached = attach.map(|options| self.attach(&row.id, options)).transpose()?;
            return Ok(Started { id: row.id, attached, warnings: Vec::new() });
        };
        let config = ContainerConfig::load(&self.store().container_dir(&row.id))?;
        Engine::check_mounts(&config)?;
        self.clear_leftovers(&row.id)?;
        let mut request = self.monitor_request(&row, config, attach.is_some())?;
        let mut warnings = self.map_layers(&row, &mut request)?;
        let (attached, client) = match attach {
            None => (None, None),
            Some(options) => {
                let (ours, theirs) = socket_pair()?;
                let attached = Attached::new(ours, Control::Monitor(self.socket_path(&row.id)));
                attached.announce(options)?;
                (Some(attached), Some(theirs))
            }
        };
        warnings.extend(self.run_monitor(&row, &request, lock, client)?);
        Ok(Started { id: row.id, attached, warnings })
    }

    /// The container's lock, or None where it runs already.
    fn lock_to_start(&self, row: &ContainerRow) -> Result<Option<Lock>> {
        loop {
            if let Some(lock) = self.store().try_lock_container(&row.id)? {
                // The record may be stale; who holds the lock may mend it.
                self.repair_locked(row)?;
                return Ok(Some(lock));
            }
            match self.observe(row)?.status {
                Status::Paused => {
                    return Err(EngineError::State("cannot start a paused container, try unpause instead".to_owned()));
                }
                status if status.is_active() => return Ok(None),
                // Somebody starts or clears it this moment.
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn monitor_request(&self, row: &ContainerRow, config: ContainerConfig, has_client: bool) -> Result<MonitorRequest> {
        let folder = self.store().container_dir(&row.id);
        let rootless = self.config().rootless.is_some();
        let (network, user_network) = match config.spec.network {
            NetworkMode::Bridge if rootless => (None, Some(self.user_network())),
            NetworkMode::Bridge => (Some(self.network_request(&row.id, &config)?), None),
            _ => (None, None),
        };
        let mut files = folder.clone();
        let mut joined = Vec::new();
        if let NetworkMode::Container(other) = &config.spec.network {
            joined.push((JoinedNamespace::Network, self.init_of(other)?));
            files = self.store().container_dir(other);
        }
        for (kind, mode) in [
            (JoinedNamespace::Pid, &config.spec.pid),
            (JoinedNamespace::Ipc, &config.spec.ipc),
            (JoinedNamespace::Uts, &config.spec.uts),
        ] {
            if let NamespaceMode::Container(other) = mode {
                joined.push((kind, self.init_of(other)?));
            }
        }
        let anonymous = config.mounts.iter().filter(|mount| mount.anonymous);
        Ok(MonitorRequest {
            version: MESSAGE_VERSION,
            anonymous_volumes: anonymous.filter_map(|m| m.source.parent().map(Into::into)).collect(),
            folder,
            run_dir: self.run_dir(&row.id),
            trash: self.root().join("trash"),
            layers: self.store().container_layers(row)?,
            cgroup: self.cgroup_of(&row.id, Some(&config)),
            cgroup_parent: self.monitors_parent(),
            last_out: self.last_out(),
            network,
            user_network,
            joined,
            files,
            members: rootless.then(|| crate::rootless::members_file(&self.config().state)),
            has_client,
            config,
        })
    }

    /// For an ordinary user's container with ids of its own: its layers' copies with such owners.
    fn map_layers(&self, row: &ContainerRow, request: &mut MonitorRequest) -> Result<Vec<String>> {
        let map = request.config.id_map.as_ref().filter(|_| self.config().rootless.is_some());
        let Some(map) = map else { return Ok(Vec::new()) };
        let (layers, copied) = self.store().mapped_layers(row, &map.name(), &|uid, gid| map.outside(uid, gid))?;
        request.layers = layers;
        Ok(idmap::announce_copies(copied, &request.config.spec.image))
    }

    fn network_request(&self, id: &str, config: &ContainerConfig) -> Result<NetworkRequest> {
        let network = self.default_network()?;
        let subnet = (network.subnet.network(), network.subnet.prefix_len());
        let wanted = match config.spec.ip {
            Some(std::net::IpAddr::V4(address)) => Some(address),
            _ => None,
        };
        let address = self.store().allocate_address(DEFAULT_NETWORK, subnet, network.gateway, id, wanted)?;
        Ok(NetworkRequest { network, address })
    }

    /// The init of a container that another one joins.
    fn init_of(&self, id: &str) -> Result<i32> {
        let row = self.store().container(id)?;
        let state = self.observe(&row)?;
        state.init.map(|init| init.pid).ok_or_else(|| {
            EngineError::State(format!(
                "cannot join the namespaces of container {id}: it is not running: start it first"
            ))
        })
    }

    /// Starts the monitor and waits for its word.
    fn run_monitor(
        &self,
        row: &ContainerRow,
        request: &MonitorRequest,
        lock: Lock,
        client: Option<OwnedFd>,
    ) -> Result<Vec<String>> {
        let (ours, theirs) = socket_pair()?;
        let null = File::open("/dev/null").map_err(|e| EngineError::io("open", "/dev/null", e))?;
        let client_fd = client.as_ref().map_or(null.as_fd(), AsFd::as_fd);
        let label: String = row.id.chars().take(12).collect();
        crate::apparmor::load_default(&self.config().search_path);
        hidden::start(hidden::MONITOR, &label, [theirs.as_fd(), lock.as_fd(), client_fd])?;
        // The monitor alone holds these from now on.
        drop((theirs, lock, client));
        let gone =
            |e: std::io::Error| EngineError::Monitor { id: row.id.clone(), reason: format!("its monitor died: {e}") };
        protocol::send_message(ours.as_fd(), request).map_err(gone)?;
        match protocol::receive_message(ours.as_fd()).map_err(gone)? {
            Some(Report::Started { warnings, .. }) => Ok(warnings),
            Some(Report::Failed { failure, taken_port }) => {
                let holder = taken_port.and_then(|port| self.holder_of(port, &row.id));
                let message = match holder {
                    Some(name) => format!("{} (by container {name})", failure.message),
                    None => failure.message,
                };
                Err(EngineError::Start { exit_code: failure.exit_code, message })
            }
            None => {
                Err(EngineError::Monitor { id: row.id.clone(), reason: "its monitor died while it started".to_owned() })
            }
        }
    }

    /// The container of ours that has a host port.
    fn holder_of(&self, port: u16, not: &str) -> Option<String> {
        let rows = self.store().containers().ok()?;
        let holds = |row: &&ContainerRow| {
            row.id != not
                && self.observe(row).is_ok_and(|state| state.ports.iter().any(|published| published.host_port == port))
        };
        rows.iter().find(holds).map(|row| row.name.clone())
    }
}
