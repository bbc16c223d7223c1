//! A container without a record: one RUN of a build. Its root is the layers so far plus a writable upper that
//! becomes the next layer.

use crate::attach::{Control, socket_pair};
use crate::config::{ContainerConfig, MountPoint};
use crate::hidden::{self, Inherited};
use crate::monitor::cgroups::groups_below;
use crate::monitor::launch;
use crate::monitor::network::Network;
use crate::monitor::presence::{LastOut, Presence};
use crate::monitor::request::NetworkRequest;
use crate::monitor::streams::{Program, Streams};
use crate::monitor::{files, root};
use crate::net::DEFAULT_NETWORK;
use crate::ocispec::{self, SpecInput};
use crate::protocol::{self, Failure};
use crate::stubs::Stubs;
use crate::{
    AttachEvent, AttachOptions, Attached, Engine, EngineError, ExitStatus, LogStream, MountKind, NetworkMode, Result,
    Ulimit,
};
use ::network::UserNetwork;
use oci::UserSpec;
use runtime::{CreateRequest, Created, MountSource, Root, Stdio};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

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
    /// As `run --privileged` has it.
    pub privileged: bool,
    /// It gets a terminal of its own.
    pub terminal: bool,
    /// Bytes of /dev/shm; none is the default.
    pub shm_size_bytes: Option<u64>,
    /// Limits of its processes.
    pub ulimits: Vec<Ulimit>,
}

/// What a RUN step mounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepSource {
    /// A file or folder of the host.
    Path(PathBuf),
    /// Folders, the lowest first, as one. `writes`: a folder that takes what is written, beside it overlay's work folder.
    Layers {
        /// On the host.
        folders: Vec<PathBuf>,
        /// None: read-only.
        writes: Option<PathBuf>,
    },
    /// Memory.
    Tmpfs {
        /// At most so many bytes.
        size_bytes: Option<u64>,
    },
}

/// A mount of a RUN step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepMount {
    /// What.
    pub source: StepSource,
    /// In the container, absolute; made where missing, and removed again from the upper if it was.
    pub target: String,
    /// Read-only.
    pub read_only: bool,
}

/// What a helper is started with.
#[derive(Debug, Serialize, Deserialize)]
struct HelperRequest {
    id: String,
    step: StepRequest,
    network: Option<NetworkRequest>,
    #[serde(default)]
    user_network: Option<UserNetwork>,
    cgroup: String,
    cgroup_parent: String,
    last_out: Option<LastOut>,
}

#[derive(Debug, Serialize, Deserialize)]
enum HelperReport {
    Started,
    Failed(Failure),
}

/// The host's name in a step.
const HOSTNAME: &str = "buildstep";
const DRAIN_LIMIT: Duration = Duration::from_millis(500);

/// What ends the steps of one build together: those that run are killed, later ones are not begun.
#[derive(Debug, Default)]
pub struct Cancel {
    is_cancelled: AtomicBool,
    /// The steps that run, by a number each.
    running: Mutex<BTreeMap<usize, Attached>>,
}

impl Cancel {
    /// Ends them; once is enough.
    pub fn cancel(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_cancelled.store(true, Ordering::SeqCst);
        for step in running.values() {
            // One that cannot be reached has ended.
            let _ended = step.signal(Signal::KILL.as_raw());
        }
    }

    /// Whether they are, or are just being, ended.
    pub fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::SeqCst)
    }

    /// Does `work` for a step that runs, within reach of [`Cancel::cancel`].
    fn within<T>(&self, step: &Attached, work: impl FnOnce() -> T) -> Result<T> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.insert(number, step.try_clone()?);
        if self.is_cancelled() {
            let _ended = step.signal(Signal::KILL.as_raw());
        }
        drop(running);
        let done = work();
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        Ok(done)
    }
}

impl Engine {
    /// Runs one step to its end; `output` gets what it writes. Callable from several threads at once. The step dies with
    /// the caller, and by `cancel`.
    pub fn run_step(
        &self,
        request: &StepRequest,
        cancel: &Cancel,
        output: &mut dyn FnMut(LogStream, &[u8]),
    ) -> Result<ExitStatus> {
        let options = AttachOptions { stdin: false, stdout: true, stderr: true, size: None };
        self.with_step(request, options, |mut attached| {
            let handle = attached.try_clone()?;
            cancel.within(&handle, || follow(&mut attached, output))?
        })
    }

