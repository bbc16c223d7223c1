//! run, create and start.

use super::args::{Args, OptionSpec};
use super::state::{State, check_id, now, start_time};
use super::terminal::{Relay, send_console};
use super::{CliError, Global};
use oci_spec::runtime::{Process, Spec};
use runtime::systemd::{Manager, Scope};
use runtime::{CgroupRequest, CreateRequest, Created, Root, Stdio, capabilities, hooks};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Pid;
use serde_json::Value;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

const OPTIONS: &[OptionSpec] = &[
    ("bundle", Some('b'), true),
    ("console-socket", None, true),
    ("pid-file", None, true),
    ("preserve-fds", None, true),
    ("no-pivot", None, false),
    ("no-new-keyring", None, false),
    ("detach", Some('d'), false),
    ("keep", None, false),
    ("init", None, false),
    ("no-subreaper", None, false),
];

/// The most descriptors handed on to a program.
const MAX_PRESERVED: u32 = 1024;

/// What create and run both need.
struct Bundle {
    path: PathBuf,
    spec: Spec,
    rootfs: PathBuf,
    cgroup: CgroupRequest,
    /// Groups above the container's that are not there yet.
    cgroup_parents: usize,
}

impl Bundle {
    fn load(global: &Global, args: &Args) -> Result<Bundle, CliError> {
        let path = Path::new(args.value("bundle").unwrap_or("."));
        let path = fs::canonicalize(path).map_err(|e| CliError::new(format!("bundle {}: {e}", path.display())))?;
        let config = path.join("config.json");
        let text = fs::read(&config).map_err(|e| CliError::new(format!("read {}: {e}", config.display())))?;
        let parse = |text: &[u8]| serde_json::from_slice::<Spec>(text);
        let spec = parse(&text).or_else(|error| understood(&text).map_or(Err(error), |text| parse(&text)));
        let mut spec = spec.map_err(|e| CliError::new(format!("parse {}: {e}", config.display())))?;
        if let Some(mut process) = spec.process().clone().filter(|_| listen_fds() > 0) {
            name_listen_fds(&mut process);
            spec.set_process(Some(process));
        }
        let root = spec.root().as_ref().ok_or_else(|| CliError::new("config.json: root is missing"))?;
        let rootfs = path.join(root.path());
        let rootfs =
            fs::canonicalize(&rootfs).map_err(|e| CliError::new(format!("rootfs {}: {e}", rootfs.display())))?;
        let mut bundle = Bundle { path, spec, rootfs, cgroup: CgroupRequest::Inherit, cgroup_parents: 0 };
        bundle.cgroup = bundle.cgroup(global, args.id()?)?;
        // Without a path of its own it is at the top: a group above it would be made and removed with each container.
        if let (CgroupRequest::Path(path), Some(_)) = (&bundle.cgroup, bundle.cgroups_path()) {
            bundle.cgroup_parents = runtime::Cgroup::open(path)?.missing_parents();
        }
        Ok(bundle)
    }

    fn has_terminal(&self) -> bool {
        self.spec.process().as_ref().is_some_and(|process| process.terminal() == Some(true))
    }

    fn cgroups_path(&self) -> Option<&Path> {
        let path = self.spec.linux().as_ref()?.cgroups_path().as_deref()?;
        Some(path).filter(|path| !path.as_os_str().is_empty())
    }

    fn cgroup(&self, global: &Global, id: &str) -> Result<CgroupRequest, CliError> {
        let path = self.cgroups_path();
        if global.systemd {
            let path = path.map(Path::to_string_lossy);
            return Ok(CgroupRequest::Systemd(Scope::new(manager()?, path.as_deref(), id)?));
        }
        Ok(CgroupRequest::Path(match path {
            Some(path) => Path::new("/").join(path).to_string_lossy().into_owned(),
            None => format!("/ctr-runtime-{id}"),
        }))
    }
}

/// Whose systemd makes this user's control groups.
fn manager() -> Result<Manager, CliError> {
    if linux::userns::is_machines_root() {
        return Ok(Manager::System);
    }
    let folder = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty());
    let folder = folder.ok_or_else(|| {
        CliError::new(
            "--systemd-cgroup: XDG_RUNTIME_DIR is not set, by which an ordinary user's systemd is found; log in anew",
        )
    })?;
    Ok(Manager::User(folder.into()))
}

