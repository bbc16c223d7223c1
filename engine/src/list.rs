//! What `ps` shows.

use crate::{Engine, PortSpec, Protocol, Result, Status};
use jiff::Timestamp;
use std::collections::BTreeMap;

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
        let _ = filter;
        todo!()
    }
}
