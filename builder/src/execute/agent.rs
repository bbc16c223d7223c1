//! `RUN --mount=type=ssh`: the caller's ssh agent within reach of a step. A socket of our own stands in for the agent's,
//! with the owner and the permissions the step asks for; what is said goes through unread.

use crate::step_error::{StepError, StepResult};
use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// Connections of one step at a time; more are refused.
const MAX_CONNECTIONS: usize = 64;

/// Relays to an agent until it is dropped.
pub(super) struct AgentRelay {
    folder: PathBuf,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl AgentRelay {
    /// Listens in the new folder `place`. Returns the socket's path too.
    pub(super) fn start(agent: &Path, place: &Path, mode: u32, owner: (u32, u32)) -> StepResult<(AgentRelay, PathBuf)> {
        let fail = |e| StepError::io("offer the ssh agent at", place, e);
        fs::create_dir(place).map_err(fail)?;
        let listener = UnixListener::bind(short(place).map_err(fail)?.1).map_err(fail)?;
        let socket = place.join(NAME);
        std::os::unix::fs::chown(&socket, Some(owner.0), Some(owner.1)).map_err(fail)?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(mode)).map_err(fail)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, agent) = (Arc::clone(&is_over), agent.to_owned());
        let thread = std::thread::spawn(move || serve(&listener, &agent, &over));
        Ok((AgentRelay { folder: place.to_owned(), is_over, thread: Some(thread) }, socket))
    }
}

const NAME: &str = "agent";

/// The socket's path through the folder's descriptor: a socket's name has room for 107 bytes only.
fn short(folder: &Path) -> io::Result<(fs::File, PathBuf)> {
    let opened = fs::File::open(folder)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{NAME}", opened.as_raw_fd()));
    Ok((opened, path))
}

fn serve(listener: &UnixListener, agent: &Path, is_over: &AtomicBool) {
    let open = Arc::new(AtomicUsize::new(0));
    for client in listener.incoming() {
        if is_over.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = client else { continue };
        if open.fetch_add(1, Ordering::SeqCst) >= MAX_CONNECTIONS {
            open.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let (agent, open) = (agent.to_owned(), Arc::clone(&open));
        std::thread::spawn(move || {
            // A conversation that breaks off is the client's to notice.
            let _broken = relay(&client, &agent);
            open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

fn relay(client: &UnixStream, agent: &Path) -> io::Result<()> {
    let server = UnixStream::connect(agent)?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _broken = io::copy(&mut &server, &mut &*client);
            let _closed = client.shutdown(Shutdown::Both);
        });
        let _broken = io::copy(&mut &*client, &mut &server);
        server.shutdown(Shutdown::Both)
    })
}

impl Drop for AgentRelay {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread up.
        let woken = short(&self.folder).and_then(|(_folder, path)| UnixStream::connect(path));
        if let (Ok(_), Some(thread)) = (woken, self.thread.take()) {
            let _ended = thread.join();
        }
    }
}
