//! One connection to a monitor (or helper): what it has said, what it is still to be told.

use crate::protocol::{AttachFlags, BadFrame, Decoder, FrameKind, encode};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a client may take nothing before it is dropped: it must not hold up the container for ever.
const STALL_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) number: u64,
    socket: OwnedFd,
    flags: u8,
    /// The command that started it in the foreground: it may be as slow as it likes, like any reader of a pipe.
    patient: bool,
    decoder: Decoder,
    queue: Vec<u8>,
    stalled_since: Option<Instant>,
}

/// The connection has ended.
#[derive(Debug)]
pub(crate) struct Gone;

impl Client {
    pub(crate) fn new(number: u64, socket: OwnedFd, patient: bool) -> Client {
        Client {
            number,
            socket,
            flags: 0,
            patient,
            decoder: Decoder::default(),
            queue: Vec::new(),
            stalled_since: None,
        }
    }

    pub(crate) fn attach(&mut self, flags: u8) {
        self.flags = flags;
    }

    /// Whether it is to get this stream.
    pub(crate) fn wants(&self, kind: FrameKind) -> bool {
        match kind {
            FrameKind::Stdout => self.flags & AttachFlags::STDOUT != 0,
            FrameKind::Stderr => self.flags & AttachFlags::STDERR != 0,
            _ => true,
        }
    }

    pub(crate) fn writes_stdin(&self) -> bool {
        self.flags & AttachFlags::STDIN != 0
    }

    pub(crate) fn has_queue(&self) -> bool {
        !self.queue.is_empty()
    }

    /// When to give it up; None: not at all.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.stalled_since.filter(|_| !self.patient).map(|since| since + STALL_LIMIT)
    }

    /// Queues a frame and sends what the socket takes.
    pub(crate) fn send(&mut self, kind: FrameKind, payload: &[u8]) -> Result<(), Gone> {
        encode(&mut self.queue, kind, payload);
        self.flush()
    }

    /// Sends what the socket takes.
    pub(crate) fn flush(&mut self) -> Result<(), Gone> {
        let mut sent = 0;
        let result = loop {
            if sent == self.queue.len() {
                break Ok(());
            }
            match send(&self.socket, &self.queue[sent..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(n) => sent += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break Ok(()),
                Err(_) => break Err(Gone),
            }
        };
        self.queue.drain(..sent);
        if self.queue.is_empty() {
            self.stalled_since = None;
            self.queue = Vec::new();
        } else if sent > 0 || self.stalled_since.is_none() {
            self.stalled_since = Some(Instant::now());
        }
        result
    }

    /// Reads what has arrived.
    pub(crate) fn receive(&mut self) -> Result<(), Gone> {
        let mut buffer = [0; 16 << 10];
        match recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => Err(Gone),
            Ok((n, _)) => {
                self.decoder.feed(&buffer[..n]);
                Ok(())
            }
            Err(Errno::INTR | Errno::AGAIN) => Ok(()),
            Err(_) => Err(Gone),
        }
    }

    /// The next whole frame that has arrived.
    pub(crate) fn next_frame(&mut self) -> Result<Option<(FrameKind, Vec<u8>)>, Gone> {
        match self.decoder.next() {
            Ok(Some((kind, payload))) => Ok(Some((kind, payload.to_vec()))),
            Ok(None) => {
                self.decoder.shrink();
                Ok(None)
            }
            Err(BadFrame) => Err(Gone),
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
