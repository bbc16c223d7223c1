//! The monitor: one process with one thread for each running container. It makes the container, carries its streams, writes its
//! log, holds its ports, restarts it, records its end, cleans up and goes.
//!
//! It opens no database: it gets everything in its request and touches only the container's own folders. If it is killed, the
//! kernel kills the container's init with it, and the next command finds the record stale and repairs it.

pub(crate) mod cgroups;
pub(crate) mod client;
pub(crate) mod files;
pub(crate) mod launch;
pub(crate) mod log;
pub(crate) mod network;
pub(crate) mod presence;
pub(crate) mod request;
pub(crate) mod restart;
pub(crate) mod root;
pub(crate) mod streams;

use crate::hidden::Inherited;
use crate::idmap::IdMap;
use crate::protocol::{self, Failure, FrameKind, StopRequest};
use crate::state::{STATE_VERSION, State, boot_id};
use crate::{EngineError, ExitStatus, NetworkMode, ProcessId, Result, Status};
use jiff::Timestamp;
use linux::process::send_signal;
use linux::signal::SignalQueue;
use log::LogWriter;
use network::Network;
use presence::Presence;
use request::{JoinedNamespace, MonitorRequest, Report};
use restart::Restarts;
use runtime::Created;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use streams::{Request, Streams};

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
/// A container that has run for so long is not one of those that are gone at once: memory counts now.
const SETTLED: Duration = Duration::from_millis(500);
/// How long output may still come after the program's end.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);

/// Entry of the hidden mode.
pub(crate) fn run(inherited: Inherited) -> Result<()> {
    let Inherited { channel, second: lock, third: client } = inherited;
    let request: Option<MonitorRequest> =
        protocol::receive_message(channel.as_fd()).map_err(|e| EngineError::io("read", "the start request", e))?;
    let Some(request) = request else { return Ok(()) };
    launch::leave_caller(&request.cgroup_parent);
    let monitor = Monitor::new(request, channel, lock, client);
    monitor.and_then(Monitor::run)
}

struct Monitor {
    request: MonitorRequest,
    /// Of whoever started us; goes with the report.
    channel: Option<OwnedFd>,
    /// The container's lock: as long as we hold it the container is ours.
    lock: Option<OwnedFd>,
    presence: Presence,
    streams: Streams,
    network: Network,
    /// The container's user namespace, for all its restarts.
    users: Option<OwnedFd>,
    signals: SignalQueue,
    state: State,
    /// When to SIGKILL a program that was asked to stop.
    kill_at: Option<Instant>,
    /// When to give back what the start needed.
    shed_at: Option<Instant>,
    warnings: Vec<String>,
    /// Folders in the trash, to be unlinked when nobody waits any more.
    graves: Vec<PathBuf>,
}

impl Monitor {
    fn new(request: MonitorRequest, channel: OwnedFd, lock: OwnedFd, client: OwnedFd) -> Result<Monitor> {
        let result = Monitor::prepare(&request, client);
        let (presence, streams, signals) = match result {
            Ok(made) => made,
            Err(error) => {
                report(&channel, &Report::Failed { failure: Failure::of(&error), taken_port: None });
                return Err(error);
            }
        };
        let mut state = State::load(&request.folder)?;
        state.version = STATE_VERSION;
        state.restart_count = 0;
        state.stopped_by_user = false;
        Ok(Monitor {
            request,
            channel: Some(channel),
            lock: Some(lock),
            presence,
            streams,
            network: Network::default(),
            users: None,
            signals,
            state,
            kill_at: None,
            shed_at: None,
            warnings: Vec::new(),
            graves: Vec::new(),
        })
    }

    fn prepare(request: &MonitorRequest, client: OwnedFd) -> Result<(Presence, Streams, SignalQueue)> {
        if let Some(members) = &request.members {
            crate::rootless::stay(members)?;
        }
        let presence = Presence::enter(request.last_out.as_ref())?;
        let spec = &request.config.spec;
        let signals = SignalQueue::new(&[SIGTERM, 2, 1])?;
        let log = LogWriter::open(&request.folder, &spec.log)
            .map_err(|e| EngineError::io("open the log in", &request.folder, e))?;
        let listener = launch::listen(&request.run_dir)?;
        let mut streams = Streams::new(Some(listener), log, spec.stdin_once);
        if request.has_client {
            streams.add_client(client, true);
            // What the client wants, and its terminal's size, are on the way already.
            streams.turn(&[], Some(Instant::now())).map_err(|e| EngineError::io("poll", "the first client", e))?;
        }
        Ok((presence, streams, signals))
    }

