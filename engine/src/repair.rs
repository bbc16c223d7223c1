//! What a record says is believed only as long as its processes are there. Any command that finds it stale repairs it, under the
//! container's lock.

use crate::config::ContainerConfig;
use crate::monitor::launch::remove_run_dir;
use crate::monitor::presence;
use crate::{Engine, Result, State};
use runtime::Cgroup;
use std::time::{Duration, Instant};
use store::ContainerRow;

/// How long killed processes may take to go.
const DEATH_LIMIT: Duration = Duration::from_secs(5);

impl Engine {
    /// A container's true state.
    pub(crate) fn observe(&self, row: &ContainerRow) -> Result<State> {
        let folder = self.store().container_dir(&row.id);
        let state = State::load(&folder)?;
        if !state.status.is_active() || state.monitor_lives() {
            return Ok(state);
        }
        // Whoever holds the lock is mending it, or is the next monitor.
        let Some(_lock) = self.store().try_lock_container(&row.id)? else { return State::load(&folder) };
        self.repair_locked(row)
    }

    /// As [`Engine::observe`], for who holds the lock.
    pub(crate) fn repair_locked(&self, row: &ContainerRow) -> Result<State> {
        let folder = self.store().container_dir(&row.id);
        let mut state = State::load(&folder)?;
        if !state.status.is_active() || state.monitor_lives() {
            return Ok(state);
        }
        self.clear_leftovers(&row.id)?;
        let config = ContainerConfig::load(&folder);
        if let (Some(address), Ok(network)) = (state.address, self.default_network()) {
            // A stale element harms nobody; the next start or removal tries again.
            let _stale = network::unpublish(&network, address, &state.ports);
        }
        state.lost();
        if config.as_ref().is_ok_and(|config| config.spec.auto_remove) {
            self.store().remove_container(&row.id)?;
            if let Ok(config) = &config {
                self.remove_anonymous_volumes(config);
            }
        } else {
            // On a full disk the truth is still the answer; who looks next finds it anew.
            let _unsaved = state.save(&folder);
        }
        if let Some(what) = self.last_out() {
            presence::clear_after_lost(&what);
        }
        Ok(state)
    }

    /// Kills what a lost monitor left running and removes its cgroup and socket: an upper folder may not be mounted twice.
    pub(crate) fn clear_leftovers(&self, id: &str) -> Result<()> {
        remove_run_dir(&self.run_dir(id));
        let config = ContainerConfig::load(&self.store().container_dir(id)).ok();
        let state = State::load(&self.store().container_dir(id))?;
        let cgroup = Cgroup::open(&self.recorded_cgroup(id, config.as_ref(), &state))?;
        if !cgroup.exists() {
            return Ok(());
        }
        let deadline = Instant::now() + DEATH_LIMIT;
        while !cgroup.is_empty()? && Instant::now() < deadline {
            cgroup.kill_all()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(cgroup.remove()?)
    }
}
