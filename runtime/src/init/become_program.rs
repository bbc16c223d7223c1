//! The last part of every process of a container, init and exec alike: streams, limits, user, capabilities, filter, program.

use super::reaper;
use crate::channel::{self, Failure, FromInit, ToInit};
use crate::container::Identity;
use crate::process::ProcessPlan;
use crate::seccomp::Filter;
use crate::{exec, hooks, program, resolve_user};
use linux::capability;
use linux::process::{Forked, Namespaces};
use linux::{CallError, procfs, pty, resolve};
use oci_spec::runtime::Hook;
use rustix::fs::{FileType, Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Signal};
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The program's standard streams.
pub(crate) enum Streams {
    Fds([OwnedFd; 3]),
    /// A terminal's end, to become the controlling one.
    Terminal(OwnedFd),
}

/// Everything the last part needs.
pub(crate) struct Environment<'a> {
    pub(crate) process: &'a ProcessPlan,
    /// Our own procfs, if one was made already.
    pub(crate) proc: Option<OwnedFd>,
    pub(crate) streams: Streams,
    /// The terminal's master, for the maker.
    pub(crate) console: Option<OwnedFd>,
    pub(crate) channel: BorrowedFd<'a>,
    pub(crate) die_with_parent: bool,
    /// Where whoever starts it will connect, if that is not its maker.
    pub(crate) listener: Option<OwnedFd>,
    pub(crate) extra_fds: Vec<OwnedFd>,
    /// Whoever starts it is to hear no more than that it was started.
    pub(crate) is_on_its_own: bool,
    /// Stay as pid 1 and fork the program.
    pub(crate) reaper: bool,
    /// This process only does what takes privileges: the program's is forked off it last of all, without any.
    pub(crate) born_last: bool,
    pub(crate) start_hooks: &'a [Hook],
    /// For the hooks.
    pub(crate) identity: Option<Identity<'a>>,
    /// For the agent of the filter's notifications: the container's state, and this process as the host knows it.
    pub(crate) agent_state: Vec<u8>,
    pub(crate) pid_outside: i32,
    /// The session keyring to join.
    pub(crate) keyring: Option<CString>,
    pub(crate) warnings: Vec<String>,
}

/// Becomes the program. Tells the maker "ready" when nothing but the filter and the exec can fail any more, and waits for its word.
pub(crate) fn run_program(environment: Environment<'_>) -> Result<Infallible, Failure> {
    // Never dropped: its descriptors are closed by `keep_own_descriptors`.
    let mut environment = ManuallyDrop::new(environment);
    let process = environment.process;
    join_keyring(&mut environment);
    let is_terminal = take_streams(&mut environment)?;
    write_proc_files(&mut environment)?;
    process.attributes.apply()?;
    keep_own_descriptors(&environment)?;
    set_limits(process, &mut environment.warnings)?;
    let home = home(process);
    // Before the user changes, since it may be a folder of another's, as for docker; and again where not even root may enter.
    let entered = enter_cwd(&process.cwd);
    change_user(process)?;
    entered.or_else(|_| enter_cwd(&process.cwd))?;
    let path = program::find(&process.args[0].to_string_lossy(), &process.env)?;
    rustix::process::umask(Mode::from_raw_mode(process.umask));
    // After every change of credentials: each of them clears it, and makes the process dumpable again.
    if environment.die_with_parent && !environment.born_last {
        die_with_parent()?;
    }
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|e| CallError::new("prctl", "PR_SET_DUMPABLE", e))?;

    let warnings = environment.warnings.iter().map(|w| channel::bounded(w)).take(8).collect();
    let console = environment.console.take();
    channel::send(environment.channel, &FromInit::Ready { warnings }, console.as_ref().map(AsFd::as_fd))?;
    drop(console);
    let Some(listener) = environment.listener.take() else {
        return start(&environment, environment.channel, is_terminal, &path, home);
    };
    let connection = accept(&listener)?;
    drop(listener);
    environment.is_on_its_own = true;
    let Err(failure) = start(&environment, connection.as_fd(), is_terminal, &path, home);
    // The maker is long gone; whoever starts the container is to hear it.
    let _told = channel::send(connection.as_fd(), &FromInit::Failed(failure), None);
    linux::process::exit_now(1)
}

fn die_with_parent() -> Result<(), CallError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| CallError::new("prctl", "PR_SET_PDEATHSIG", e))
}