    fn run(mut self) -> Result<()> {
        let mut created = match self.connect().and_then(|()| self.launch()) {
            Ok(created) => created,
            Err(error) => return self.failed(error),
        };
        self.report_started(&created);
        let mut restarts = Restarts::new(self.request.config.spec.restart);
        loop {
            let started = Instant::now();
            self.shed_at = Some(started + SETTLED);
            let code = self.watch(&mut created)?;
            let mut status = self.ended(&created, code);
            drop(created);
            created = loop {
                let pause = restarts.pause_after(status.code, started.elapsed(), self.state.stopped_by_user);
                let Some(pause) = pause else { return self.finish(&status) };
                if !self.wait_for_restart(pause, &status)? {
                    return self.finish(&status);
                }
                match self.launch() {
                    Ok(created) => break created,
                    Err(error) => status = self.restart_failed(&error),
                }
            };
        }
    }

    /// The network of the container, for all its restarts.
    fn connect(&mut self) -> Result<()> {
        let config = &self.request.config;
        self.users = config.id_map.as_ref().map(IdMap::namespace).transpose()?;
        let users = self.users.as_ref().map(AsFd::as_fd);
        let addresses = files::Addresses::of(self.request.network.as_ref(), self.request.user_network.is_some());
        self.network = match (&config.spec.network, &self.request.network) {
            (NetworkMode::None, _) => Network::isolated(users)?,
            (_, Some(request)) => Network::bridged(request, &config.id, &config.publish, users)?,
            _ => match &self.request.user_network {
                Some(programs) => {
                    let resolve = files::needs_name_server(config, addresses)?;
                    Network::of_user(programs, &self.request.run_dir, &config.publish, resolve, users)?
                }
                None => Network::foreign(),
            },
        };
        self.warnings.append(&mut self.network.warnings);
        let shared = self.request.joined.iter().any(|(kind, _)| *kind == JoinedNamespace::Network);
        if !shared && files::write(&self.request.folder, config, addresses)? && self.request.network.is_some() {
            let Monitor { network, streams, lock, channel, presence, .. } = self;
            network.start_forwarder(|| {
                presence.let_go();
                drop((std::mem::take(streams), lock.take(), channel.take()));
            })?;
        }
        Ok(())
    }

    /// Makes the container and executes its program.
    fn launch(&mut self) -> Result<Created> {
        let namespaces =
            launch::Namespaces { network: self.network.namespace(), users: self.users.as_ref().map(AsFd::as_fd) };
        let (mut created, warnings) = launch::create(&self.request, namespaces, &mut self.streams)?;
        self.warnings.extend(warnings);
        self.state.status = Status::Running;
        self.state.boot_id = boot_id();
        self.state.monitor = ProcessId::of(std::process::id().cast_signed());
        self.state.init = ProcessId::of(created.pid.as_raw_nonzero().get());
        self.state.started_at = Some(Timestamp::now());
        self.state.error.clear();
        self.state.exit_code = 0;
        self.state.oom_killed = false;
        self.state.address = self.request.network.as_ref().map(|n| n.address);
        self.state.ports = self.network.specs().to_vec();
        self.state.cgroup = Some(self.request.cgroup.clone());
        let recorded = self.state.save(&self.request.folder);
        if let Err(error) = recorded.and_then(|()| Ok(created.start()?)) {
            let _killed = send_signal(created.pidfd.as_fd(), SIGKILL);
            let _reaped = created.wait();
            self.streams.drain(Duration::ZERO);
            let _left = created.cgroup.remove();
            return Err(error);
        }
        Ok(created)
    }

    fn report_started(&mut self, created: &Created) {
        if let Some(channel) = self.channel.take() {
            let pid = created.pid.as_raw_nonzero().get();
            let warnings = std::mem::take(&mut self.warnings);
            report(&channel, &Report::Started { pid, warnings, ports: self.network.specs().to_vec() });
        }
    }

