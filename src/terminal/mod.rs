//! A foreground client of a container or an exec session: the user's terminal and signals on one side, the
//! engine's attach stream on the other.
//!
//! One thread polls the stream and the signals. Standard input has a thread of its own, because writing it may block
//! for as long as the program does not read, and output must flow all the while.

mod detach;
pub(crate) mod prompt;

pub(crate) use detach::DetachKeys;

use crate::context::Context;
use crate::error::CliError;
use engine::{AttachEvent, AttachOptions, Attached, ExitStatus};
use linux::signal::SignalQueue;
use linux::terminal::RawMode;
use rustix::event::{PollFd, PollFlags, poll};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

/// Not forwarded: our own affairs, faults of our own, and what cannot be caught (KILL, STOP) or would
/// stop us at the terminal (TTIN, TTOU).
const NOT_FORWARDED: [i32; 12] = [
    4,  // ILL
    5,  // TRAP
    7,  // BUS
    8,  // FPE
    9,  // KILL
    11, // SEGV
    13, // PIPE
    17, // CHLD
    19, // STOP
    21, // TTIN
    22, // TTOU
    23, // URG
];
const SIGWINCH: i32 = 28;

/// How a foreground client behaves.
pub(crate) struct Session {
    /// Standard input is sent.
    pub(crate) stdin: bool,
    /// The program has a terminal.
    pub(crate) tty: bool,
    /// Signals are passed on to the program.
    pub(crate) proxy_signals: bool,
    /// The keys that leave it.
    pub(crate) keys: DetachKeys,
    signals: Option<SignalQueue>,
}

/// How a session ended.
pub(crate) enum Ended {
    /// The program did.
    Exit(ExitStatus),
    /// The user left it by the detach keys.
    Detached,
    /// Nobody reads our output any more.
    OutputClosed,
    /// The monitor went away without a word.
    Lost,
}

impl Session {
    /// A session to be. Checks what docker checks: `-t` with an input that is no terminal is an error.
    pub(crate) fn new(stdin: bool, tty: bool, proxy_signals: bool, keys: DetachKeys) -> Result<Session, CliError> {
        if stdin && tty && !io::stdin().is_terminal() {
            return Err(CliError::new(
                "cannot attach stdin to a TTY-enabled container because stdin is not a terminal",
            ));
        }
        Ok(Session { stdin, tty, proxy_signals, keys, signals: None })
    }

    /// Queues signals from here on: none is lost between a program's start and the session's.
    pub(crate) fn catch_signals(&mut self) -> Result<(), CliError> {
        let wanted: Vec<i32> = (1..32)
            .filter(|signal| !NOT_FORWARDED.contains(signal))
            .filter(|signal| self.proxy_signals || (self.tty && matches!(*signal, 1 | 2 | 3 | 15 | SIGWINCH)))
            .collect();
        if !wanted.is_empty() {
            self.signals = Some(SignalQueue::new(&wanted).map_err(|e| CliError::new(e.to_string()))?);
        }
        Ok(())
    }

    /// The attach request of this session.
    pub(crate) fn options(&self, stdout: bool, stderr: bool) -> AttachOptions {
        AttachOptions { stdin: self.stdin, stdout, stderr, size: if self.tty { terminal_size() } else { None } }
    }

    /// Passes bytes and signals to and fro until it ends.
    pub(crate) fn run(mut self, mut attached: Attached, context: &mut Context) -> Result<Ended, CliError> {
        context.flush()?;
        let raw = match self.tty && self.stdin {
            true => Some(enter_raw_mode()?),
            false => None,
        };
        let detached = self.send_stdin(&attached)?;
        let ended = self.exchange(&mut attached, detached.as_ref());
        drop(raw);
        if let Ok(Ended::Detached) = &ended {
            context.say("read escape sequence");
        }
        ended
    }