/// A process without a session keyring of its own would see its caller's keys.
fn join_keyring(environment: &mut Environment<'_>) {
    let Some(name) = &environment.keyring else { return };
    // Keys are accounted per user and may run out; the container is no less safe, it keeps an empty possession.
    if let Err(error) = linux::process::new_session_keyring(name) {
        environment.warnings.push(format!("no keyring of its own: {error}"));
    }
}

fn accept(listener: &OwnedFd) -> Result<OwnedFd, Failure> {
    loop {
        match rustix::net::accept_with(listener, rustix::net::SocketFlags::CLOEXEC) {
            Err(Errno::INTR) => {}
            done => return Ok(done.map_err(|e| CallError::new("accept", "", e))?),
        }
    }
}

/// Waits for the word and goes.
fn start(
    environment: &Environment<'_>,
    channel: BorrowedFd<'_>,
    is_terminal: bool,
    path: &CString,
    home: Option<CString>,
) -> Result<Infallible, Failure> {
    let pid = match channel::receive::<ToInit>(channel)? {
        Some((ToInit::Start { pid }, _)) => pid.unwrap_or(environment.pid_outside),
        // Nobody is left to start it.
        _ => linux::process::exit_now(0),
    };
    let notice = environment.process.filter.as_ref().and_then(|f| f.notice(&environment.agent_state, pid));
    if let Some(identity) = environment.identity.filter(|_| !environment.start_hooks.is_empty()) {
        hooks::run(environment.start_hooks, &identity.state("created", super::own_pid())).map_err(Failure::set_up)?;
    }
    if environment.reaper {
        stay_as_reaper(environment.process, is_terminal)?;
    }
    execute(environment, channel, is_terminal, path, home.as_deref(), notice.as_deref())
}

/// From here on names are looked up that the image or the user chose – the working directory, the program –, and
/// /proc/self/fd is among them: nothing may be open that leads to the host (CVE-2024-21626).
fn keep_own_descriptors(environment: &Environment<'_>) -> Result<(), Failure> {
    let own = [environment.console.as_ref(), environment.listener.as_ref()].into_iter().flatten();
    let mut keep: Vec<BorrowedFd<'_>> = own.chain(&environment.extra_fds).map(AsFd::as_fd).collect();
    keep.push(environment.channel);
    keep.extend(environment.process.filter.as_ref().and_then(Filter::agent));
    Ok(linux::process::close_others(&keep)?)
}

/// A new session with the program's streams at 0, 1, 2; whether they are a terminal.
fn take_streams(environment: &mut Environment<'_>) -> Result<bool, Failure> {
    if !environment.born_last {
        // An exec'd process may lead a session already; it stays in it.
        let _session = rustix::process::setsid();
    }
    let (streams, is_terminal) = match &environment.streams {
        Streams::Terminal(slave) => {
            if !environment.born_last {
                pty::make_controlling(slave.as_fd())?;
            }
            ([slave.as_fd(); 3].map(above_streams), true)
        }
        Streams::Fds(fds) => {
            fds.iter().for_each(|fd| give_to(environment.process.uid, fd));
            ([&fds[0], &fds[1], &fds[2]].map(|fd| above_streams(fd.as_fd())), false)
        }
    };
    let [stdin, stdout, stderr] = streams;
    let place = || {
        rustix::stdio::dup2_stdin(stdin?)?;
        rustix::stdio::dup2_stdout(stdout?)?;
        rustix::stdio::dup2_stderr(stderr?)
    };
    place().map_err(|e| CallError::new("dup2", "", e))?;
    Ok(is_terminal)
}

/// A copy that none of the three dup2s overwrites.
fn above_streams(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3)
}

/// A pipe to another user's program must be that user's, or opening /dev/stdout again is refused.
fn give_to(uid: u32, fd: &OwnedFd) {
    let pipe = |mode| matches!(FileType::from_raw_mode(mode), FileType::Fifo | FileType::Socket);
    if uid != 0 && rustix::fs::fstat(fd).is_ok_and(|stat| pipe(stat.st_mode)) {
        // Only that comfort is lost where it can't be done.
        let _given = rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), None);
    }
}

