//! TCP connections: two sockets, joined through pipes by splice.
//!
//! A direction ends when its source has ended and its pipe is empty; its target is then shut down for writing, and the other
//! direction goes on (half-close: `echo question | nc …` waits for the answer). What breaks is reset at the other end,
//! so that neither end takes a broken transfer for a whole one.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{Shutdown, SocketFlags, SocketType, sockopt};
use rustix::pipe::{PipeFlags, SpliceFlags};

use super::{Poll, Token};

/// Bytes moved by one call: a pipe's usual size.
const CHUNK: usize = 64 << 10;
/// Calls for one direction before others have their turn.
const ROUNDS: usize = 16;
/// Empty pipes kept for the next connections.
const MAX_SPARE_PIPES: usize = 32;

/// A pipe's read and write ends.
type Pipe = (OwnedFd, OwnedFd);

/// One direction of a connection.
#[derive(Default)]
struct Direction {
    /// There only while it holds something: idle connections cost no pipes.
    pipe: Option<Pipe>,
    buffered: usize,
    /// The source has sent its last.
    ended: bool,
    /// The target has been told.
    done: bool,
    /// The target does not take any more: what was left is lost.
    broken: bool,
}

struct Flow {
    client: OwnedFd,
    container: OwnedFd,
    connecting: bool,
    up: Direction,
    down: Direction,
    /// What epoll reports for (client, container).
    watched: (EventFlags, EventFlags),
}

/// What came of an attempt to move data.
enum Moved {
    /// All for now.
    Waits,
    /// The source has failed.
    SourceFailed,
}

impl Direction {
    fn pump(&mut self, from: &OwnedFd, to: &OwnedFd, spare: &mut Vec<Pipe>) -> Moved {
        for _ in 0..ROUNDS {
            if self.buffered == 0 && !self.ended {
                match self.fill(from, spare) {
                    Ok(()) => {}
                    Err(Errno::AGAIN) => break,
                    Err(_) => return Moved::SourceFailed,
                }
            }
            if self.buffered > 0 && self.drain(to).is_err() {
                break;
            }
            if self.ended && self.buffered == 0 {
                if !self.done {
                    // Fails where the connection has gone, which the other direction notices.
                    let _ = rustix::net::shutdown(to, Shutdown::Write);
                    self.done = true;
                }
                break;
            }
        }
        if self.buffered == 0 && spare.len() < MAX_SPARE_PIPES {
            spare.extend(self.pipe.take());
        }
        Moved::Waits
    }

    /// Source to pipe.
    fn fill(&mut self, from: &OwnedFd, spare: &mut Vec<Pipe>) -> Result<(), Errno> {
        let pipe = match self.pipe.take().or_else(|| spare.pop()) {
            Some(pipe) => pipe,
            None => rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?,
        };
        let (_, write) = self.pipe.insert(pipe);
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        match rustix::io::retry_on_intr(|| rustix::pipe::splice(from, None, &*write, None, CHUNK, flags))? {
            0 => self.ended = true,
            count => self.buffered = count,
        }
        Ok(())
    }

    /// Pipe to target. An error means: no more now, or – then it is broken – ever.
    fn drain(&mut self, to: &OwnedFd) -> Result<(), Errno> {
        let Some((read, _)) = &self.pipe else { return Ok(()) };
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let count = rustix::io::retry_on_intr(|| rustix::pipe::splice(read, None, to, None, self.buffered, flags));
        match count {
            Ok(count) => self.buffered = self.buffered.saturating_sub(count),
            Err(Errno::AGAIN) => return Err(Errno::AGAIN),
            Err(errno) => {
                // The pipe still holds something: it goes with it.
                *self = Direction { ended: true, done: true, broken: true, ..Direction::default() };
                return Err(errno);
            }
        }
        Ok(())
    }
}