/// A config in the words of the library that reads it: without capabilities that only a younger kernel would know (they
/// can't be granted, which is no failure), and with its names of the scheduler's flags.
fn understood(config: &[u8]) -> Option<Vec<u8>> {
    let mut config: Value = serde_json::from_slice(config).ok()?;
    let sets = config.pointer_mut("/process/capabilities").and_then(Value::as_object_mut);
    for set in sets.into_iter().flat_map(serde_json::Map::values_mut).filter_map(Value::as_array_mut) {
        set.retain(|name| name.as_str().is_some_and(|name| capabilities::by_name(name).is_some()));
    }
    let flags = config.pointer_mut("/process/scheduler/flags").and_then(Value::as_array_mut);
    for flag in flags.into_iter().flatten() {
        match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => *flag = "SCHED_RESET_ON_FORK".into(),
            Some("SCHED_FLAG_DL_OVERRUN") => *flag = "SCHED_FLAG_D_L_OVERRUN".into(),
            _ => {}
        }
    }
    serde_json::to_vec(&config).ok()
}

/// Copies of this process's own streams.
pub(super) fn own_streams() -> Result<Stdio, CliError> {
    let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(|e| CliError::new(format!("dup: {e}")));
    Ok(Stdio::Fds {
        stdin: copy(rustix::stdio::stdin())?,
        stdout: copy(rustix::stdio::stdout())?,
        stderr: copy(rustix::stdio::stderr())?,
    })
}

pub(super) fn terminal_size(console: Option<oci_spec::runtime::Box>) -> Option<(u16, u16)> {
    let size = console?;
    Some((u16::try_from(size.height()).ok()?, u16::try_from(size.width()).ok()?)).filter(|size| *size != (0, 0))
}

/// Takes over what the caller left open for the program – descriptors of `$LISTEN_FDS`, then those of `--preserve-fds N` –
/// and closes whatever else it left open: a waiting init must not hold a pipe whose end somebody waits for.
///
/// First thing in a command, before it opens anything itself.
pub(super) fn inherited(args: &Args) -> Result<Vec<OwnedFd>, CliError> {
    let preserved: u32 = args.number("preserve-fds")?.unwrap_or(0);
    let count = preserved.saturating_add(listen_fds());
    if count > MAX_PRESERVED {
        return Err(CliError::new(format!("--preserve-fds {preserved}: at most {MAX_PRESERVED}")));
    }
    linux::spawn::close_from(3 + count)?;
    let taken = (3..).take(count.try_into().unwrap_or(0)).map(linux::spawn::take_inherited);
    taken.collect::<Result<_, _>>().map_err(|e| CliError::new(format!("--preserve-fds {preserved}: {e}")))
}

