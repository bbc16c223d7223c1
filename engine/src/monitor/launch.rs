//! The steps of a start: socket, root, spec, streams, container.

use super::request::{JoinedNamespace, MonitorRequest};
use super::root;
use super::streams::{Program, Streams};
use crate::attach::socket_address;
use crate::idmap::IdMap;
use crate::ocispec::{self, SpecInput};
use crate::{EngineError, Result, UserNamespaceMode};
use oci::UserSpec;
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use runtime::{CgroupRequest, CreateRequest, Created, Root, Stdio};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen as listen_on, socket_with};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::{DirBuilder, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The socket's name in the container's run folder.
pub(crate) const SOCKET: &str = "attach.sock";
/// The writable layer's name in the container's folder.
pub(crate) const UPPER: &str = "upper";

/// A monitor belongs to nobody's terminal, folder or limits.
pub(crate) fn leave_caller(cgroup_parent: &str) {
    let _root = rustix::process::chdir("/");
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    super::cgroups::leave_caller(cgroup_parent);
}

/// The socket that clients connect to.
pub(crate) fn listen(run_dir: &Path) -> Result<OwnedFd> {
    let error = |e: std::io::Error| EngineError::io("listen in", run_dir, e);
    DirBuilder::new().recursive(true).mode(0o700).create(run_dir).map_err(error)?;
    let path = run_dir.join(SOCKET);
    match std::fs::remove_file(&path) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(error(e)),
    }
    let (_folder, address) = socket_address(&path).map_err(error)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(|e| error(e.into()))?;
    bind(&socket, &address).map_err(|e| error(e.into()))?;
    listen_on(&socket, 128).map_err(|e| error(e.into()))?;
    Ok(socket)
}

/// Namespaces that outlive a restart.
#[derive(Clone, Copy)]
pub(crate) struct Namespaces<'a> {
    pub(crate) network: Option<BorrowedFd<'a>>,
    pub(crate) users: Option<BorrowedFd<'a>>,
}

/// Makes the container: its program waits for [`Created::start`], its streams are connected.
pub(crate) fn create(
    request: &MonitorRequest,
    namespaces: Namespaces<'_>,
    streams: &mut Streams,
) -> Result<(Created, Vec<String>)> {
    let config = &request.config;
    let root = root::mount(
        &request.layers,
        &request.folder.join(UPPER),
        &request.folder,
        root::Owners::of(config, namespaces.users),
    )?;
    let added = add_own_user(request, root.as_fd())?;
    let user: UserSpec = config.user.parse().map_err(|e| EngineError::Invalid(format!("{e}")))?;
    let user = match &added {
        Some((passwd, group)) => runtime::resolve_user_in(&user, passwd, group),
        None => runtime::resolve_user(root.as_fd(), &user),
    }
    .map_err(runtime::RuntimeError::from)?;
    let groups = runtime::resolve_groups(root.as_fd(), &config.spec.group_add).map_err(runtime::RuntimeError::from)?;
    if config.id_map.is_none() {
        // Else its owner is to be the container's root, and so its maker.
        ocispec::ensure_workdir(root.as_fd(), &config.workdir)?;
    }
    let joined = joined(request, namespaces.users);
    let owner = config.outside(user.uid, user.gid);
    let input = SpecInput { config, user, groups, files: &request.files, joined: &joined };
    let (mut spec, mut warnings) = ocispec::build(&input)?;
    if added.is_some() {
        mount_users(&mut spec, request);
    }
    if request.cgroup.is_empty() {
        warnings.extend(ocispec::unlimited(&spec));
    }
    let (stdio, pipes) = if config.spec.tty {
        (Stdio::Terminal { size: streams.initial_size() }, None)
    } else {
        let (stdio, program) = pipes(config.spec.open_stdin, owner)?;
        (stdio, Some(program))
    };
    let mut created = runtime::create(CreateRequest {
        id: &config.id,
        spec: &spec,
        bundle: &request.folder,
        root: Root::Mounted(root),
        stdio,
        netns: namespaces.network,
        mount_sources: Vec::new(),
        cgroup: cgroup_request(&request.cgroup),
        die_with_parent: true,
        init: config.spec.init,
        extra_fds: Vec::new(),
        no_pivot: false,
        no_new_keyring: false,
    })?;
    warnings.append(&mut created.warnings);
    let program = pipes.or_else(|| created.console.take().map(Program::Console));
    if let Some(program) = program {
        streams.set_program(program).map_err(|e| EngineError::io("connect", "the container's streams", e))?;
    }
    Ok((created, warnings))
}

/// The files that [`add_own_user`] writes, and where they go.
const USER_FILES: [(&str, &str); 2] = [("passwd", "/etc/passwd"), ("group", "/etc/group")];