    /// Carries streams and requests until the program ends; its exit code.
    fn watch(&mut self, created: &mut Created) -> Result<u8> {
        loop {
            let mut others = vec![created.pidfd.as_fd(), self.signals.as_fd()];
            others.extend(self.network.descriptors());
            let deadline = self.kill_at.into_iter().chain(self.shed_at).min();
            let turned = self.streams.turn(&others, deadline);
            let (ready, requests) = turned.map_err(|e| EngineError::io("poll", "the container's streams", e))?;
            if ready.first() == Some(&true) {
                return Ok(created.wait()?);
            }
            if ready.get(2..).is_some_and(|ready| ready.contains(&true)) {
                let Monitor { network, streams, lock, presence, .. } = self;
                network.turn(|| {
                    presence.let_go();
                    drop((std::mem::take(streams), lock.take()));
                });
            }
            if self.signals.next().is_some() {
                self.begin_stop(created, &StopRequest { signal: self.stop_signal(), timeout_ms: self.stop_timeout() });
            }
            for request in requests {
                self.serve(created, request);
            }
            if self.shed_at.is_some_and(|at| at <= Instant::now()) {
                self.shed_at = None;
                linux::memory::shed();
            }
            if self.kill_at.is_some_and(|at| at <= Instant::now()) {
                self.kill_at = None;
                self.signal(created, SIGKILL);
            }
        }
    }

    fn serve(&mut self, created: &Created, request: Request) {
        match request {
            Request::Signal { signal, by_user } => {
                if by_user && (signal == SIGKILL || signal == self.stop_signal()) {
                    self.mark_stopped();
                }
                self.signal(created, signal);
            }
            Request::Stop(stop) => self.begin_stop(created, &stop),
            Request::Pause { client, pause } => {
                let answer = self.pause(created, pause).err().map(|e| e.to_string()).unwrap_or_default();
                self.streams.reply(client, FrameKind::Reply, answer.as_bytes());
            }
        }
    }

    fn begin_stop(&mut self, created: &Created, stop: &StopRequest) {
        self.mark_stopped();
        self.signal(created, stop.signal);
        self.kill_at = stop.timeout_ms.map(|timeout| Instant::now() + Duration::from_millis(timeout));
    }

    fn mark_stopped(&mut self) {
        if !self.state.stopped_by_user {
            self.state.stopped_by_user = true;
            let _unwritable = self.state.save(&self.request.folder);
        }
    }

    /// A frozen program takes no signal: it is thawed for one that ends it.
    fn signal(&mut self, created: &Created, signal: i32) {
        if self.state.status == Status::Paused && (signal == SIGKILL || self.state.stopped_by_user) {
            let _thawed = self.pause(created, false);
        }
        // It may have ended this moment.
        let _gone = send_signal(created.pidfd.as_fd(), signal);
    }

    fn pause(&mut self, created: &Created, pause: bool) -> Result<()> {
        let id = &self.request.config.id;
        match (pause, self.state.status) {
            (true, Status::Paused) => return Err(EngineError::State(format!("Container {id} is already paused"))),
            (false, Status::Running) => return Err(EngineError::State(format!("Container {id} is not paused"))),
            (true, _) if created.cgroup.path().is_empty() => {
                return Err(EngineError::State(format!(
                    "cannot pause container {id}: no control group was delegated to this user (see ctr info)"
                )));
            }
            (true, _) => created.cgroup.freeze()?,
            (false, _) => created.cgroup.thaw()?,
        }
        self.state.status = if pause { Status::Paused } else { Status::Running };
        self.state.save(&self.request.folder)
    }

    fn stop_signal(&self) -> i32 {
        linux::signal::parse(&self.request.config.stop_signal).unwrap_or(SIGTERM)
    }

    fn stop_timeout(&self) -> Option<u64> {
        let seconds = self.request.config.stop_timeout.unwrap_or(crate::lifecycle::DEFAULT_STOP_TIMEOUT_S);
        u64::try_from(seconds).ok().map(|s| s.saturating_mul(1000))
    }