/// How many sockets a supervisor passes on (sd_listen_fds(3)).
pub(super) fn listen_fds() -> u32 {
    std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Tells the program of them.
pub(super) fn name_listen_fds(process: &mut Process) {
    let count = listen_fds();
    if count > 0 {
        let mut env = process.env().clone().unwrap_or_default();
        env.extend([format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()]);
        process.set_env(Some(env));
    }
}

/// Writes a pid where somebody may be looking already: whole or not at all.
pub(super) fn write_pid(file: &str, pid: Pid) -> Result<(), CliError> {
    let at = |e: std::io::Error| CliError::new(format!("write {file}: {e}"));
    let path = Path::new(file);
    let name = path.file_name().ok_or_else(|| CliError::new(format!("--pid-file {file:?}: not a file's name")))?;
    let temporary = path.with_file_name(format!(".{}", name.to_string_lossy()));
    fs::write(&temporary, pid.as_raw_nonzero().to_string()).map_err(at)?;
    fs::rename(&temporary, path).map_err(at)
}

fn make(
    global: &Global,
    args: &Args,
    bundle: &Bundle,
    extra_fds: Vec<OwnedFd>,
    wait_for_start: bool,
) -> Result<Created, CliError> {
    let id = args.id()?;
    let size = terminal_size(bundle.spec.process().as_ref().and_then(|process| process.console_size()));
    if args.value("console-socket").is_some() && !bundle.has_terminal() {
        return Err(CliError::new("--console-socket is of no use: process.terminal is false"));
    }
    let request = CreateRequest {
        id,
        spec: &bundle.spec,
        bundle: &bundle.path,
        root: Root::Path(bundle.rootfs.clone()),
        stdio: if bundle.has_terminal() { Stdio::Terminal { size } } else { own_streams()? },
        netns: None,
        mount_sources: Vec::new(),
        cgroup: bundle.cgroup.clone(),
        die_with_parent: false,
        init: args.flag("init"),
        extra_fds,
        no_pivot: args.flag("no-pivot"),
        no_new_keyring: args.flag("no-new-keyring"),
    };
    let mut created = if wait_for_start {
        runtime::create_listening(request, listen(&State::listener(global, id))?)?
    } else {
        runtime::create(request)?
    };
    let finished = finish(global, args, bundle, &mut created, wait_for_start);
    if finished.is_err() {
        let _killed = created.kill(rustix::process::Signal::KILL);
        let _reaped = created.wait();
        let _removed = created.cgroup.remove();
    }
    finished.map(|()| created)
}

/// Writes down what was made: what its maker starts at once counts as started, nobody else could do it.
fn finish(
    global: &Global,
    args: &Args,
    bundle: &Bundle,
    created: &mut Created,
    wait_for_start: bool,
) -> Result<(), CliError> {
    let id = args.id()?;
    for warning in &created.warnings {
        global.log.warn(warning);
    }
    let pid = created.pid.as_raw_nonzero().get();
    let state = State {
        oci_version: runtime::OCI_VERSION.to_owned(),
        id: id.to_owned(),
        pid,
        pid_start_time: start_time(pid).unwrap_or(0),
        bundle: bundle.path.clone(),
        rootfs: bundle.rootfs.clone(),
        created: now(),
        started: !wait_for_start,
        cgroup: created.cgroup.path().to_owned(),
        scope: created.cgroup.scope().cloned(),
        cgroup_parents: bundle.cgroup_parents,
        mount_namespace: runtime::joined_mount_namespace(&bundle.spec),
        config: bundle.spec.clone(),
        folder: None,
    };
    state.save(global)?;
    // Without a socket the terminal stays with this process, which serves it.
    if let Some(socket) = args.value("console-socket")
        && let Some(console) = created.console.take()
    {
        send_console(Path::new(socket), console.as_fd())?;
    }
    if let Some(file) = args.value("pid-file") {
        write_pid(file, created.pid)?;
    }
    Ok(())
}

/// Makes the state folder: its name is the lock on the id.
fn claim(global: &Global, id: &str) -> Result<(), CliError> {
    check_id(id)?;
    let at = |error: std::io::Error| CliError::new(format!("create {}: {error}", State::folder(global, id).display()));
    fs::create_dir_all(&global.root).map_err(at)?;
    match fs::create_dir(State::folder(global, id)) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(CliError::new(format!("container with given ID already exists: {id}")))
        }
        done => done.map_err(at),
    }
}

/// After a failure: the group is gone already, its parents are not.
fn forget_cgroup(bundle: &Bundle) {
    if let CgroupRequest::Path(path) = &bundle.cgroup {
        let _removed = runtime::Cgroup::open(path).and_then(|cgroup| cgroup.remove_with_parents(bundle.cgroup_parents));
    }
}

fn release(global: &Global, id: &str) {
    // What can't be removed shows as a container that does not exist any more.
    let _removed = fs::remove_dir_all(State::folder(global, id));
}

pub(super) fn create(global: &Global, args: &[String]) -> Result<u8, CliError> {
    let args = Args::parse(args, OPTIONS, usize::MAX)?;
    let id = args.id()?;
    let extra_fds = inherited(&args)?;
    let bundle = Bundle::load(global, &args)?;
    if bundle.has_terminal() && args.value("console-socket").is_none() {
        return Err(CliError::new("cannot allocate tty if runc will detach without setting console socket"));
    }
    claim(global, id)?;
    make(global, &args, &bundle, extra_fds, true).inspect_err(|_| {
        forget_cgroup(&bundle);
        release(global, id);
    })?;
    Ok(0)
}