fn write_proc_files(environment: &mut Environment<'_>) -> Result<(), Failure> {
    let process = environment.process;
    if process.oom_score_adj.is_none() && process.labels.is_empty() {
        return Ok(());
    }
    let proc = match environment.proc.take() {
        Some(proc) => proc,
        None => procfs::open()?,
    };
    if let Some(adjustment) = process.oom_score_adj {
        match procfs::write(proc.as_fd(), Path::new("self/oom_score_adj"), adjustment.to_string().as_bytes()) {
            Ok(()) => {}
            Err(Errno::ACCESS | Errno::PERM) => environment
                .warnings
                .push(format!("oom_score_adj {adjustment} is not set: lowering it needs CAP_SYS_RESOURCE")),
            Err(errno) => return Err(CallError::new("write", "oom_score_adj", errno).into()),
        }
    }
    for (file, label) in &process.labels {
        procfs::write(proc.as_fd(), Path::new(file), label.as_bytes())
            .map_err(|e| Failure::set_up(format!("security label {label:?}: {e} (does this kernel have it?)")))?;
    }
    Ok(())
}

fn set_limits(process: &ProcessPlan, warnings: &mut Vec<String>) -> Result<(), Failure> {
    for (resource, name, wanted) in &process.limits {
        match rustix::process::setrlimit(*resource, *wanted) {
            Ok(()) => {}
            Err(Errno::PERM) => {
                let kept = lower_limit(*resource, *wanted);
                warnings.push(format!(
                    "ulimit {name} can't be raised above this process's own hard limit: it is {}",
                    kept.map_or("unlimited".to_owned(), |n| n.to_string())
                ));
            }
            Err(errno) => return Err(CallError::new("setrlimit", *name, errno).into()),
        }
    }
    Ok(())
}

/// As much of a limit as may be had.
fn lower_limit(resource: Resource, mut wanted: rustix::process::Rlimit) -> Option<u64> {
    let have = rustix::process::getrlimit(resource).maximum;
    let cut = |value: Option<u64>| Some(value.unwrap_or(u64::MAX).min(have?));
    wanted.maximum = cut(wanted.maximum);
    wanted.current = cut(wanted.current);
    // It was no lower a moment ago.
    let _set = rustix::process::setrlimit(resource, wanted);
    have
}

fn change_user(process: &ProcessPlan) -> Result<(), Failure> {
    capability::limit_bounding(process.capabilities.bounding)?;
    capability::keep_over_setuid(true)?;
    let groups: Vec<Gid> = process.additional_gids.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(process.uid), Gid::from_raw(process.gid));
    match rustix::thread::set_thread_groups(&groups) {
        // With a single id they can't be changed: they stay the user's own.
        Err(Errno::PERM) if linux::userns::has_single_id_now() => {}
        done => done.map_err(|e| CallError::new("setgroups", "", e))?,
    }
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(|e| no_such_id("setresgid", "group", process.gid, e))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(|e| no_such_id("setresuid", "user", process.uid, e))?;
    Ok(capability::keep_over_setuid(false)?)
}

/// An id that this user namespace lacks is invalid to the kernel.
fn no_such_id(call: &'static str, what: &str, id: u32, errno: Errno) -> Failure {
    if errno != Errno::INVAL {
        return CallError::new(call, id.to_string(), errno).into();
    }
    Failure::set_up(format!(
        "{what} {id} is not among the ids of this user namespace: more of them come from /etc/subuid and /etc/subgid"
    ))
}

/// Enters the working directory, and sees that it is in the container: a descriptor leaked from the host could lead out
/// (CVE-2024-21626), and then the kernel can't name the place.
fn enter_cwd(cwd: &Path) -> Result<(), Failure> {
    let at = |errno: Errno| Failure::not_executable(format!("working directory {}: {errno}", cwd.display()));
    rustix::process::chdir(cwd).map_err(at)?;
    let name = rustix::process::getcwd(Vec::new()).map_err(at)?;
    if name.to_bytes().starts_with(b"/") {
        return Ok(());
    }
    Err(Failure::set_up(format!("working directory {} is outside of the container", cwd.display())))
}

/// HOME for a program whose environment has none: its user's in the container's passwd.
fn home(process: &ProcessPlan) -> Option<CString> {
    if process.env.iter().any(|line| line.as_bytes().starts_with(b"HOME=")) {
        return None;
    }
    let user = oci::UserSpec { user: Some(oci::NameOrId::Id(process.uid)), group: None };
    let home = resolve::open_root(Path::new("/")).ok().and_then(|root| resolve_user(root.as_fd(), &user).ok());
    // A passwd that can't be read says nothing.
    CString::new(format!("HOME={}", home.map_or("/".to_owned(), |user| user.home))).ok()
}

