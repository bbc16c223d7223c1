//! Data roots other than the default one come and go (each test has one): the last of a root's monitors removes what the root
//! has made on the machine – the bridge, the firewall table, the parent of its control groups.

use super::cgroups;
use crate::{EngineError, Result};
use network::BridgeNetwork;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the last one waits for the next command of a script.
const LINGER: Duration = Duration::from_millis(200);

/// The largest description of a network read, in bytes.
const MAX_NETWORK_BYTES: u64 = 1 << 20;

/// What is to go with the last user of a root.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LastOut {
    /// Held by every monitor of the root.
    pub(crate) lock: PathBuf,
    /// The root's network, if it had one when this was written.
    pub(crate) network: Option<BridgeNetwork>,
    /// Where a network that was made later is described.
    #[serde(default)]
    pub(crate) network_file: PathBuf,
    /// The parent of its control groups.
    pub(crate) cgroup_parent: String,
}

/// A monitor that is there. Its children must not hold this: [`Presence::let_go`].
#[derive(Debug, Default)]
pub(crate) struct Presence(Option<(OwnedFd, LastOut)>);

impl Presence {
    /// Waits while the last user before is removing things.
    pub(crate) fn enter(what: Option<&LastOut>) -> Result<Presence> {
        let Some(what) = what else { return Ok(Presence(None)) };
        let path = &what.lock;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| EngineError::io("make", folder, e))?;
        }
        let lock = open(path, OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
            .map_err(|e| EngineError::io("open", path, e))?;
        flock(&lock, FlockOperation::LockShared).map_err(|e| EngineError::io("lock", path, e))?;
        Ok(Presence(Some((lock, what.clone()))))
    }

    /// For a forked child.
    pub(crate) fn let_go(&mut self) {
        self.0 = None;
    }

    /// The last thing a monitor does, when nobody waits for it any more.
    pub(crate) fn leave(self) {
        let Some((lock, what)) = self.0 else { return };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return;
        }
        // Whoever comes meanwhile stays, and is the last one then.
        let _shared = flock(&lock, FlockOperation::LockShared);
        std::thread::sleep(LINGER);
        remove_if_last(&lock, &what);
    }
}

/// Does what a lost monitor could not: for commands that have cleared up after one.
pub(crate) fn clear_after_lost(what: &LastOut) {
    if let Ok(lock) = open(&what.lock, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        remove_if_last(&lock, what);
    }
}

fn remove_if_last(lock: &OwnedFd, what: &LastOut) {
    if flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
        if let Some(network) = what.network.clone().or_else(|| described(&what.network_file)) {
            let _left = network::remove(&network, true);
        }
        cgroups::remove_parent(&what.cgroup_parent);
    }
}

/// A network out of its file in the store: monitors do not open the database.
fn described(file: &Path) -> Option<BridgeNetwork> {
    let mut bytes = Vec::new();
    File::open(file).ok()?.take(MAX_NETWORK_BYTES).read_to_end(&mut bytes).ok()?;
    let row: store::NetworkRow = serde_json::from_slice(&bytes).ok()?;
    serde_json::from_value(row.config).ok()
}
