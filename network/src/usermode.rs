//! A network without privileges: a program of the user's own (pasta, else slirp4netns) stands at the end of the container's
//! interface and does outside, with plain sockets, what the container does inside.
//!
//! Published ports need none of it: their listeners are the host's as ever, and what serves them reaches the container from
//! within its namespace ([`crate::proxy::serve_proxy_within`]).

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use linux::process::{Forked, Namespaces, execute, fork_into, place_descriptors, reap, send_signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use crate::error::{NetworkError, Result, during};

/// The container's address in its own small network; slirp4netns' defaults, which pasta is given too.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
/// Where it answers for the host's first name server.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// The interface's name in the container.
const INSIDE: &str = "eth0";
/// How long the program may take until the network is there.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest complaint that is passed on, in bytes.
const MAX_COMPLAINT_BYTES: u64 = 1000;
const TUN: &str = "/dev/net/tun";

/// The programs that are there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNetwork {
    /// Of package passt.
    pub pasta: Option<PathBuf>,
    /// Of the package of that name.
    pub slirp4netns: Option<PathBuf>,
}

impl UserNetwork {
    /// Connects a namespace. The process that does it is a child of this one, which has one thread; it dies with it, or by a
    /// signal through the descriptor. `folder` is for its start alone. With `resolve`, [`NAME_SERVER`] answers there.
    pub fn connect(&self, namespace: BorrowedFd<'_>, folder: &Path, resolve: bool) -> Result<OwnedFd> {
        let mut failures = Vec::new();
        if let Some(program) = &self.pasta {
            match pasta(program, namespace, folder, resolve) {
                Ok(process) => return Ok(process),
                Err(error) => failures.push(format!("pasta: {error}")),
            }
        }
        if let Some(program) = &self.slirp4netns {
            match slirp4netns(program, namespace) {
                Ok(process) => return Ok(process),
                Err(error) => failures.push(format!("slirp4netns: {error}")),
            }
        }
        if failures.is_empty() {
            let missing = "it needs pasta (Debian: apt install passt) or slirp4netns, and neither is installed";
            return Err(NetworkError::UserNetwork(missing.to_owned()));
        }
        Err(NetworkError::UserNetwork(match File::options().read(true).write(true).open(TUN) {
            Err(error) => format!("{TUN} cannot be opened: {error}: as root: chmod 666 {TUN} (or: modprobe tun)"),
            Ok(_) => failures.join("; "),
        }))
    }
}