/// Who keeps his id (`--userns keep-id`) keeps his name, too: the image's passwd and group with him, written to the container's
/// folder. None where the image knows the id, or the user has mounted such a file himself.
fn add_own_user(request: &MonitorRequest, root: BorrowedFd<'_>) -> Result<Option<(String, String)>> {
    let config = &request.config;
    let mounted = config.mounts.iter().any(|mount| USER_FILES.iter().any(|(_, target)| mount.target == *target));
    if mounted || linux::userns::is_initial() || !matches!(config.spec.userns, UserNamespaceMode::KeepId { .. }) {
        return Ok(None);
    }
    let Some(ids) = config.id_map.as_ref().and_then(IdMap::of_root) else { return Ok(None) };
    let outside = linux::userns::user_map().iter().find(|range| range.inside == 0).map_or(0, |range| range.outside);
    let name = crate::rootless::user_name(outside).unwrap_or_default();
    let home = ocispec::working_dir(&config.workdir);
    let added = runtime::files_with_user(root, &name, ids, &home.to_string_lossy());
    let Some((passwd, group)) = added.map_err(runtime::RuntimeError::from)? else { return Ok(None) };
    for ((name, _), text) in USER_FILES.iter().zip([&passwd, &group]) {
        let path = request.folder.join(name);
        std::fs::write(&path, text).map_err(|e| EngineError::io("write", &path, e))?;
    }
    Ok(Some((passwd, group)))
}

fn mount_users(spec: &mut Spec, request: &MonitorRequest) {
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.extend(USER_FILES.iter().map(|(name, target)| {
        ocispec::bind(&request.folder.join(name), target, request.config.spec.read_only, "rprivate", true)
    }));
    spec.set_mounts(Some(mounts));
}

/// No path: the caller's own group.
pub(crate) fn cgroup_request(path: &str) -> CgroupRequest {
    if path.is_empty() { CgroupRequest::Inherit } else { CgroupRequest::Path(path.to_owned()) }
}

fn joined(request: &MonitorRequest, users: Option<BorrowedFd<'_>>) -> Vec<(LinuxNamespaceType, PathBuf)> {
    let file = |(kind, pid): &(JoinedNamespace, i32)| {
        let (kind, name) = match kind {
            JoinedNamespace::Network => (LinuxNamespaceType::Network, "net"),
            JoinedNamespace::Pid => (LinuxNamespaceType::Pid, "pid"),
            JoinedNamespace::Ipc => (LinuxNamespaceType::Ipc, "ipc"),
            JoinedNamespace::Uts => (LinuxNamespaceType::Uts, "uts"),
        };
        (kind, PathBuf::from(format!("/proc/{pid}/ns/{name}")))
    };
    let users = users.map(|fd| (LinuxNamespaceType::User, PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))));
    request.joined.iter().map(file).chain(users).collect()
}

/// Pipes for a program of this user (who may open them anew by /dev/stdout), and our ends.
pub(crate) fn pipes(open_stdin: bool, owner: (u32, u32)) -> Result<(Stdio, Program)> {
    let make = || pipe_with(PipeFlags::CLOEXEC).map_err(|e| linux::CallError::new("pipe2", "", e));
    let owner = linux::userns::file_owner(owner.0, owner.1);
    let own = |fd: &OwnedFd| {
        let (uid, gid) = (rustix::fs::Uid::from_raw(owner.0), rustix::fs::Gid::from_raw(owner.1));
        rustix::fs::fchown(fd, Some(uid), Some(gid)).map_err(|e| linux::CallError::new("fchown", "pipe", e))
    };
    let (stdout, their_stdout) = make()?;
    let (stderr, their_stderr) = make()?;
    let (their_stdin, stdin) = if open_stdin {
        let (theirs, ours) = make()?;
        own(&theirs)?;
        (theirs, Some(ours))
    } else {
        let null = OpenOptions::new().read(true).open("/dev/null");
        (null.map_err(|e| EngineError::io("open", "/dev/null", e))?.into(), None)
    };
    own(&their_stdout)?;
    own(&their_stderr)?;
    let stdio = Stdio::Fds { stdin: their_stdin, stdout: their_stdout, stderr: their_stderr };
    Ok((stdio, Program::Pipes { stdin, stdout, stderr }))
}

/// Takes the socket away.
pub(crate) fn remove_run_dir(run_dir: &Path) {
    // Records of exec sessions may lie in it too.
    let _gone = std::fs::remove_dir_all(run_dir);
}

/// Moves a folder to the trash; where it lies there.
pub(crate) fn discard(folder: &Path, trash: &Path) -> Option<PathBuf> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let grave = trash.join(format!("{name}.{}", std::process::id()));
    std::fs::rename(folder, &grave).ok().map(|()| grave)
}
