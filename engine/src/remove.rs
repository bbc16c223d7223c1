//! `rm`: a container's folder, rows, and with `-v` its anonymous volumes.

use crate::config::ContainerConfig;
use crate::{Engine, EngineError, Result};
use std::time::{Duration, Instant};

/// How long a dying monitor may hold the lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(15);

impl Engine {
    /// Removes a container; a running one only with `force` (SIGKILL). `volumes`: its anonymous volumes too.
    pub fn remove(&self, container: &str, force: bool, volumes: bool) -> Result<()> {
        let row = self.store().container(container)?;
        let folder = self.store().container_dir(&row.id);
        let deadline = Instant::now() + LOCK_PATIENCE;
        let _lock = loop {
            let active = self.observe(&row)?.status.is_active();
            if active && !force {
                return Err(EngineError::Running(row.name));
            }
            if active {
                // Ended meanwhile is as good.
                let _ended = self.kill(&row.id, "KILL");
            }
            if !folder.exists() {
                // It ran with --rm and is gone now, but for its rows.
                return Ok(self.store().remove_container(&row.id)?);
            }
            if let Some(lock) = self.store().try_lock_container(&row.id)?
                && !self.repair_locked(&row)?.status.is_active()
            {
                break lock;
            }
            if Instant::now() > deadline {
                return Err(EngineError::Monitor {
                    id: row.id,
                    reason: "its monitor does not let go of it: kill it by its pid and try again".to_owned(),
                });
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        self.clear_leftovers(&row.id)?;
        let config = ContainerConfig::load(&folder);
        self.store().remove_container(&row.id)?;
        if let (true, Ok(config)) = (volumes, config) {
            self.remove_anonymous_volumes(&config);
        }
        Ok(())
    }
}
