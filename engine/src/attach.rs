//! A foreground client's end of a container's (or exec session's) streams: typed events in, input and requests out.

use crate::protocol::{self, AttachFlags, Decoder, FrameKind};
use crate::{EngineError, ExitStatus, Result};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which streams a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachOptions {
    /// It will write standard input.
    pub stdin: bool,
    /// It wants standard output (with a terminal: everything).
    pub stdout: bool,
    /// It wants standard error.
    pub stderr: bool,
    /// The terminal's rows and columns, with `-t`.
    pub size: Option<(u16, u16)>,
}

impl AttachOptions {
    pub(crate) fn flags(self) -> u8 {
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        bit(self.stdin, AttachFlags::STDIN)
            | bit(self.stdout, AttachFlags::STDOUT)
            | bit(self.stderr, AttachFlags::STDERR)
    }
}

/// What comes from the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachEvent {
    /// Standard output, or the terminal's.
    Stdout(Vec<u8>),
    /// Standard error.
    Stderr(Vec<u8>),
    /// The program has ended and the container is cleaned up. The last event.
    Exit(ExitStatus),
}

/// An attached client. Reading and writing go on independently: clone it ([`Attached::try_clone`]) to do both in
/// threads.
#[derive(Debug)]
pub struct Attached {
    socket: Arc<OwnedFd>,
    control: Control,
    decoder: Decoder,
}

/// The way of signals and sizes: not behind input that the program does not read.
#[derive(Clone, Debug)]
pub(crate) enum Control {
    /// A monitor's socket, connected to for each request.
    Monitor(PathBuf),
    /// A helper's second socket.
    Socket(Arc<OwnedFd>),
}

impl Attached {
    pub(crate) fn new(socket: OwnedFd, control: Control) -> Attached {
        Attached { socket: Arc::new(socket), control, decoder: Decoder::default() }
    }

    /// Waits for the next event. None: the container's monitor is gone without a word (or the client was dropped as too slow).
    #[allow(clippy::should_implement_trait)] // it is no iterator: it fails, and is used beside writing
    pub fn next(&mut self) -> Result<Option<AttachEvent>> {
        let mut buffer = [0; 16 << 10];
        loop {
            if let Some(event) = self.decoded()? {
                return Ok(Some(event));
            }
            match rustix::io::read(&*self.socket, &mut buffer) {
                Ok(0) | Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                Ok(n) => self.decoder.feed(&buffer[..n]),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(EngineError::io("read from", "the container's monitor", e)),
            }
        }
    }

    /// An event that has arrived already; never waits. (A frame of another kind is none.)
    pub fn decoded(&mut self) -> Result<Option<AttachEvent>> {
        loop {
            let Ok(frame) = self.decoder.next() else {
                return Err(EngineError::Invalid("the container's monitor sent a malformed message".to_owned()));
            };
            return Ok(Some(match frame {
                None => return Ok(None),
                Some((FrameKind::Stdout, bytes)) => AttachEvent::Stdout(bytes.to_vec()),
                Some((FrameKind::Stderr, bytes)) => AttachEvent::Stderr(bytes.to_vec()),
                Some((FrameKind::Exit, json)) => AttachEvent::Exit(serde_json::from_slice(json).unwrap_or_default()),
                Some(_) => continue,
            }));
        }
    }

    /// Sends standard input; blocks while the container does not read.
    pub fn write_stdin(&self, bytes: &[u8]) -> Result<()> {
        // An empty piece is no frame: it would say nothing.
        if bytes.is_empty() { Ok(()) } else { self.send(&self.socket, FrameKind::Stdin, bytes) }
    }

    /// Ends standard input.
    pub fn close_stdin(&self) -> Result<()> {
        self.send(&self.socket, FrameKind::CloseStdin, b"")
    }

    /// The terminal's new size.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        self.control(FrameKind::Resize, &protocol::size_payload(rows, columns))
    }

    /// Signals the program (`--sig-proxy`): a signal's number.
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.control(FrameKind::Signal, &protocol::signal_payload(signal, false))
    }

    /// A second handle on the same stream: one reads, the other writes.
    pub fn try_clone(&self) -> Result<Attached> {
        Ok(Attached { socket: self.socket.clone(), control: self.control.clone(), decoder: Decoder::default() })
    }

    /// Takes part in the streams of the monitor at the other end.
    pub(crate) fn announce(&self, options: AttachOptions) -> Result<()> {
        if let Some((rows, columns)) = options.size {
            self.send(&self.socket, FrameKind::Resize, &protocol::size_payload(rows, columns))?;
        }
        self.send(&self.socket, FrameKind::Attach, &[options.flags()])
    }

    fn control(&self, kind: FrameKind, payload: &[u8]) -> Result<()> {
        match &self.control {
            Control::Socket(socket) => self.send(socket, kind, payload),
            Control::Monitor(path) => match connect_monitor(path) {
                Ok(socket) => self.send(&socket, kind, payload),
                // It has ended meanwhile; the exit is on its way.
                Err(_) => Ok(()),
            },
        }
    }

    fn send(&self, socket: &OwnedFd, kind: FrameKind, payload: &[u8]) -> Result<()> {
        match protocol::write_all(socket.as_fd(), &protocol::frame(kind, payload)) {
            // The program has ended meanwhile; the exit is on its way.
            Err(e) if matches!(e.kind(), std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset) => {
                Ok(())
            }
            Err(e) => Err(EngineError::io("write to", "the container's monitor", e)),
            Ok(()) => Ok(()),
        }
    }
}

impl AsFd for Attached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The folder of a socket by descriptor, and the socket's address through it: a path of any length fits.
pub(crate) fn socket_address(path: &Path) -> std::io::Result<(OwnedFd, SocketAddrUnix)> {
    use rustix::fs::{Mode, OFlags, open};
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default();
    let folder = open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    Ok((folder, SocketAddrUnix::new(&short)?))
}

/// Connects to a monitor's socket. Fails at once where no monitor listens.
pub(crate) fn connect_monitor(path: &Path) -> std::io::Result<OwnedFd> {
    let (_folder, address) = socket_address(path)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &address)?;
    Ok(socket)
}

/// Two connected stream sockets.
pub(crate) fn socket_pair() -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|e| linux::CallError::new("socketpair", "", e).into())
}
