//! `create`: image config × command line → a container's record.

use crate::config::{self, ContainerConfig};
use crate::{ContainerSpec, Engine, EngineError, NamespaceMode, NetworkMode, RestartPolicy, Result, UserNamespaceMode};
use store::NewContainer;

/// A created container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its full id, 64 hex digits.
    pub id: String,
    /// Its name, given or made up.
    pub name: String,
    /// What was not done as asked, but was no reason to fail.
    pub warnings: Vec<String>,
}

impl Engine {
    /// Makes a container of an image that is there. Fails with [`EngineError::is_missing_image`] where it is not: the caller
    /// may pull and try again.
    pub fn create(&self, spec: &ContainerSpec) -> Result<Created> {
        let mut warnings = Vec::new();
        check(spec, &mut warnings)?;
        if spec.cgroup_parent.is_some() && self.config().rootless.is_some() {
            warnings
                .push("--cgroup-parent is ignored: an ordinary user's groups are where they were delegated".to_owned());
        }
        let image = self.store().image(&spec.image)?;
        let id = store::new_id()?;
        let mut config = config::merge(&id, image.id.as_str(), &image.config, spec)?;
        self.pin_namespaces(&mut config)?;
        self.check_signal(&config.stop_signal)?;
        let ids = self.map_ids(&mut config)?;
        let volumes = self.prepare_mounts(&mut config, &image)?;
        let json = serde_json::to_vec(&config).map_err(|e| EngineError::Invalid(e.to_string()))?;
        let row = self.store().create_container(&NewContainer {
            id: &id,
            name: spec.name.as_deref(),
            image: Some(&image.id),
            config_json: &json,
            volumes: &volumes,
        });
        drop(ids);
        let row = match row {
            Ok(row) => row,
            Err(error) => {
                self.remove_anonymous_volumes(&config);
                return Err(error.into());
            }
        };
        Ok(Created { id: row.id, name: row.name, warnings })
    }

    /// Other containers' namespaces are asked for by name; the record holds ids, which stay.
    fn pin_namespaces(&self, config: &mut ContainerConfig) -> Result<()> {
        if let NetworkMode::Container(name) = &config.spec.network {
            config.spec.network = NetworkMode::Container(self.store().container(name)?.id);
            config.hostname.clear();
        }
        if let NetworkMode::Named(name) = &config.spec.network {
            self.store().network(name)?;
            return Err(EngineError::Invalid(format!(
                "network {name}: containers can't be connected to user networks yet: use bridge, host or none"
            )));
        }
        for mode in [&mut config.spec.pid, &mut config.spec.ipc, &mut config.spec.uts] {
            if let NamespaceMode::Container(name) = mode {
                *mode = NamespaceMode::Container(self.store().container(name)?.id);
            }
        }
        Ok(())
    }

    fn check_signal(&self, signal: &str) -> Result<()> {
        linux::signal::parse(signal).map(drop).ok_or_else(|| EngineError::Invalid(format!("invalid signal: {signal}")))
    }

    /// Volumes without a name of a container that is going (or never came to be).
    pub(crate) fn remove_anonymous_volumes(&self, config: &ContainerConfig) {
        for name in config.mounts.iter().filter(|mount| mount.anonymous).filter_map(|mount| mount.name.as_deref()) {
            // Another container may use it by --volumes-from.
            let _in_use = self.store().remove_volume(name);
        }
    }
}

/// What can be known to be wrong before anything is made.
fn check(spec: &ContainerSpec, warnings: &mut Vec<String>) -> Result<()> {
    let invalid = |text: &str| Err(EngineError::Invalid(text.to_owned()));
    if spec.auto_remove && spec.restart != RestartPolicy::No {
        return invalid("conflicting options: cannot specify both --restart and --rm");
    }
    if matches!(spec.network, NetworkMode::Container(_)) && (!spec.publish.is_empty() || spec.publish_all) {
        return invalid("conflicting options: port publishing and the container type network mode");
    }
    if matches!(spec.network, NetworkMode::Container(_)) && spec.hostname.is_some() {
        return invalid("conflicting options: hostname and the network mode");
    }
    let joins = |mode: &NamespaceMode| matches!(mode, NamespaceMode::Container(_));
    let shares =
        matches!(spec.network, NetworkMode::Container(_)) || [&spec.pid, &spec.ipc, &spec.uts].into_iter().any(joins);
    if spec.userns != UserNamespaceMode::Host && shares {
        return invalid(
            "conflicting options: --userns and the namespaces of another container: those belong to its users",
        );
    }
    if spec.network == NetworkMode::Host && (!spec.publish.is_empty() || spec.publish_all) {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    if spec.hostname.as_ref().is_some_and(|name| name.len() > 63 || name.bytes().any(|b| b == b'\n' || b == 0)) {
        return invalid("invalid hostname: it may have 63 characters at most");
    }
    if !matches!(spec.log.driver.as_str(), "json-file" | "local" | "none") {
        return Err(EngineError::Invalid(format!(
            "logging driver {:?} is not supported: use json-file or none",
            spec.log.driver
        )));
    }
    if spec.workdir.as_ref().is_some_and(|path| !path.starts_with('/')) {
        return invalid("the working directory is invalid, it needs to be an absolute path");
    }
    if spec.healthcheck.as_ref().is_some_and(|health| health.test.first().is_some_and(|kind| kind != "NONE")) {
        warnings.push("health checks are recorded but not run yet".to_owned());
    }
    crate::ocispec::check(spec)
}