impl Flow {
    /// What there is to wait for at (client, container).
    fn interest(&self) -> (EventFlags, EventFlags) {
        if self.connecting {
            return (EventFlags::empty(), EventFlags::OUT);
        }
        let of = |source: &Direction, target: &Direction| {
            let mut flags = EventFlags::empty();
            flags.set(EventFlags::IN, !source.ended && source.buffered == 0);
            flags.set(EventFlags::OUT, target.buffered > 0);
            flags
        };
        (of(&self.up, &self.down), of(&self.down, &self.up))
    }

    fn is_done(&self) -> bool {
        self.up.done && self.down.done
    }

    /// Closing resets the connection, at both ends.
    fn reset(&self) {
        for socket in [&self.client, &self.container] {
            let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
        }
    }
}

/// All connections, in slots whose numbers are epoll's tokens.
pub(super) struct Flows {
    slots: Vec<Option<Flow>>,
    free: Vec<usize>,
    count: usize,
    max: usize,
    spare: Vec<Pipe>,
    closed: bool,
}

impl Flows {
    pub(super) fn new(max: usize) -> Flows {
        Flows { slots: Vec::new(), free: Vec::new(), count: 0, max, spare: Vec::new(), closed: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.count >= self.max
    }

    /// Has a connection been closed since this was last asked?
    pub(super) fn closed_some(&mut self) -> bool {
        std::mem::take(&mut self.closed)
    }

    /// Takes a client and begins to connect to the container. On an error the client sees a reset.
    pub(super) fn open(&mut self, poll: &Poll, client: OwnedFd, target: SocketAddr) {
        let Ok(container) = connect(target) else {
            let _ = sockopt::set_socket_linger(&client, Some(Duration::ZERO));
            return;
        };
        for socket in [&client, &container] {
            // A peer that vanished without a word would keep its slot for ever.
            let _ = sockopt::set_socket_keepalive(socket, true);
            let _ = sockopt::set_tcp_nodelay(socket, true);
        }
        let none = (EventFlags::empty(), EventFlags::empty());
        let (up, down) = (Direction::default(), Direction::default());
        let flow = Flow { client, container, connecting: true, up, down, watched: none };
        let index = self.free.pop().unwrap_or(self.slots.len());
        if index == self.slots.len() {
            self.slots.push(None);
        }
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Some(flow);
            self.count += 1;
        }
        self.watch(poll, index);
    }

    /// Moves what can be moved.
    pub(super) fn progress(&mut self, poll: &Poll, index: usize, token: Token, flags: EventFlags) {
        let Some(flow) = self.slots.get_mut(index).and_then(Option::as_mut) else { return };
        if flow.connecting {
            if !matches!(token, Token::Container(_)) {
                return;
            }
            match sockopt::socket_error(&flow.container) {
                Ok(Ok(())) if flags.contains(EventFlags::OUT) => flow.connecting = false,
                Ok(Ok(())) => return,
                _ => {
                    flow.reset();
                    return self.close(index);
                }
            }
        }
        let up = flow.up.pump(&flow.client, &flow.container, &mut self.spare);
        let down = flow.down.pump(&flow.container, &flow.client, &mut self.spare);
        let failed = matches!(up, Moved::SourceFailed) || matches!(down, Moved::SourceFailed);
        if failed || (flow.is_done() && (flow.up.broken || flow.down.broken)) {
            flow.reset();
            return self.close(index);
        }
        if flow.is_done() {
            return self.close(index);
        }
        self.watch(poll, index);
    }

    fn watch(&mut self, poll: &Poll, index: usize) {
        let Some(flow) = self.slots.get_mut(index).and_then(Option::as_mut) else { return };
        let (client, container) = flow.interest();
        let changed = poll
            .change(flow.client.as_fd(), Token::Client(index), flow.watched.0, client)
            .and_then(|()| poll.change(flow.container.as_fd(), Token::Container(index), flow.watched.1, container));
        flow.watched = (client, container);
        if changed.is_err() {
            flow.reset();
            self.close(index);
        }
    }

    fn close(&mut self, index: usize) {
        if self.slots.get_mut(index).and_then(Option::take).is_some() {
            self.free.push(index);
            self.count -= 1;
            self.closed = true;
        }
    }
}

fn connect(target: SocketAddr) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(super::family(target), SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(errno) => Err(errno),
    }
}
