//! The foreground of run and exec: signals passed on, the terminal's bytes copied, the exit awaited.

use super::CliError;
use linux::signal::SignalQueue;
use linux::terminal::RawMode;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

const WINDOW_CHANGED: i32 = 28;
/// Signals a user sends to a foreground program, or a supervisor to a service.
const FORWARDED: &[i32] = &[1, 2, 3, 10, 12, 15, 18, WINDOW_CHANGED];

/// Sends a terminal's master over the socket that awaits it.
pub(super) fn send_console(path: &Path, console: BorrowedFd<'_>) -> Result<(), CliError> {
    let at = |e: Errno| CliError::new(format!("console socket {}: {e}", path.display()));
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).map_err(at)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path).map_err(at)?).map_err(at)?;
    // The payload is the terminal's name, which nobody needs; runc sends it too.
    linux::socket::send_fds(socket.as_fd(), b"/dev/ptmx", &[console])?;
    Ok(())
}

/// Signals taken from before the container exists, so that none is lost.
pub(super) struct Relay {
    signals: SignalQueue,
}

impl Relay {
    pub(super) fn prepare() -> Result<Relay, CliError> {
        Ok(Relay { signals: SignalQueue::new(FORWARDED)? })
    }

    /// Serves the process until it is gone: its exit code.
    pub(super) fn until_exit(self, process: BorrowedFd<'_>, console: Option<OwnedFd>) -> Result<u8, CliError> {
        let terminal = rustix::stdio::stdin();
        let raw = match &console {
            Some(_) if linux::terminal::is_terminal(terminal) => Some(RawMode::enter(terminal)?),
            _ => None,
        };
        if let Some(console) = &console {
            copy_size(console);
        }
        self.serve(process, console.as_ref())?;
        // What the program printed last.
        if let Some(console) = &console {
            while readable(console) && copy(console.as_fd(), rustix::stdio::stdout()) {}
        }
        drop(raw);
        Ok(linux::process::reap(process)?)
    }

    fn serve(&self, process: BorrowedFd<'_>, console: Option<&OwnedFd>) -> Result<(), CliError> {
        let (mut input_open, mut output_open) = (console.is_some(), console.is_some());
        loop {
            let stdin = rustix::stdio::stdin();
            let mut fds =
                vec![PollFd::from_borrowed_fd(process, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
            if let Some(console) = console {
                // A closed side is no longer asked for, or poll would spin on its end.
                fds.push(PollFd::new(console, if output_open { PollFlags::IN } else { PollFlags::empty() }));
                if input_open {
                    fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
                }
            }
            if !output_open {
                fds.truncate(2);
            }
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(CliError::new(format!("poll: {errno}"))),
            }
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            drop(fds);
            if ready[1] {
                self.forward(process, console);
            }
            if let Some(console) = console {
                if ready.get(2) == Some(&true) {
                    output_open = copy(console.as_fd(), rustix::stdio::stdout());
                }
                if ready.get(3) == Some(&true) {
                    input_open = copy(stdin, console.as_fd());
                }
            }
            if ready[0] {
                return Ok(());
            }
        }
    }

    fn forward(&self, process: BorrowedFd<'_>, console: Option<&OwnedFd>) {
        while let Some(signal) = self.signals.next() {
            match (signal, console) {
                (WINDOW_CHANGED, Some(console)) => copy_size(console),
                // It may be gone already.
                _ => drop(linux::process::send_signal(process, signal)),
            }
        }
    }
}

fn copy_size(console: &OwnedFd) {
    if let Ok((rows, columns)) = linux::terminal::size(rustix::stdio::stdin()) {
        let _set = linux::pty::set_size(console.as_fd(), rows, columns);
    }
}

fn readable(fd: &OwnedFd) -> bool {
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&now)), Ok(1)) && fds[0].revents().contains(PollFlags::IN)
}

/// Copies what is there; false at the end.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0u8; 32 << 10];
    let length = match rustix::io::read(from, &mut buffer) {
        Err(Errno::INTR | Errno::AGAIN) => return true,
        Ok(0) | Err(_) => return false,
        Ok(length) => length,
    };
    let mut rest = &buffer[..length];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}