    /// Runs one step in the foreground of a user, who is at the other end of what `session` gets.
    pub fn attach_step<T>(
        &self,
        request: &StepRequest,
        options: AttachOptions,
        session: impl FnOnce(Attached) -> T,
    ) -> Result<T> {
        self.with_step(request, options, |attached| Ok(session(attached)))
    }

    fn with_step<T>(
        &self,
        request: &StepRequest,
        options: AttachOptions,
        work: impl FnOnce(Attached) -> Result<T>,
    ) -> Result<T> {
        if request.argv.first().is_none_or(String::is_empty) {
            return Err(EngineError::Invalid("a step without a command".to_owned()));
        }
        self.sweep_steps();
        crate::apparmor::load_default(&self.config().search_path);
        let id = store::new_id()?;
        let rootless = self.config().rootless.is_some();
        let user_network = (rootless && request.network == NetworkMode::Bridge).then(|| self.user_network());
        let network = match &request.network {
            NetworkMode::Bridge if !rootless => {
                let network = self.default_network()?;
                let subnet = (network.subnet.network(), network.subnet.prefix_len());
                // Addresses rotate: this one is not given out again for a long time, though no container holds it.
                let address = self.store().allocate_address(DEFAULT_NETWORK, subnet, network.gateway, &id, None)?;
                Some(NetworkRequest { network, address })
            }
            _ => None,
        };
        let helper = HelperRequest {
            cgroup: self.step_cgroup(&id),
            cgroup_parent: self.monitors_parent(),
            last_out: self.last_out(),
            id,
            step: request.clone(),
            network,
            user_network,
        };
        let done = start_helper(&helper, options).and_then(work);
        if helper.network.is_some() {
            // Only the row is left; the next command would clear it as well.
            let _later = self.store().release_addresses(&helper.id, None);
        }
        done
    }

    /// A step's group names the process it dies with, so that what a killed build leaves behind can be told.
    fn step_cgroup(&self, id: &str) -> String {
        let short: String = id.chars().take(16).collect();
        match self.cgroup_parent() {
            parent if parent.is_empty() => parent,
            parent => format!("{parent}/step-{}-{short}", std::process::id()),
        }
    }

    /// Removes the control groups of steps whose callers were killed.
    pub(crate) fn sweep_steps(&self) {
        for (name, pid) in groups_below(&self.cgroup_parent(), "step-") {
            if crate::ProcessId::of(pid).is_none() {
                let cgroup = runtime::Cgroup::open(&format!("{}/{name}", self.cgroup_parent()));
                // One that another command removes this moment is gone as well.
                let _gone = cgroup.and_then(|cgroup| cgroup.kill_all().and_then(|()| cgroup.remove()));
            }
        }
    }
}

fn start_helper(helper: &HelperRequest, options: AttachOptions) -> Result<Attached> {
    let (ours, theirs) = socket_pair()?;
    let (client, their_client) = socket_pair()?;
    let (control, their_control) = socket_pair()?;
    let attached = Attached::new(client, Control::Socket(Arc::new(control)));
    attached.announce(options)?;
    let label: String = helper.id.chars().take(12).collect();
    hidden::start(hidden::STEP, &label, [theirs.as_fd(), their_client.as_fd(), their_control.as_fd()])?;
    drop((theirs, their_client, their_control));
    let gone = |e| EngineError::io("talk to", "the step's helper", e);
    protocol::send_message(ours.as_fd(), helper).map_err(gone)?;
    match protocol::receive_message(ours.as_fd()).map_err(gone)? {
        Some(HelperReport::Started) => Ok(attached),
        Some(HelperReport::Failed(failure)) => Err(failure.into()),
        None => Err(EngineError::Invalid("the step's helper died".to_owned())),
    }
}