pub(super) fn start(global: &Global, args: &[String]) -> Result<u8, CliError> {
    let args = Args::parse(args, &[], usize::MAX)?;
    let mut state = State::load(global, args.id()?)?;
    match state.status() {
        "created" => {}
        "stopped" => return Err(CliError::new("cannot start a container that has stopped")),
        _ => return Err(CliError::new("cannot start an already running container")),
    }
    let listener = State::listener(global, &state.id);
    let connection = connect(&listener)?;
    runtime::start_over(connection.as_fd())?;
    let _removed = fs::remove_file(listener);
    state.started = true;
    state.save(global)?;
    poststart(&state)?;
    Ok(0)
}

fn poststart(state: &State) -> Result<(), CliError> {
    let hooks = state.config.hooks().as_ref().and_then(|hooks| hooks.poststart().as_deref()).unwrap_or_default();
    hooks::run(hooks, state.shown().to_string().as_bytes()).map_err(|why| {
        // A failing poststart hook stops the container (runtime-spec 1.3).
        if let Some((_, init)) = state.init() {
            let _gone = linux::process::send_signal(init.as_fd(), rustix::process::Signal::KILL.as_raw());
        }
        CliError::new(why)
    })
}

pub(super) fn run(global: &Global, args: &[String]) -> Result<u8, CliError> {
    let args = Args::parse(args, OPTIONS, usize::MAX)?;
    let id = args.id()?;
    let extra_fds = inherited(&args)?;
    let bundle = Bundle::load(global, &args)?;
    let detach = args.flag("detach");
    if detach && bundle.has_terminal() && args.value("console-socket").is_none() {
        return Err(CliError::new("cannot allocate tty if runc will detach without setting console socket"));
    }
    claim(global, id)?;
    let relay = if detach { None } else { Some(Relay::prepare().inspect_err(|_| release(global, id))?) };
    let result = run_created(global, &args, &bundle, extra_fds, relay);
    if (!detach && !args.flag("keep")) || result.is_err() {
        if let Ok(state) = State::load(global, id) {
            super::commands::remove(global, &state)?;
        }
        if result.is_err() {
            forget_cgroup(&bundle);
        }
        release(global, id);
    }
    result
}

fn run_created(
    global: &Global,
    args: &Args,
    bundle: &Bundle,
    extra_fds: Vec<OwnedFd>,
    relay: Option<Relay>,
) -> Result<u8, CliError> {
    let mut created = make(global, args, bundle, extra_fds, false)?;
    created.start()?;
    if has_poststart(bundle) {
        poststart(&State::load(global, args.id()?)?)?;
    }
    match relay {
        Some(relay) => relay.until_exit(created.pidfd.as_fd(), created.console.take()),
        None => Ok(0),
    }
}

fn has_poststart(bundle: &Bundle) -> bool {
    bundle.spec.hooks().as_ref().is_some_and(|hooks| hooks.poststart().is_some())
}

fn socket() -> Result<OwnedFd, CliError> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|e| CliError::new(format!("socket: {e}")))
}

/// A socket's address through its folder's descriptor, to be kept open meanwhile: containerd's state folders are deeper than
/// the 107 bytes an address may have.
fn address(path: &Path) -> Result<(OwnedFd, SocketAddrUnix), CliError> {
    let at = |why: &dyn std::fmt::Display| CliError::new(format!("socket {}: {why}", path.display()));
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Err(at(&"no file name")) };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, flags, Mode::empty()).map_err(|e| at(&e))?;
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    let address = SocketAddrUnix::new(&short).map_err(|e| at(&e))?;
    Ok((folder, address))
}

fn listen(path: &Path) -> Result<OwnedFd, CliError> {
    let (socket, (_folder, address)) = (socket()?, address(path)?);
    rustix::net::bind(&socket, &address)
        .and_then(|()| rustix::net::listen(&socket, 1))
        .map_err(|e| CliError::new(format!("listen on {}: {e}", path.display())))?;
    Ok(socket)
}

fn connect(path: &Path) -> Result<OwnedFd, CliError> {
    let (socket, (_folder, address)) = (socket()?, address(path)?);
    rustix::net::connect(&socket, &address)
        .map_err(|e| CliError::new(format!("connect to {}: {e}", path.display())))?;
    Ok(socket)
}
