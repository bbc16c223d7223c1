//! Everything that flows: the program's pipes or terminal, the clients' sockets, the log. One poll, no thread.
//!
//! Output is read only while every client has taken the last of it: a slow reader slows the program down as a full pipe
//! would, and memory stays bounded. A client other than the one that started the program is dropped when it takes nothing for
//! ten seconds.

use super::client::{Client, Gone};
use super::log::LogWriter;
use crate::protocol::{FrameKind, StopRequest, parse_signal, parse_size};
use crate::{ExitStatus, LogStream};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Input is no longer taken from clients when so much waits for the program, in bytes.
const MAX_STDIN_QUEUE_BYTES: usize = 64 << 10;
/// How many clients may be connected.
const MAX_CLIENTS: usize = 256;

/// What a client asked of the program's keeper.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Signal the program.
    Signal { signal: i32, by_user: bool },
    /// End it.
    Stop(StopRequest),
    /// Freeze or thaw it, and answer this client.
    Pause { client: u64, pause: bool },
}

/// The program's ends of its streams.
#[derive(Debug)]
pub(crate) enum Program {
    /// Our ends of three pipes; input only where it is open.
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
    /// The terminal's master.
    Console(OwnedFd),
}

#[derive(Debug, Default)]
pub(crate) struct Streams {
    outputs: Vec<(LogStream, OwnedFd)>,
    console: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
    stdin_queue: Vec<u8>,
    /// The first client's end of input is the program's.
    stdin_once: bool,
    stdin_ended: bool,
    size: Option<(u16, u16)>,
    clients: Vec<Client>,
    clients_seen: u64,
    listener: Option<OwnedFd>,
    log: Option<LogWriter>,
}

impl Streams {
    pub(crate) fn new(listener: Option<OwnedFd>, log: Option<LogWriter>, stdin_once: bool) -> Streams {
        Streams { listener, log, stdin_once, ..Streams::default() }
    }

    /// A client that is connected from the beginning.
    pub(crate) fn add_client(&mut self, socket: OwnedFd, patient: bool) -> u64 {
        self.clients_seen += 1;
        self.clients.push(Client::new(self.clients_seen, socket, patient));
        self.clients_seen
    }

    /// The size its terminal is to start with, as the first client has said by now.
    pub(crate) fn initial_size(&mut self) -> Option<(u16, u16)> {
        self.size
    }

    /// Connects the program of a (re)start.
    pub(crate) fn set_program(&mut self, program: Program) -> io::Result<()> {
        self.stdin_queue.clear();
        self.outputs.clear();
        match program {
            Program::Pipes { stdin, stdout, stderr } => {
                self.stdin = stdin;
                self.outputs = vec![(LogStream::Stdout, stdout), (LogStream::Stderr, stderr)];
            }
            Program::Console(master) => {
                self.stdin = Some(master.try_clone()?);
                self.console = Some(master.try_clone()?);
                self.outputs = vec![(LogStream::Stdout, master)];
                if let Some(size) = self.size {
                    self.resize(size);
                }
            }
        }
        for fd in self.outputs.iter().map(|(_, fd)| fd).chain(&self.stdin) {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        if self.stdin_ended && self.stdin_queue.is_empty() && self.console.is_none() {
            self.stdin = None;
        }
        Ok(())
    }

    /// All the input the program gets.
    pub(crate) fn give_stdin(&mut self, bytes: &[u8]) {
        self.stdin_queue.extend_from_slice(bytes);
        self.stdin_ended = true;
        self.write_stdin();
    }

    /// Waits for something to happen among the streams, `others` or until `deadline`; moves what flows. Says which of the
    /// others are ready, and what clients ask for.
    pub(crate) fn turn(
        &mut self,
        others: &[BorrowedFd<'_>],
        deadline: Option<Instant>,
    ) -> io::Result<(Vec<bool>, Vec<Request>)> {
        let held_up = self.clients.iter().any(Client::has_queue);
        let stdin_full = self.stdin_queue.len() >= MAX_STDIN_QUEUE_BYTES;
        let deadline = self.clients.iter().filter_map(Client::deadline).chain(deadline).min();

        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(8 + others.len() + self.clients.len());
        fds.extend(others.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)));
        let accepts = self.listener.is_some() && self.clients.len() < MAX_CLIENTS;
        fds.extend(self.listener.iter().filter(|_| accepts).map(|fd| PollFd::new(fd, PollFlags::IN)));
        let waits_to_write = self.stdin.is_some() && !self.stdin_queue.is_empty();
        fds.extend(self.stdin.iter().filter(|_| waits_to_write).map(|fd| PollFd::new(fd, PollFlags::OUT)));
        for client in &self.clients {
            let mut flags = PollFlags::empty();
            if !(stdin_full && client.writes_stdin()) {
                flags |= PollFlags::IN;
            }
            if client.has_queue() {
                flags |= PollFlags::OUT;
            }
            fds.push(PollFd::from_borrowed_fd(client.as_fd(), flags));
        }
        let reads = !held_up;
        fds.extend(self.outputs.iter().filter(|_| reads).map(|(_, fd)| PollFd::new(fd, PollFlags::IN)));
        wait(&mut fds, deadline)?;
        let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        drop(fds);

        let mut ready = ready.into_iter();
        let others_ready: Vec<bool> = ready.by_ref().take(others.len()).map(|r| !r.is_empty()).collect();
        let accept = accepts && ready.next().is_some_and(|r| !r.is_empty());
        if waits_to_write && ready.next().is_some_and(|r| !r.is_empty()) {
            self.write_stdin();
        }
        let clients: Vec<PollFlags> = ready.by_ref().take(self.clients.len()).collect();
        let outputs: Vec<bool> = ready.map(|r| !r.is_empty()).collect();

        let requests = self.serve_clients(&clients);
        if accept {
            self.accept();
        }
        // From the back: a stream at its end is taken out.
        for (index, _) in outputs.iter().enumerate().rev().filter(|(_, ready)| **ready) {
            self.read_output(index);
        }
        Ok((others_ready, requests))
    }