/// Hands a step's output on until it ends.
fn follow(attached: &mut Attached, output: &mut dyn FnMut(LogStream, &[u8])) -> Result<ExitStatus> {
    loop {
        match attached.next()? {
            Some(AttachEvent::Stdout(bytes)) => output(LogStream::Stdout, &bytes),
            Some(AttachEvent::Stderr(bytes)) => output(LogStream::Stderr, &bytes),
            Some(AttachEvent::Exit(status)) => return Ok(status),
            None => return Err(EngineError::Invalid("the step was killed".to_owned())),
        }
    }
}

/// Entry of the hidden mode.
pub(crate) fn run(inherited: Inherited) -> Result<()> {
    let Inherited { channel, second: client, third: control } = inherited;
    // Whoever started us waits; if it is killed, so are we, and by us the container.
    let _set = set_parent_process_death_signal(Some(Signal::KILL));
    let request: Option<HelperRequest> =
        protocol::receive_message(channel.as_fd()).map_err(|e| EngineError::io("read", "the step request", e))?;
    let Some(request) = request else { return Ok(()) };
    launch::leave_caller(&request.cgroup_parent);
    let mut streams = Streams::new(None, None, true);
    streams.add_client(client, true);
    streams.add_client(control, true);
    let presence = Presence::enter(request.last_out.as_ref())?;
    let mut step = Step { request: &request, presence, network: Network::default(), stubs: Stubs::default() };
    let created = step.launch(&mut streams);
    let (mut created, report) = match created {
        Ok(created) => (Some(created), HelperReport::Started),
        Err(error) => (None, HelperReport::Failed(Failure::of(&error))),
    };
    if created.is_some() {
        let _gone = protocol::send_message(channel.as_fd(), &report);
    }
    let mut status = ExitStatus::default();
    if let Some(created) = &mut created {
        let code = crate::exec::carry(&created.pidfd, &mut streams)?;
        streams.drain(DRAIN_LIMIT);
        status.code = code.into();
        status.oom_killed = code == 137 && created.cgroup.oom_kills().is_ok_and(|kills| kills > 0);
        let _left = created.cgroup.remove();
    }
    step.clear();
    // The container is gone. Told so, the build may end at once, and what is left to remove is ours alone.
    let _outlive = set_parent_process_death_signal(None);
    if created.is_none() {
        let _gone = protocol::send_message(channel.as_fd(), &report);
    }
    streams.finish(&status);
    drop((streams, channel, step.network));
    step.presence.leave();
    Ok(())
}

struct Step<'a> {
    request: &'a HelperRequest,
    presence: Presence,
    network: Network,
    stubs: Stubs,
}