    /// The program has ended: its output to the end, its cgroup away, its record.
    fn ended(&mut self, created: &Created, code: u8) -> ExitStatus {
        self.kill_at = None;
        if self.request.config.spec.pid != crate::NamespaceMode::Private {
            // Others of the pid namespace live on: those of this container must not.
            let _killed = created.cgroup.kill_all();
        }
        self.streams.drain(DRAIN_LIMIT);
        let oom_killed = code == 137 && created.cgroup.oom_kills().is_ok_and(|kills| kills > 0);
        let _left = created.cgroup.remove();
        self.state.status = Status::Exited;
        self.state.init = None;
        self.state.exit_code = code.into();
        self.state.oom_killed = oom_killed;
        self.state.finished_at = Some(Timestamp::now());
        ExitStatus { code: code.into(), oom_killed, error: String::new() }
    }

    /// Between an exit and the restart. False: the user said stop meanwhile.
    fn wait_for_restart(&mut self, pause: Duration, status: &ExitStatus) -> Result<bool> {
        self.state.status = Status::Restarting;
        self.state.restart_count += 1;
        self.state.save(&self.request.folder)?;
        self.streams.finish(status);
        let until = Instant::now() + pause;
        while Instant::now() < until {
            let turned = self.streams.turn(&[self.signals.as_fd()], Some(until));
            let (_, requests) = turned.map_err(|e| EngineError::io("poll", "clients", e))?;
            for request in requests {
                match request {
                    Request::Stop(_) => self.state.stopped_by_user = true,
                    Request::Signal { by_user, .. } => self.state.stopped_by_user |= by_user,
                    Request::Pause { client, .. } => {
                        let text = format!("Container {} is restarting", self.request.config.id);
                        self.streams.reply(client, FrameKind::Reply, text.as_bytes());
                    }
                }
            }
            if self.state.stopped_by_user || self.signals.next().is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn restart_failed(&mut self, error: &EngineError) -> ExitStatus {
        self.state.status = Status::Exited;
        self.state.init = None;
        self.state.exit_code = error.exit_code().into();
        self.state.error = error.to_string();
        self.state.finished_at = Some(Timestamp::now());
        ExitStatus { code: self.state.exit_code, oom_killed: false, error: self.state.error.clone() }
    }

    /// The first start came to nothing: as if it had never been tried, but for the reason.
    fn failed(mut self, error: EngineError) -> Result<()> {
        let failure = Failure::of(&error);
        let taken_port = match &error {
            EngineError::Network(::network::NetworkError::PortTaken { port, .. }) => Some(*port),
            _ => None,
        };
        if self.state.started_at.is_none() || self.state.status == Status::Running {
            self.state.status = Status::Created;
            self.state.started_at = None;
        }
        self.state.init = None;
        self.state.exit_code = failure.exit_code.into();
        self.state.error.clone_from(&failure.message);
        self.close();
        if let Some(channel) = self.channel.take() {
            report(&channel, &Report::Failed { failure, taken_port });
        }
        drop(self.network);
        self.presence.leave();
        Err(error)
    }

    /// The last end: everything away before anybody hears of it.
    fn finish(mut self, status: &ExitStatus) -> Result<()> {
        self.state.status = Status::Exited;
        self.close();
        self.streams.finish(status);
        drop((self.streams, self.network));
        for grave in self.graves {
            // What stays is swept up by a later command.
            let _left = std::fs::remove_dir_all(grave);
        }
        self.presence.leave();
        Ok(())
    }

    /// Name, ports and folders are free again after this.
    fn close(&mut self) {
        self.network.tear_down();
        self.state.monitor = None;
        self.state.ports.clear();
        self.state.address = None;
        let MonitorRequest { config, folder, run_dir, trash, anonymous_volumes, .. } = &self.request;
        if config.spec.auto_remove {
            let _made = std::fs::create_dir_all(trash);
            match launch::discard(folder, trash) {
                Some(grave) => self.graves.push(grave),
                None => drop(self.state.save(folder)),
            }
            self.graves.extend(anonymous_volumes.iter().filter_map(|volume| launch::discard(volume, trash)));
        } else {
            let _unwritable = self.state.save(folder);
        }
        launch::remove_run_dir(run_dir);
        self.streams.close_listener();
        self.lock = None;
    }
}

/// Nobody may be listening any more: the container lives on then all the same.
fn report(channel: &OwnedFd, report: &Report) {
    let _gone: io::Result<()> = protocol::send_message(channel.as_fd(), report);
}
