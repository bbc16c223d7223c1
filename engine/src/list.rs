//! What `ps` shows.

use crate::config::ContainerConfig;
use crate::monitor::launch::UPPER;
use crate::{Engine, PortSpec, Protocol, Result, State, Status};
use jiff::Timestamp;
use std::collections::BTreeMap;
use store::ContainerRow;

/// Which containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Those that don't run too.
    pub all: bool,
    /// Compute the writable layer's size (slow).
    pub size: bool,
}

/// One line of `ps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSummary {
    /// 64 hex digits.
    pub id: String,
    /// Without a slash.
    pub name: String,
    /// As the user named it.
    pub image: String,
    /// `sha256:…`.
    pub image_id: String,
    /// Program and arguments, joined by spaces.
    pub command: String,
    /// When it was made.
    pub created: Timestamp,
    /// Where it is in its life.
    pub status: Status,
    /// Of the last run.
    pub exit_code: i32,
    /// Of the last run.
    pub started_at: Option<Timestamp>,
    /// Of the last run.
    pub finished_at: Option<Timestamp>,
    /// `starting`, `healthy`, `unhealthy`, where it has a health check.
    pub health: Option<String>,
    /// Published, while it runs.
    pub ports: Vec<PortSpec>,
    /// Exposed but not published.
    pub exposed: Vec<(u16, Protocol)>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Names of volumes and sources of binds.
    pub mounts: Vec<String>,
    /// Names of networks.
    pub networks: Vec<String>,
    /// Bytes in its writable layer, if asked for.
    pub size_bytes: Option<u64>,
}

impl Engine {
    /// The containers, newest first.
    pub fn list(&self, filter: &ListFilter) -> Result<Vec<ContainerSummary>> {
        let rows = self.store().containers()?;
        let mut summaries = Vec::with_capacity(rows.len());
        for row in rows {
            let folder = self.store().container_dir(&row.id);
            let Ok(state) = self.observe(&row) else { continue };
            if !filter.all && !state.status.is_active() {
                continue;
            }
            // One that is removed this moment is none.
            let Ok(config) = ContainerConfig::load(&folder) else { continue };
            let size_bytes = filter.size.then(|| store::folder_bytes(&folder.join(UPPER)));
            summaries.push(summary(row, &state, &config, size_bytes));
        }
        Ok(summaries)
    }
}

fn summary(row: ContainerRow, state: &State, config: &ContainerConfig, size_bytes: Option<u64>) -> ContainerSummary {
    let published = |port: &u16, protocol: &Protocol| {
        state.ports.iter().any(|p| p.container_port == *port && p.protocol == *protocol)
    };
    let exposed = if state.status.is_active() { config.exposed.clone() } else { Vec::new() };
    ContainerSummary {
        image: config.spec.image.clone(),
        image_id: config.image_id.clone(),
        command: shown(&config.argv),
        created: row.created,
        status: state.status,
        exit_code: state.exit_code,
        started_at: state.started_at,
        finished_at: state.finished_at,
        health: None,
        ports: state.ports.clone(),
        exposed: exposed.into_iter().filter(|(port, protocol)| !published(port, protocol)).collect(),
        labels: config.labels.clone(),
        mounts: config.mount_names(),
        networks: config.network_names(),
        size_bytes,
        id: row.id,
        name: row.name,
    }
}

/// A command line as docker shows it: words with blanks in quotes.
fn shown(argv: &[String]) -> String {
    let words = argv.iter().map(|word| if word.contains(' ') { format!("'{word}'") } else { word.clone() });
    words.collect::<Vec<_>>().join(" ")
}