impl Step<'_> {
    fn launch(&mut self, streams: &mut Streams) -> Result<Created> {
        let step = &self.request.step;
        let config = config(self.request);
        let folder = self.files();
        std::fs::create_dir_all(&folder).map_err(|e| EngineError::io("make", &folder, e))?;
        let addresses = files::Addresses::of(self.request.network.as_ref(), self.request.user_network.is_some());
        self.network = match (&step.network, &self.request.network) {
            (NetworkMode::None, _) => Network::isolated(None)?,
            (_, Some(network)) => Network::bridged(network, &self.request.id, &[], None)?,
            _ => match &self.request.user_network {
                Some(programs) => {
                    let resolve = files::needs_name_server(&config, addresses)?;
                    Network::of_user(programs, &folder, &[], resolve, None)?
                }
                None => Network::foreign(),
            },
        };
        if files::write(&folder, &config, addresses)? && self.request.network.is_some() {
            let Step { network, presence, .. } = self;
            network.start_forwarder(|| {
                presence.let_go();
                drop(std::mem::take(streams));
            })?;
        }
        let parent = step.upper.parent().unwrap_or(std::path::Path::new("/"));
        let mounted = root::mount(&step.layers, &step.upper, parent, root::Owners::Own)?;
        let user: UserSpec = step.user.parse().map_err(|e| EngineError::Invalid(format!("{e}")))?;
        let user = runtime::resolve_user(mounted.as_fd(), &user).map_err(runtime::RuntimeError::from)?;
        ocispec::ensure_workdir(mounted.as_fd(), &step.cwd)?;
        let owner = (user.uid, user.gid);
        let input = SpecInput { config: &config, user, groups: Vec::new(), files: &folder, joined: &[] };
        let (spec, _) = ocispec::build(&input)?;
        self.stubs = Stubs::missing(mounted.as_fd(), &spec);
        let (stdio, pipes) = if step.terminal {
            // The client's size may be on its way.
            streams.turn(&[], Some(Instant::now())).map_err(|e| EngineError::io("poll", "the client", e))?;
            (Stdio::Terminal { size: streams.initial_size() }, None)
        } else {
            let (stdio, program) = launch::pipes(step.stdin.is_some(), owner)?;
            (stdio, Some(program))
        };
        let mut created = runtime::create(CreateRequest {
            id: &self.request.id,
            spec: &spec,
            bundle: parent,
            root: Root::Mounted(mounted),
            stdio,
            netns: self.network.namespace(),
            mount_sources: self.sources()?,
            cgroup: launch::cgroup_request(&self.request.cgroup),
            die_with_parent: true,
            init: false,
            extra_fds: Vec::new(),
            no_pivot: false,
            no_new_keyring: false,
        })?;
        if let Some(program) = pipes.or_else(|| created.console.take().map(Program::Console)) {
            streams.set_program(program).map_err(|e| EngineError::io("connect", "the step's streams", e))?;
        }
        if let Some(input) = &step.stdin {
            streams.give_stdin(input);
        }
        if let Err(error) = created.start() {
            let _reaped = created.wait();
            let _left = created.cgroup.remove();
            return Err(error.into());
        }
        Ok(created)
    }

    /// The mounts that are made of several folders.
    fn sources(&self) -> Result<Vec<MountSource>> {
        let mut sources = Vec::new();
        for mount in &self.request.step.mounts {
            let StepSource::Layers { folders, writes } = &mount.source else { continue };
            let mount_of = |writes: Option<&PathBuf>| match writes {
                None => root::view(folders),
                Some(upper) => root::mount(folders, upper, upper.parent().unwrap_or(upper), root::Owners::Own),
            };
            sources.push(MountSource { destination: PathBuf::from(&mount.target), mount: mount_of(writes.as_ref())? });
        }
        Ok(sources)
    }

    fn files(&self) -> PathBuf {
        let name = format!("files.{}", std::process::id());
        self.request.step.upper.parent().map(|parent| parent.join(name)).unwrap_or_default()
    }

    /// Leaves in the upper only what the program made.
    fn clear(&mut self) {
        self.network.tear_down();
        let _left = std::fs::remove_dir_all(self.files());
        if let Some(parent) = self.request.step.upper.parent() {
            root::remove_work(parent);
            let _none = std::fs::remove_dir(parent.join("empty"));
        }
        self.stubs.remove(&self.request.step.upper);
    }
}

fn config(request: &HelperRequest) -> ContainerConfig {
    let step = &request.step;
    let mount = |mount: &StepMount| {
        let (kind, source, size) = match &mount.source {
            StepSource::Path(path) => (MountKind::Bind, path.clone(), None),
            // What is mounted is handed over; this is its name in messages.
            StepSource::Layers { folders, .. } => (MountKind::Bind, folders.last().cloned().unwrap_or_default(), None),
            StepSource::Tmpfs { size_bytes } => (MountKind::Tmpfs, PathBuf::new(), *size_bytes),
        };
        let size = size.map(|size| format!("size={size}"));
        let options = ["exec".to_owned()].into_iter().chain(size).collect();
        let (target, read_only) = (mount.target.clone(), mount.read_only);
        MountPoint { kind, source, target, read_only, recursive: true, options, ..MountPoint::default() }
    };
    let mut config = ContainerConfig {
        id: request.id.clone(),
        argv: step.argv.clone(),
        env: step.env.clone(),
        user: step.user.clone(),
        workdir: step.cwd.clone(),
        hostname: HOSTNAME.to_owned(),
        mounts: step.mounts.iter().map(mount).collect(),
        ..ContainerConfig::default()
    };
    config.spec.tty = step.terminal;
    config.spec.privileged = step.privileged;
    config.spec.network = step.network.clone();
    config.spec.add_hosts.clone_from(&step.add_hosts);
    config.spec.shm_size_bytes = step.shm_size_bytes;
    config.spec.ulimits.clone_from(&step.ulimits);
    config
}