fn pasta(program: &Path, namespace: BorrowedFd<'_>, folder: &Path, resolve: bool) -> io::Result<OwnedFd> {
    // It writes its pid when the network is there: a pipe by name makes that an event.
    let path = folder.join("network.pid");
    let _old = std::fs::remove_file(&path);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    let started = rustix::fs::open(&path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
        .map_err(io::Error::from)
        .and_then(|ready| {
            let address = ADDRESS.to_string();
            let (server, pid_file) = (NAME_SERVER.to_string(), path.to_string_lossy().into_owned());
            // The namespace is its standard input: all other descriptors it may close, and other processes' it can't open.
            let words = ["--foreground", "--quiet", "--config-net", "--ns-ifname", INSIDE, "--no-map-gw"];
            let words = words.into_iter().chain(["--address", &address, "--netmask", "24", "--gateway", "10.0.2.2"]);
            // Only where it must: answers of the server itself then seem to come from there, and its clients drop them.
            let forward = ["--dns-forward", &server].into_iter().filter(|_| resolve);
            let words = words.chain(forward).chain(["--pid", &pid_file, "-t", "none", "-u", "none"]);
            let words = words.chain(["-T", "none", "-U", "none", "--no-netns-quit", "--netns-only"]);
            let words: Vec<&str> = words.chain(["--netns", "/proc/self/fd/0"]).collect();
            start(program, &words, namespace, Vec::new(), ready.as_fd())
        });
    let _gone = std::fs::remove_file(&path);
    started
}

fn slirp4netns(program: &Path, namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let (ready, their_ready) = pipe_with(PipeFlags::CLOEXEC)?;
    let words = ["--configure", "--mtu=65520", "--disable-host-loopback", "--ready-fd=3", "--netns-type=path"];
    let words: Vec<&str> = words.into_iter().chain(["/proc/self/fd/0", INSIDE]).collect();
    start(program, &words, namespace, vec![their_ready], ready.as_fd())
}

/// Starts a program with `namespace` as its standard input and `descriptors` from 3 on, and waits until `ready` is readable.
fn start(
    program: &Path,
    words: &[&str],
    namespace: BorrowedFd<'_>,
    descriptors: Vec<OwnedFd>,
    ready: BorrowedFd<'_>,
) -> io::Result<OwnedFd> {
    let program = CString::new(program.as_os_str().as_bytes())?;
    let words = words.iter().map(|word| CString::new(*word)).collect::<Result<Vec<_>, _>>()?;
    let (complaints, their_complaints) = pipe_with(PipeFlags::CLOEXEC)?;
    let process = match fork_into(Namespaces::none(), None)? {
        Forked::Parent { pidfd, .. } => pidfd,
        Forked::Child => {
            let errno = become_program(&program, &words, namespace, &descriptors, their_complaints);
            linux::process::exit_now(u8::try_from(errno.raw_os_error()).unwrap_or(1));
        }
    };
    drop((their_complaints, descriptors));
    match wait_for(ready, &process) {
        Ok(true) => Ok(process),
        waited => {
            let _dead = send_signal(process.as_fd(), Signal::KILL.as_raw());
            let _reaped = reap(process.as_fd());
            let mut text = String::new();
            let _cut = File::from(complaints).take(MAX_COMPLAINT_BYTES).read_to_string(&mut text);
            waited?;
            let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            Err(io::Error::other(if lines.is_empty() { "it ended at once".to_owned() } else { lines.join("; ") }))
        }
    }
}

/// The forked side.
fn become_program(
    program: &CStr,
    words: &[CString],
    namespace: BorrowedFd<'_>,
    descriptors: &[OwnedFd],
    complaints: OwnedFd,
) -> Errno {
    let prepared = set_parent_process_death_signal(Some(Signal::KILL))
        .and_then(|()| rustix::stdio::dup2_stdin(namespace))
        .and_then(|()| rustix::stdio::dup2_stderr(&complaints))
        .and_then(|()| rustix::stdio::dup2_stdout(&complaints))
        .and_then(|()| place_descriptors(descriptors, 3, complaints.as_fd()).map_err(|e| e.errno));
    if let Err(errno) = prepared {
        return errno;
    }
    linux::process::reset_signals();
    let first = 3 + u32::try_from(descriptors.len()).unwrap_or(0);
    if let Err(error) = linux::process::close_on_exec_from(first) {
        return error.errno;
    }
    let args: Vec<&CStr> = std::iter::once(program).chain(words.iter().map(CString::as_c_str)).collect();
    execute(program, &args, &[c"PATH=/usr/sbin:/usr/bin:/sbin:/bin"])
}

/// True: it is ready. False: it has ended.
fn wait_for(ready: BorrowedFd<'_>, process: &OwnedFd) -> io::Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(0), tv_nsec: left.subsec_nanos().into() };
        let mut polled = [PollFd::from_borrowed_fd(ready, PollFlags::IN), PollFd::new(process, PollFlags::IN)];
        match poll(&mut polled, Some(&left)) {
            Ok(0) => return Err(io::Error::other(format!("it did not get ready within {} s", PATIENCE.as_secs()))),
            Ok(_) if polled[0].revents().contains(PollFlags::IN) => return Ok(true),
            Ok(_) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Moves this process into a container's network, for good.
pub(crate) fn enter(namespace: BorrowedFd<'_>) -> Result<()> {
    linux::process::join_namespace(namespace, Namespaces::NETWORK)
        .map_err(|error| during(|| format!("enter network namespace {}", namespace.as_raw_fd()))(error.errno))
}
