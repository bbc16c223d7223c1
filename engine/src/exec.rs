//! A further process in a running container.

use crate::{AttachOptions, Attached, Engine, Result};

/// What `exec` runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct ExecSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Laid over the container's; None removes.
    pub env: Vec<(String, Option<String>)>,
    /// `-u`; None: the container's.
    pub user: Option<String>,
    /// `-w`; None: the container's.
    pub workdir: Option<String>,
    /// `-t`.
    pub tty: bool,
    /// `-i`.
    pub open_stdin: bool,
    /// `--privileged`.
    pub privileged: bool,
}

/// A started exec session.
#[derive(Debug)]
pub struct ExecHandle {
    /// Its id.
    pub id: String,
    /// Its streams, unless detached.
    pub attached: Option<Attached>,
}

impl Engine {
    /// Runs a process in a running container. Without `attach` it is detached: its output goes nowhere.
    pub fn exec(&self, container: &str, spec: &ExecSpec, attach: Option<AttachOptions>) -> Result<ExecHandle> {
        let _ = (container, spec, attach);
        todo!()
    }
}
