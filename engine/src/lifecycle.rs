//! Stop, kill, wait, remove and the other verbs on an existing container. A container is named by id, unique id
//! prefix, or name.

use crate::attach::connect_monitor;
use crate::config::ContainerConfig;
use crate::monitor::launch::SOCKET;
use crate::protocol::{self, Decoder, FrameKind, StopRequest};
use crate::{AttachOptions, Attached, Engine, EngineError, PortSpec, Result, Status};
use runtime::Cgroup;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use store::ContainerRow;

/// From the stop signal to SIGKILL, in seconds.
pub(crate) const DEFAULT_STOP_TIMEOUT_S: i64 = 10;
/// How long a monitor may take to clean up after a SIGKILL before it is given up.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

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
    /// Attaches to a running container's streams.
    pub fn attach(&self, container: &str, options: AttachOptions) -> Result<Attached> {
        let row = self.store().container(container)?;
        match self.observe(&row)?.status {
            Status::Running | Status::Restarting => {}
            Status::Paused => {
                return Err(EngineError::State("You cannot attach to a paused container, unpause it first".to_owned()));
            }
            _ => return Err(EngineError::State("You cannot attach to a stopped container, start it first".to_owned())),
        }
        let path = self.socket_path(&row.id);
        let socket = connect_monitor(&path).map_err(|_| EngineError::NotRunning(row.id.clone()))?;
        let attached = Attached::new(socket, crate::attach::Control::Monitor(path));
        attached.announce(options)?;
        Ok(attached)
    }

    /// Sends the stop signal, then SIGKILL after the timeout (in seconds; negative: never). None: the container's own.
    /// Returns when it has ended; one that does not run is fine.
    pub fn stop(&self, container: &str, signal: Option<&str>, timeout_s: Option<i64>) -> Result<()> {
        let row = self.store().container(container)?;
        let given = signal.map(parse_signal).transpose()?;
        if !self.observe(&row)?.status.is_active() {
            return Ok(());
        }
        let config = ContainerConfig::load(&self.store().container_dir(&row.id))?;
        let signal = match given {
            Some(signal) => signal,
            None => parse_signal(&config.stop_signal)?,
        };
        let seconds = timeout_s.or(config.stop_timeout).unwrap_or(DEFAULT_STOP_TIMEOUT_S);
        let timeout_ms = u64::try_from(seconds).ok().map(|s| s.saturating_mul(1000));
        let request = serde_json::to_vec(&StopRequest { signal, timeout_ms }).unwrap_or_default();
        let Ok(socket) = connect_monitor(&self.socket_path(&row.id)) else {
            // It ended this moment, or its monitor died: settled by looking again.
            return self.await_end(&row);
        };
        let _ended = protocol::write_all(socket.as_fd(), &protocol::frame(FrameKind::Stop, &request));
        let patience = timeout_ms.map(|ms| Duration::from_millis(ms) + KILL_PATIENCE);
        if await_exit(&socket, patience)?.is_none() {
            self.await_end(&row)?;
        }
        Ok(())
    }

    /// Stop, then start.
    pub fn restart(&self, container: &str, signal: Option<&str>, timeout_s: Option<i64>) -> Result<()> {
        self.stop(container, signal, timeout_s)?;
        self.start(container, None).map(drop)
    }

    /// Sends a signal (name with or without SIG, or number) to the container's program.
    pub fn kill(&self, container: &str, signal: &str) -> Result<()> {
        let number = parse_signal(signal)?;
        let row = self.store().container(container)?;
        let not_running =
            || EngineError::State(format!("cannot kill container: {container}: container {} is not running", row.id));
        if !self.observe(&row)?.status.is_active() {
            return Err(not_running());
        }
        let socket = connect_monitor(&self.socket_path(&row.id)).map_err(|_| not_running())?;
        let frame = protocol::frame(FrameKind::Signal, &protocol::signal_payload(number, true));
        protocol::write_all(socket.as_fd(), &frame).map_err(|_| not_running())?;
        if number == libc_sigkill() {
            // The next command may rely on its end.
            await_exit(&socket, Some(KILL_PATIENCE))?;
        }
        Ok(())
    }

    /// Waits for a container's end. None: the timeout was over first.
    pub fn wait(
        &self,
        container: &str,
        condition: WaitCondition,
        timeout: Option<Duration>,
    ) -> Result<Option<ExitStatus>> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let left = || deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let row = self.store().container(container)?;
        let mut last = None;
        loop {
            // First the connection, then the record: an end in between is seen in one of the two.
            let socket = connect_monitor(&self.socket_path(&row.id)).ok();
            let exists = self.store().container_dir(&row.id).exists();
            let state = if exists { self.observe(&row)? } else { crate::State::default() };
            let ended = ExitStatus { code: state.exit_code, oom_killed: state.oom_killed, error: state.error.clone() };
            match condition {
                _ if !exists => return Ok(Some(last.unwrap_or(ended))),
                WaitCondition::NotRunning if !state.status.is_active() => return Ok(Some(last.unwrap_or(ended))),
                _ => {}
            }
            match socket {
                Some(socket) => match await_exit(&socket, left())? {
                    Some(status) if condition == WaitCondition::Removed => last = Some(status),
                    Some(status) => return Ok(Some(status)),
                    None => {}
                },
                // Nothing to listen to: a start, or a removal, is under way or still to come.
                None => std::thread::sleep(Duration::from_millis(50)),
            }
            if left().is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
        }
    }

    /// Gives it another name.
    pub fn rename(&self, container: &str, name: &str) -> Result<()> {
        let row = self.store().container(container)?;
        Ok(self.store().rename_container(&row.id, name)?)
    }

    /// Freezes its processes.
    pub fn pause(&self, container: &str) -> Result<()> {
        self.freeze(container, FrameKind::Pause)
    }

    /// Thaws them.
    pub fn unpause(&self, container: &str) -> Result<()> {
        self.freeze(container, FrameKind::Unpause)
    }

    fn freeze(&self, container: &str, kind: FrameKind) -> Result<()> {
        let row = self.store().container(container)?;
        let not_running = || EngineError::NotRunning(row.id.clone());
        if !self.observe(&row)?.status.is_active() {
            return Err(not_running());
        }
        let socket = connect_monitor(&self.socket_path(&row.id)).map_err(|_| not_running())?;
        protocol::write_all(socket.as_fd(), &protocol::frame(kind, b"")).map_err(|_| not_running())?;
        let answer = await_frame(&socket, FrameKind::Reply, Some(KILL_PATIENCE))?.ok_or_else(not_running)?;
        if answer.is_empty() { Ok(()) } else { Err(EngineError::State(String::from_utf8_lossy(&answer).into_owned())) }
    }

    /// Its published ports; empty where it does not run.
    pub fn ports(&self, container: &str) -> Result<Vec<PortSpec>> {
        let row = self.store().container(container)?;
        Ok(self.observe(&row)?.ports)
    }

    /// Its processes: as `ps -ef` would show them, or as the host's own ps does with the given options.
    pub fn top(&self, container: &str, ps_options: &[String]) -> Result<TopTable> {
        let row = self.store().container(container)?;
        let state = self.observe(&row)?;
        if !state.status.is_active() {
            return Err(EngineError::NotRunning(row.id));
        }
        let config = ContainerConfig::load(&self.store().container_dir(&row.id))?;
        let cgroup = Cgroup::open(&self.recorded_cgroup(&row.id, Some(&config), &state))?;
        let pids = match state.init {
            // No group of its own: its processes are those of its pid namespace.
            Some(init) if cgroup.path().is_empty() => crate::top::in_pid_namespace_of(init.pid),
            _ => cgroup.processes()?,
        };
        if ps_options.is_empty() { Ok(crate::top::table(&pids)) } else { crate::top::by_ps(&pids, ps_options) }
    }

    /// The full id behind a name or unique prefix.
    pub fn resolve(&self, container: &str) -> Result<String> {
        Ok(self.store().container(container)?.id)
    }

    pub(crate) fn socket_path(&self, id: &str) -> PathBuf {
        self.run_dir(id).join(SOCKET)
    }

    /// Waits until no monitor holds the container: its record tells the truth then.
    pub(crate) fn await_end(&self, row: &ContainerRow) -> Result<()> {
        let deadline = Instant::now() + KILL_PATIENCE;
        while self.store().container_dir(&row.id).exists() && self.observe(row)?.status.is_active() {
            if Instant::now() > deadline {
                return Err(EngineError::Monitor {
                    id: row.id.clone(),
                    reason: "its monitor does not answer: kill it by its pid (see ctr inspect) and try again"
                        .to_owned(),
                });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

fn libc_sigkill() -> i32 {
    rustix::process::Signal::KILL.as_raw()
}

/// A signal by any of its names.
pub(crate) fn parse_signal(text: &str) -> Result<i32> {
    linux::signal::parse(text).ok_or_else(|| EngineError::Invalid(format!("Invalid signal: {text}")))
}

/// Waits for the monitor's word that the program has ended. None: it went without one, or the time was over.
pub(crate) fn await_exit(socket: &OwnedFd, timeout: Option<Duration>) -> Result<Option<ExitStatus>> {
    let payload = await_frame(socket, FrameKind::Exit, timeout)?;
    Ok(payload.map(|json| serde_json::from_slice(&json).unwrap_or_default()))
}

/// Waits for a frame of this kind, skipping others.
fn await_frame(socket: &OwnedFd, wanted: FrameKind, timeout: Option<Duration>) -> Result<Option<Vec<u8>>> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut decoder = Decoder::default();
    let mut buffer = [0; 4096];
    loop {
        while let Ok(Some((kind, payload))) = decoder.next() {
            if kind == wanted {
                return Ok(Some(payload.to_vec()));
            }
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timespec = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        let mut fds = [PollFd::new(socket, PollFlags::IN)];
        match poll(&mut fds, timespec.as_ref()) {
            Ok(0) if left.is_some_and(|left| left.is_zero()) => return Ok(None),
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(e) => return Err(EngineError::io("poll", "the container's monitor", e)),
        }
        match rustix::io::read(socket, &mut buffer) {
            Ok(0) | Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            Ok(n) => decoder.feed(&buffer[..n]),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(EngineError::io("read from", "the container's monitor", e)),
        }
    }
}