    fn serve_clients(&mut self, ready: &[PollFlags]) -> Vec<Request> {
        let mut requests = Vec::new();
        let now = Instant::now();
        let mut clients = std::mem::take(&mut self.clients);
        let mut index = 0;
        clients.retain_mut(|client| {
            let flags = ready.get(index).copied().unwrap_or(PollFlags::empty());
            index += 1;
            let served = self.serve_client(client, flags, &mut requests);
            let stalled = client.deadline().is_some_and(|deadline| deadline <= now);
            if (served.is_err() || stalled) && client.writes_stdin() {
                self.end_stdin();
            }
            served.is_ok() && !stalled
        });
        self.clients = clients;
        requests
    }

    fn serve_client(&mut self, client: &mut Client, ready: PollFlags, requests: &mut Vec<Request>) -> Result<(), Gone> {
        if ready.contains(PollFlags::OUT) {
            client.flush()?;
        }
        if !ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return Ok(());
        }
        let received = client.receive();
        while let Some((kind, payload)) = client.next_frame()? {
            match kind {
                FrameKind::Attach => client.attach(payload.first().copied().unwrap_or(0)),
                FrameKind::Stdin if client.writes_stdin() && self.stdin.is_some() => {
                    self.stdin_queue.extend_from_slice(&payload);
                    self.write_stdin();
                }
                FrameKind::CloseStdin if client.writes_stdin() => self.end_stdin(),
                FrameKind::Resize => {
                    if let Some(size) = parse_size(&payload) {
                        self.resize(size);
                    }
                }
                FrameKind::Signal => {
                    requests
                        .extend(parse_signal(&payload).map(|(signal, by_user)| Request::Signal { signal, by_user }));
                }
                FrameKind::Stop => requests.extend(serde_json::from_slice(&payload).ok().map(Request::Stop)),
                FrameKind::Pause => requests.push(Request::Pause { client: client.number, pause: true }),
                FrameKind::Unpause => requests.push(Request::Pause { client: client.number, pause: false }),
                _ => {}
            }
        }
        received
    }

    fn resize(&mut self, size: (u16, u16)) {
        self.size = Some(size);
        if let Some(console) = &self.console {
            // The program may be gone already.
            let _gone = linux::pty::set_size(console.as_fd(), size.0, size.1);
        }
    }

    /// The first client's input has ended: the program's does, as soon as it has had everything.
    fn end_stdin(&mut self) {
        if self.stdin_once && self.console.is_none() {
            self.stdin_ended = true;
            if self.stdin_queue.is_empty() {
                self.stdin = None;
            }
        }
    }

    fn write_stdin(&mut self) {
        let Some(stdin) = &self.stdin else { return };
        let mut written = 0;
        let open = loop {
            if written == self.stdin_queue.len() {
                break !self.stdin_ended;
            }
            match rustix::io::write(stdin, &self.stdin_queue[written..]) {
                Ok(n) => written += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break true,
                // The program has closed it: what else comes is thrown away.
                Err(_) => {
                    written = self.stdin_queue.len();
                    break false;
                }
            }
        };
        self.stdin_queue.drain(..written);
        if self.stdin_queue.is_empty() {
            self.stdin_queue = Vec::new();
        }
        if !open {
            self.stdin = None;
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        if let Ok(socket) = rustix::net::accept_with(listener, rustix::net::SocketFlags::CLOEXEC) {
            self.add_client(socket, false);
        }
    }

    /// Reads one piece of an output and passes it on. At its end the stream is taken out.
    fn read_output(&mut self, index: usize) -> bool {
        let mut buffer = [0; 32 << 10];
        let Some((stream, fd)) = self.outputs.get(index) else { return false };
        let stream = *stream;
        match rustix::io::read(fd, &mut buffer) {
            Ok(n) if n > 0 => {
                self.pass_on(stream, &buffer[..n]);
                true
            }
            Err(Errno::INTR) => true,
            Err(Errno::AGAIN) => false,
            // The end; EIO is a terminal's.
            Ok(_) | Err(_) => {
                self.outputs.remove(index);
                true
            }
        }
    }

    fn pass_on(&mut self, stream: LogStream, bytes: &[u8]) {
        if let Some(log) = &mut self.log {
            log.write(stream, bytes);
        }
        let kind = if stream == LogStream::Stdout { FrameKind::Stdout } else { FrameKind::Stderr };
        let mut stdin_lost = false;
        self.clients.retain_mut(|client| {
            let stays = !client.wants(kind) || client.send(kind, bytes).is_ok();
            stdin_lost |= !stays && client.writes_stdin();
            stays
        });
        if stdin_lost {
            self.end_stdin();
        }
    }

    /// After the program's end: takes what is left in its streams, until their end or `limit`.
    pub(crate) fn drain(&mut self, limit: Duration) {
        self.stdin = None;
        let deadline = Instant::now() + limit;
        while !self.outputs.is_empty() && Instant::now() < deadline {
            let mut fds: Vec<PollFd<'_>> = self.outputs.iter().map(|(_, fd)| PollFd::new(fd, PollFlags::IN)).collect();
            if wait(&mut fds, Some(deadline)).is_err() {
                break;
            }
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            for (index, _) in ready.iter().enumerate().rev().filter(|(_, ready)| **ready) {
                self.read_output(index);
            }
        }
        self.outputs.clear();
        self.console = None;
        if let Some(log) = &mut self.log {
            log.finish();
        }
    }

    /// Tells one client.
    pub(crate) fn reply(&mut self, client: u64, kind: FrameKind, payload: &[u8]) {
        self.clients.retain_mut(|c| c.number != client || c.send(kind, payload).is_ok());
    }

    /// Tells every client how it ended, waits until they have taken it, and lets them go.
    pub(crate) fn finish(&mut self, status: &ExitStatus) {
        self.accept();
        let payload = serde_json::to_vec(status).unwrap_or_default();
        self.clients.retain_mut(|client| client.send(FrameKind::Exit, &payload).is_ok());
        loop {
            let now = Instant::now();
            self.clients.retain(|c| c.has_queue() && c.deadline().is_none_or(|deadline| deadline > now));
            if self.clients.is_empty() {
                return;
            }
            let deadline = self.clients.iter().filter_map(Client::deadline).min();
            let mut fds: Vec<PollFd<'_>> =
                self.clients.iter().map(|c| PollFd::from_borrowed_fd(c.as_fd(), PollFlags::OUT)).collect();
            if wait(&mut fds, deadline).is_err() {
                return;
            }
            drop(fds);
            self.clients.retain_mut(|client| client.flush().is_ok());
        }
    }

    /// Stops listening for clients; those who are connecting get no answer but the end of their connection.
    pub(crate) fn close_listener(&mut self) {
        while self.listener.is_some() && self.has_pending() {
            self.accept();
        }
        self.listener = None;
    }

    fn has_pending(&self) -> bool {
        let Some(listener) = &self.listener else { return false };
        let mut fds = [PollFd::new(listener, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|n| n > 0)
            && self.clients.len() < MAX_CLIENTS
    }
}

/// Polls until something is ready or the deadline is over.
fn wait(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<()> {
    let timeout = deadline.map(|deadline| {
        let left = deadline.saturating_duration_since(Instant::now());
        Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() }
    });
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}
