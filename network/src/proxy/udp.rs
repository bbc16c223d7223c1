//! UDP: for each client (and each address it asked) a socket to the container, so that answers find their way back.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use linux::socket::LocalEnd;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, SocketType};

use super::{Poll, Relay, TURN, Token};

/// A client that is silent for so long is forgotten (as docker has it; DNS and QUIC need less).
const SILENCE: Duration = Duration::from_secs(90);
/// The largest datagram.
const MAX_DATAGRAM: usize = 65_535;

/// Who asked whom.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    listener: usize,
    peer: SocketAddr,
    local: Option<LocalEnd>,
}

struct Flow {
    key: Key,
    socket: OwnedFd,
    used: Instant,
}

/// All clients, in slots whose numbers are epoll's tokens.
pub(super) struct Flows {
    slots: Vec<Option<Flow>>,
    free: Vec<usize>,
    by_key: HashMap<Key, usize>,
    max: usize,
    buffer: Vec<u8>,
}

impl Flows {
    pub(super) fn new(max: usize) -> Flows {
        Flows { slots: Vec::new(), free: Vec::new(), by_key: HashMap::new(), max, buffer: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// From clients to the container. What cannot be sent is lost, as datagrams are.
    pub(super) fn receive(&mut self, poll: &Poll, relay: &Relay, index: usize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(MAX_DATAGRAM, 0);
        for _ in 0..TURN {
            let datagram = match linux::socket::receive_datagram(relay.listener.as_fd(), &mut buffer) {
                Ok(datagram) => datagram,
                Err(error) if error.errno == Errno::AGAIN => break,
                // An error report about an earlier answer: the next call has the next datagram.
                Err(_) => continue,
            };
            let key = Key { listener: index, peer: datagram.peer, local: datagram.local };
            if let (Some(flow), Some(data)) = (self.flow(poll, key, relay.target), buffer.get(..datagram.len)) {
                flow.used = Instant::now();
                let _ = rustix::net::send(&flow.socket, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            }
        }
        self.buffer = buffer;
    }

    /// From the container to a client, from the address that the client had asked.
    pub(super) fn reply(&mut self, relays: &[Relay], index: usize) {
        let Some(flow) = self.slots.get_mut(index).and_then(Option::as_mut) else { return };
        let Some(relay) = relays.get(flow.key.listener) else { return };
        self.buffer.resize(MAX_DATAGRAM, 0);
        for _ in 0..TURN {
            match rustix::net::recv(&flow.socket, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((_, len)) => {
                    flow.used = Instant::now();
                    let data = self.buffer.get(..len).unwrap_or_default();
                    let _ = linux::socket::send_datagram(relay.listener.as_fd(), data, flow.key.peer, flow.key.local);
                }
                Err(Errno::AGAIN) => break,
                // "Nobody listens there" (an ICMP answer to what was sent): later it may.
                Err(_) => {}
            }
        }
    }

    fn flow(&mut self, poll: &Poll, key: Key, target: SocketAddr) -> Option<&mut Flow> {
        let index = match self.by_key.get(&key) {
            Some(index) => *index,
            None => self.open(poll, key, target).ok()?,
        };
        self.slots.get_mut(index).and_then(Option::as_mut)
    }

    fn open(&mut self, poll: &Poll, key: Key, target: SocketAddr) -> Result<usize, Errno> {
        if self.by_key.len() >= self.max {
            let used = |index: &usize| self.slots.get(*index).and_then(Option::as_ref).map(|flow| flow.used);
            if let Some(oldest) = self.by_key.values().copied().min_by_key(used) {
                self.close(oldest);
            }
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(super::family(target), SocketType::DGRAM, flags, None)?;
        rustix::net::connect(&socket, &target)?;
        let index = self.free.pop().unwrap_or(self.slots.len());
        poll.change(socket.as_fd(), Token::Udp(index), EventFlags::empty(), EventFlags::IN)?;
        if index == self.slots.len() {
            self.slots.push(None);
        }
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Some(Flow { key, socket, used: Instant::now() });
        }
        self.by_key.insert(key, index);
        Ok(index)
    }

    /// Forgets who has been silent for long.
    pub(super) fn sweep(&mut self, now: Instant) {
        let silent = |flow: &Flow| now.saturating_duration_since(flow.used) >= SILENCE;
        let old: Vec<usize> = (0..self.slots.len())
            .filter(|index| self.slots.get(*index).and_then(Option::as_ref).is_some_and(silent))
            .collect();
        old.into_iter().for_each(|index| self.close(index));
    }

    fn close(&mut self, index: usize) {
        if let Some(flow) = self.slots.get_mut(index).and_then(Option::take) {
            self.by_key.remove(&flow.key);
            self.free.push(index);
        }
    }
}
