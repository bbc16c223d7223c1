//! What `inspect` shows: docker's JSON of a container.

use crate::{Engine, Result};

impl Engine {
    /// Docker-shaped JSON: `Id`, `Created`, `Path`, `Args`, `State`, `Image`, `Name`, `HostConfig`, `Mounts`, `Config`,
    /// `NetworkSettings`, …
    pub fn inspect(&self, container: &str) -> Result<serde_json::Value> {
        let _ = container;
        todo!()
    }
}
