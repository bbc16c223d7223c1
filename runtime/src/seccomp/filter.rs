//! A compiled profile on its way to a process, and whom its notifications go to.

use super::compile::{Compiled, compile};
use crate::RuntimeError;
use linux::CallError;
use linux::seccomp::{self, FilterFlags, Instruction};
use oci_spec::runtime::LinuxSeccomp;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::value::RawValue;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// To be loaded by the process it is for.
#[derive(Debug)]
pub(crate) struct Filter {
    program: Vec<Instruction>,
    flags: FilterFlags,
    agent: Option<Agent>,
}

/// Who answers SCMP_ACT_NOTIFY: the other end of `listenerPath`.
#[derive(Debug)]
struct Agent {
    socket: OwnedFd,
    metadata: String,
}

impl Filter {
    /// Compiles the profile and, if it notifies, connects to the agent.
    pub(crate) fn new(profile: &LinuxSeccomp, warnings: &mut Vec<String>) -> Result<Filter, RuntimeError> {
        let Compiled { program, mut flags, notifies } = compile(profile, warnings)?;
        let agent = match profile.listener_path().as_deref().filter(|_| notifies) {
            Some(path) => {
                let socket = connect(path).map_err(|e| RuntimeError::file("connect to the seccomp agent", path, e))?;
                Some(Agent { socket, metadata: profile.listener_metadata().clone().unwrap_or_default() })
            }
            None if notifies => {
                return Err(RuntimeError::Spec(
                    "seccomp: SCMP_ACT_NOTIFY needs a listenerPath to send its notifications to".to_owned(),
                ));
            }
            None => None,
        };
        flags.notify = agent.is_some();
        Ok(Filter { program, flags, agent })
    }

    /// The way to the agent, to be kept open until the filter is loaded.
    pub(crate) fn agent(&self) -> Option<BorrowedFd<'_>> {
        self.agent.as_ref().map(|agent| agent.socket.as_fd())
    }

    /// What the agent is told along with the descriptor; None if there is no agent. `pid` is this process's as the agent knows it.
    pub(crate) fn notice(&self, state: &[u8], pid: i32) -> Option<Vec<u8>> {
        let agent = self.agent.as_ref()?;
        let state = RawValue::from_string(String::from_utf8_lossy(state).into_owned()).ok()?;
        let notice = serde_json::json!({
            "ociVersion": crate::OCI_VERSION,
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": agent.metadata,
            "state": state,
        });
        Some(notice.to_string().into_bytes())
    }

    /// Puts the filter on this process and hands its notifications to the agent.
    pub(crate) fn load(&self, notice: Option<&[u8]>) -> Result<(), CallError> {
        let listener = seccomp::load(&self.program, self.flags)?;
        if let (Some(listener), Some(agent), Some(notice)) = (listener, &self.agent, notice) {
            linux::socket::send_fds(&agent.socket, notice, &[listener.as_fd()])?;
        }
        Ok(())
    }
}

fn connect(path: &Path) -> rustix::io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}