    /// Starts the thread that sends standard input; the descriptor becomes readable when the user detaches.
    fn send_stdin(&mut self, attached: &Attached) -> Result<Option<OwnedFd>, CliError> {
        if !self.stdin {
            return Ok(None);
        }
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|e| CliError::io("make", "a pipe", &e.into()))?;
        let sender = attached.try_clone()?;
        let mut keys = self.tty.then(|| std::mem::take(&mut self.keys));
        std::thread::spawn(move || {
            let mut buffer = [0; 32 << 10];
            loop {
                // The raw descriptor, not std's buffered input: a byte typed is a byte sent.
                let count = match rustix::io::read(io::stdin(), &mut buffer) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(_) => break,
                };
                let (bytes, left) = match &mut keys {
                    Some(keys) => keys.filter(&buffer[..count]),
                    None => (buffer[..count].to_vec(), false),
                };
                if sender.write_stdin(&bytes).is_err() {
                    return;
                }
                if left {
                    let _ = rustix::io::write(&writer, b"d");
                    return;
                }
            }
            let _ = sender.close_stdin();
            // Kept open: its end would look like the detach keys.
            std::mem::forget(writer);
        });
        Ok(Some(reader))
    }

    fn exchange(&self, attached: &mut Attached, detached: Option<&OwnedFd>) -> Result<Ended, CliError> {
        loop {
            while let Some(event) = attached.decoded()? {
                if let Some(ended) = show(&event)? {
                    return Ok(ended);
                }
            }
            let (readable, signalled, left) = self.wait(attached, detached)?;
            if signalled {
                self.handle_signals(attached)?;
            }
            if left {
                return Ok(Ended::Detached);
            }
            if readable {
                match attached.next()? {
                    None => return Ok(Ended::Lost),
                    Some(event) => {
                        if let Some(ended) = show(&event)? {
                            return Ok(ended);
                        }
                    }
                }
            }
        }
    }

    /// Waits for output, signals or the detach keys.
    fn wait(&self, attached: &Attached, detached: Option<&OwnedFd>) -> Result<(bool, bool, bool), CliError> {
        let mut fds = vec![PollFd::new(attached, PollFlags::IN)];
        if let Some(signals) = &self.signals {
            fds.push(PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN));
        }
        if let Some(detached) = detached {
            fds.push(PollFd::new(detached, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(CliError::io("wait for", "the container", &e.into())),
        }
        let ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        let has_signals = self.signals.is_some();
        Ok((ready(0), has_signals && ready(1), detached.is_some() && ready(if has_signals { 2 } else { 1 })))
    }

    fn handle_signals(&self, attached: &Attached) -> Result<(), CliError> {
        let Some(signals) = &self.signals else { return Ok(()) };
        while let Some(signal) = signals.next() {
            if signal == SIGWINCH && self.tty {
                if let Some((rows, columns)) = terminal_size() {
                    attached.resize(rows, columns)?;
                }
            } else if self.proxy_signals {
                attached.signal(signal)?;
            } else {
                // Not ours to pass on: it means us. The terminal is put right by whoever holds it.
                return Err(CliError::reported(u8::try_from(128 + signal).unwrap_or(1)));
            }
        }
        Ok(())
    }
}

/// Raw mode until the value is dropped – or until a panic, which ends the process without dropping anything.
fn enter_raw_mode() -> Result<RawMode, CliError> {
    use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
    if let Ok(before) = tcgetattr(io::stdin()) {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
            report(panic);
        }));
    }
    RawMode::enter(io::stdin().as_fd()).map_err(|e| CliError::new(e.to_string()))
}

/// Writes output where it belongs.
fn show(event: &AttachEvent) -> Result<Option<Ended>, CliError> {
    let written = match event {
        AttachEvent::Exit(status) => return Ok(Some(Ended::Exit(status.clone()))),
        AttachEvent::Stdout(bytes) => write_all(io::stdout().lock(), bytes),
        AttachEvent::Stderr(bytes) => write_all(io::stderr().lock(), bytes),
    };
    match written {
        Ok(()) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Some(Ended::OutputClosed)),
        Err(error) => Err(error.into()),
    }
}

fn write_all(mut out: impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes)?;
    out.flush()
}

/// Rows and columns of the terminal the user sits at.
pub(crate) fn terminal_size() -> Option<(u16, u16)> {
    let sized = |fd: std::os::fd::BorrowedFd<'_>| linux::terminal::size(fd).ok().filter(|(r, c)| *r > 0 && *c > 0);
    sized(io::stdout().as_fd()).or_else(|| sized(io::stdin().as_fd()))
}

/// Copies standard input to its end, for commands that read an archive: refused from a terminal.
pub(crate) fn archive_input(what: &str) -> Result<impl Read, CliError> {
    if io::stdin().is_terminal() {
        return Err(CliError::new(format!("{what} from standard input, which is a terminal"))
            .with_hint("name a file, or redirect one with '<'"));
    }
    Ok(io::stdin().lock())
}
