//! A container without a record: one RUN of a build. Its root is the layers so far plus a writable upper that
//! becomes the next layer.

use crate::{Engine, ExitStatus, LogStream, NetworkMode, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What a RUN step runs, and in what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepRequest {
    /// The layers' `fs` folders, lowest first.
    pub layers: Vec<PathBuf>,
    /// The writable folder; made where missing. Its parent takes the overlay's work folder, which is removed at the end.
    pub upper: PathBuf,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment, `NAME=value`.
    pub env: Vec<String>,
    /// Working directory, made where missing.
    pub cwd: String,
    /// `user[:group]`; empty is root.
    pub user: String,
    /// Bridge, none or host.
    pub network: NetworkMode,
    /// Extra binds: secrets, build caches, files of other stages.
    pub mounts: Vec<StepMount>,
    /// `--add-host NAME:IP` lines.
    pub add_hosts: Vec<String>,
    /// Standard input for the program (a here-document); none is /dev/null.
    pub stdin: Option<Vec<u8>>,
}

/// A bind of a RUN step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepMount {
    /// On the host; None: a tmpfs.
    pub source: Option<PathBuf>,
    /// In the container, absolute; made where missing, and removed again from the upper if it was.
    pub target: String,
    /// Read-only.
    pub read_only: bool,
}

impl Engine {
    /// Runs one step to its end; `output` gets what it writes. Callable from several threads at once. The step dies with
    /// the caller.
    pub fn run_step(&self, request: &StepRequest, output: &mut dyn FnMut(LogStream, &[u8])) -> Result<ExitStatus> {
        let _ = (request, output);
        todo!()
    }
}