/// Forks the program off; this process stays as pid 1 and returns only in the child.
///
/// What the container's processes may do to pid 1 with CAP_SYS_PTRACE must get them nothing: it has their own capabilities and
/// their filter (whose notifications nobody answers here) before the program runs.
fn stay_as_reaper(process: &ProcessPlan, is_terminal: bool) -> Result<(), Failure> {
    let (until, restricted) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| CallError::new("pipe", "", e))?;
    // Before the fork, so that no signal is lost: pid 1 takes them off a queue.
    linux::process::set_blocked_signals(true);
    match linux::process::fork_again(Namespaces::none(), None)? {
        Forked::Parent { pid, pidfd } => {
            drop(pidfd);
            restrict(process, None)?;
            // Streams, channel and all: the program's end must be the end of its pipes.
            linux::process::close_all();
            reaper::run(pid)
        }
        Forked::Child => {
            drop(restricted);
            // The end of it: pid 1 has nothing to lose any more.
            rustix::io::read(&until, &mut [0u8; 1]).map_err(|e| CallError::new("read", "", e))?;
            let own = rustix::process::getpid();
            // Its own group in front of the terminal, so that ctrl-C reaches it once, not also by way of pid 1.
            let _group = rustix::process::setpgid(None, None);
            if is_terminal {
                let _front = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), own);
            }
            Ok(())
        }
    }
}

/// In a container that may trace it, a process is born as what it is to be, without anything to be had from it.
fn be_born(environment: &Environment<'_>, channel: BorrowedFd<'_>, is_terminal: bool) -> Result<(), Failure> {
    exec::bear(channel)?;
    let _session = rustix::process::setsid();
    if is_terminal {
        pty::make_controlling(rustix::stdio::stdin())?;
    }
    if environment.die_with_parent {
        die_with_parent()?;
    }
    Ok(())
}

fn execute(
    environment: &Environment<'_>,
    channel: BorrowedFd<'_>,
    is_terminal: bool,
    path: &CString,
    home: Option<&CStr>,
    notice: Option<&[u8]>,
) -> Result<Infallible, Failure> {
    let process = environment.process;
    let channel = linux::process::place_descriptors(&environment.extra_fds, 3, channel)?;
    let first = 3 + u32::try_from(environment.extra_fds.len()).unwrap_or(0);
    linux::process::close_on_exec_from(first)?;
    linux::process::reset_signals();
    let args: Vec<&CStr> = process.args.iter().map(CString::as_c_str).collect();
    let env: Vec<&CStr> = process.env.iter().map(CString::as_c_str).chain(home).collect();
    restrict(process, notice)?;
    if environment.born_last {
        be_born(environment, channel.as_fd(), is_terminal)?;
    }
    let errno = linux::process::execute(path, &args, &env);
    let failure = program::diagnose(path, errno);
    if environment.is_on_its_own {
        // As with runc, to whose clients such a container has run: it ends with 1, and its own streams say why.
        let why = format!("{}\n", failure.message);
        let _written = rustix::io::write(rustix::stdio::stderr(), why.as_bytes());
        linux::process::exit_now(1);
    }
    channel::send(channel.as_fd(), &FromInit::Failed(failure), None)?;
    linux::process::exit_now(1)
}

/// The filter and the capabilities: what would get in the way of any step before.
fn restrict(process: &ProcessPlan, notice: Option<&[u8]>) -> Result<(), Failure> {
    let filter_failed = |e: CallError| Failure::set_up(format!("load the seccomp filter: {e}"));
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(|e| CallError::new("prctl", "PR_SET_NO_NEW_PRIVS", e))?;
    } else if let Some(filter) = &process.filter {
        // Loading one needs CAP_SYS_ADMIN, which a change of user took out of force.
        raise_permitted()?;
        filter.load(notice).map_err(filter_failed)?;
    }
    capability::apply(&process.capabilities)?;
    if let Some(filter) = process.filter.as_ref().filter(|_| process.no_new_privileges) {
        filter.load(notice).map_err(filter_failed)?;
    }
    Ok(())
}

fn raise_permitted() -> Result<(), CallError> {
    let now = rustix::thread::capabilities(None).map_err(|e| CallError::new("capget", "", e))?;
    let raised = rustix::thread::CapabilitySets { effective: now.permitted, ..now };
    rustix::thread::set_capabilities(None, raised).map_err(|e| CallError::new("capset", "", e))
}
