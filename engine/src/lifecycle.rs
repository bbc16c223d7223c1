//! Start, stop, kill, wait, remove and the other verbs on an existing container. A container is named by id, unique id
//! prefix, or name.

use crate::{AttachOptions, Attached, Engine, PortSpec, Result};
use std::time::Duration;

/// How a program ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ExitStatus {
    /// Its exit code; 128+n when signal n killed it.
    pub code: i32,
    /// The kernel killed it for lack of memory.
    pub oom_killed: bool,
    /// Why it could not be run, or was lost.
    pub error: String,
}

/// A started container.
#[derive(Debug)]
pub struct Started {
    /// Its full id.
    pub id: String,
    /// Its streams, if asked for; no output is lost.
    pub attached: Option<Attached>,
    /// What was not done as asked, but was no reason to fail.
    pub warnings: Vec<String>,
}

/// What `wait` waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// It does not run (at once, if it doesn't now).
    #[default]
    NotRunning,
    /// Its next exit.
    NextExit,
    /// Its removal.
    Removed,
}

/// `top`'s table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopTable {
    /// Column names.
    pub titles: Vec<String>,
    /// One row a process.
    pub processes: Vec<Vec<String>>,
}

impl Engine {
    /// Starts a container that does not run; a running one is left as it is (and attached to if asked).
    pub fn start(&self, container: &str, attach: Option<AttachOptions>) -> Result<Started> {
        let _ = (container, attach);
        todo!()
    }

    /// Attaches to a running container's streams.
    pub fn attach(&self, container: &str, options: AttachOptions) -> Result<Attached> {
        let _ = (container, options);
        todo!()
    }

    /// Sends the stop signal, then SIGKILL after the timeout (in seconds; negative: never). None: the container's own.
    /// Returns when it has ended; one that does not run is fine.
    pub fn stop(&self, container: &str, signal: Option<&str>, timeout_s: Option<i64>) -> Result<()> {
        let _ = (container, signal, timeout_s);
        todo!()
    }

    /// Stop, then start.
    pub fn restart(&self, container: &str, signal: Option<&str>, timeout_s: Option<i64>) -> Result<()> {
        let _ = (container, signal, timeout_s);
        todo!()
    }

    /// Sends a signal (name with or without SIG, or number) to the container's program.
    pub fn kill(&self, container: &str, signal: &str) -> Result<()> {
        let _ = (container, signal);
        todo!()
    }

    /// Waits for a container's end. None: the timeout was over first.
    pub fn wait(
        &self,
        container: &str,
        condition: WaitCondition,
        timeout: Option<Duration>,
    ) -> Result<Option<ExitStatus>> {
        let _ = (container, condition, timeout);
        todo!()
    }

    /// Removes a container; a running one only with `force` (SIGKILL). `volumes`: its anonymous volumes too.
    pub fn remove(&self, container: &str, force: bool, volumes: bool) -> Result<()> {
        let _ = (container, force, volumes);
        todo!()
    }

    /// Gives it another name.
    pub fn rename(&self, container: &str, name: &str) -> Result<()> {
        let _ = (container, name);
        todo!()
    }

    /// Freezes its processes.
    pub fn pause(&self, container: &str) -> Result<()> {
        let _ = container;
        todo!()
    }

    /// Thaws them.
    pub fn unpause(&self, container: &str) -> Result<()> {
        let _ = container;
        todo!()
    }

    /// Its published ports; empty where it does not run.
    pub fn ports(&self, container: &str) -> Result<Vec<PortSpec>> {
        let _ = container;
        todo!()
    }

    /// Its processes.
    pub fn top(&self, container: &str) -> Result<TopTable> {
        let _ = container;
        todo!()
    }

    /// The full id behind a name or unique prefix.
    pub fn resolve(&self, container: &str) -> Result<String> {
        let _ = container;
        todo!()
    }
}
