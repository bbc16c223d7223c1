//! Serves what reaches a listener: connections from the host itself, from our own containers, and over IPv6.
//!
//! One thread, one epoll: TCP goes through splice, so its bytes never enter this process; UDP keeps a socket for each
//! client. What can pile up is bounded: connections by [`MAX_FLOWS`] and the limit of open files (further ones wait in the
//! listener's queue), UDP clients by [`MAX_FLOWS`] (the longest silent one goes).

mod tcp;
mod udp;

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags};

use crate::error::{Result, during};
use crate::ports::Protocol;
use crate::publish::Published;
use crate::{filter, privileges};

/// The most connections, and the most UDP clients, at once.
const MAX_FLOWS: usize = 4096;
/// Descriptors of one TCP connection at most (two sockets, two pipes) and one UDP client.
const FDS_PER_FLOW: u64 = 7;
/// Descriptors kept for everything else.
const FDS_RESERVED: u64 = 64;
/// Events taken at once.
const EVENTS: usize = 64;
/// Connections accepted, or datagrams taken, before others have their turn.
const TURN: usize = 64;
/// Without any flow for so long, the process is not worth its memory.
const IDLE: Duration = Duration::from_secs(60);
/// How often silent UDP clients are looked for.
const SWEEP: Duration = Duration::from_secs(10);

/// Serves the listeners towards the container. For a forked, single-threaded child of the process that published: it first
/// drops every privilege (uid and gid 65534, no capabilities, no_new_privs), and dies with its parent.
/// Returns when nothing has been connected for a minute, so that the child goes; the parent starts another when a
/// listener is readable again.
pub fn serve_proxy(published: Vec<Published>, container: Ipv4Addr) -> Result<()> {
    let mut relays = Vec::new();
    for Published { spec, listeners } in published {
        let target = SocketAddr::new(container.into(), spec.container_port);
        relays.extend(listeners.into_iter().map(|listener| Relay { listener, protocol: spec.protocol, target }));
    }
    serve(relays, Some(IDLE))
}

/// [`serve_proxy`] from within the container's own namespace, where an ordinary user's bridge would be: the listeners stay the
/// host's.
pub fn serve_proxy_within(namespace: OwnedFd, published: Vec<Published>, container: Ipv4Addr) -> Result<()> {
    crate::usermode::enter(namespace.as_fd())?;
    drop(namespace);
    serve_proxy(published, container)
}

/// A listening socket and where it leads.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) listener: OwnedFd,
    pub(crate) protocol: Protocol,
    pub(crate) target: SocketAddr,
}

/// [`serve_proxy`] for whatever leads wherever; without `idle` it never returns but with an error.
pub(crate) fn serve(relays: Vec<Relay>, idle: Option<Duration>) -> Result<()> {
    // The parent's, if it has one: not ours to use, and cheap to close while the parent holds it too.
    drop(filter::release());
    privileges::drop_all()?;
    let per_files = privileges::raise_open_files().saturating_sub(FDS_RESERVED) / FDS_PER_FLOW;
    let max_flows = usize::try_from(per_files).unwrap_or(MAX_FLOWS).clamp(1, MAX_FLOWS);
    let failed = || "serve published ports".to_owned();
    let mut proxy = Proxy::new(relays, max_flows).map_err(during(failed))?;
    proxy.serve(idle).map_err(during(failed))
}

/// What an event belongs to: the number in epoll's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Listener(usize),
    Client(usize),
    Container(usize),
    Udp(usize),
}

impl Token {
    fn encode(self) -> u64 {
        let (index, kind) = match self {
            Token::Listener(index) => (index, 0),
            Token::Client(index) => (index, 1),
            Token::Container(index) => (index, 2),
            Token::Udp(index) => (index, 3),
        };
        // Indexes are bounded by MAX_FLOWS.
        u64::try_from(index).unwrap_or(0) << 2 | kind
    }

    fn decode(data: u64) -> Token {
        let index = usize::try_from(data >> 2).unwrap_or(usize::MAX);
        match data & 3 {
            0 => Token::Listener(index),
            1 => Token::Client(index),
            2 => Token::Container(index),
            _ => Token::Udp(index),
        }
    }
}

/// A set of sockets whose readiness is waited for. An event may come late, for a flow that is gone: whatever is done on one
/// never blocks, so that costs a system call.
struct Poll(OwnedFd);

impl Poll {
    fn change(&self, socket: BorrowedFd<'_>, token: Token, before: EventFlags, after: EventFlags) -> Result<(), Errno> {
        let data = EventData::new_u64(token.encode());
        match (before.is_empty(), after.is_empty()) {
            _ if before == after => Ok(()),
            (true, _) => epoll::add(&self.0, socket, data, after),
            // Not "no events": a closed connection is reported whether asked for or not, again and again.
            (_, true) => epoll::delete(&self.0, socket),
            _ => epoll::modify(&self.0, socket, data, after),
        }
    }
}

struct Proxy {
    poll: Poll,
    relays: Vec<Relay>,
    tcp: tcp::Flows,
    udp: udp::Flows,
    /// Listening for connections is off: there is no room.
    full: bool,
}

impl Proxy {
    fn new(relays: Vec<Relay>, max_flows: usize) -> Result<Proxy, Errno> {
        let poll = Poll(epoll::create(CreateFlags::CLOEXEC)?);
        for (index, relay) in relays.iter().enumerate() {
            poll.change(relay.listener.as_fd(), Token::Listener(index), EventFlags::empty(), EventFlags::IN)?;
        }
        Ok(Proxy { poll, relays, tcp: tcp::Flows::new(max_flows), udp: udp::Flows::new(max_flows), full: false })
    }

    fn serve(&mut self, idle: Option<Duration>) -> Result<(), Errno> {
        let none = Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
        let mut events = [none; EVENTS];
        let (mut busy, mut swept) = (Instant::now(), Instant::now());
        loop {
            let timeout = Timespec { tv_sec: SWEEP.as_secs().try_into().unwrap_or(10), tv_nsec: 0 };
            let count = match epoll::wait(&self.poll.0, events.as_mut_slice(), Some(&timeout)) {
                Err(Errno::INTR) => 0,
                other => other?,
            };
            for event in events.iter().take(count) {
                self.handle(Token::decode(event.data.u64()), event.flags)?;
            }
            let now = Instant::now();
            if now.duration_since(swept) >= SWEEP {
                self.udp.sweep(now);
                swept = now;
            }
            self.make_room()?;
            if !self.tcp.is_empty() || !self.udp.is_empty() || count > 0 {
                busy = now;
            } else if idle.is_some_and(|idle| now.duration_since(busy) >= idle) {
                return Ok(());
            }
        }
    }

    fn handle(&mut self, token: Token, flags: EventFlags) -> Result<(), Errno> {
        match token {
            Token::Listener(index) => {
                let Some(relay) = self.relays.get(index) else { return Ok(()) };
                match relay.protocol {
                    Protocol::Udp => {
                        self.udp.receive(&self.poll, relay, index);
                        Ok(())
                    }
                    _ => self.accept(index),
                }
            }
            Token::Client(index) | Token::Container(index) => {
                self.tcp.progress(&self.poll, index, token, flags);
                Ok(())
            }
            Token::Udp(index) => {
                self.udp.reply(&self.relays, index);
                Ok(())
            }
        }
    }

    fn accept(&mut self, index: usize) -> Result<(), Errno> {
        let Some(relay) = self.relays.get(index) else { return Ok(()) };
        for _ in 0..TURN {
            if self.tcp.is_full() {
                return self.listen(false);
            }
            match rustix::net::accept_with(&relay.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(client) => self.tcp.open(&self.poll, client, relay.target),
                Err(Errno::AGAIN) => break,
                // Others, and other processes, use up descriptors and memory too: wait until one of ours is closed.
                Err(errno @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                    return if self.tcp.is_empty() { Err(errno) } else { self.listen(false) };
                }
                // Errors of the connection that was to be accepted: the next one may be good.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Accepts connections again when one has gone.
    fn make_room(&mut self) -> Result<(), Errno> {
        if self.full && (self.tcp.is_empty() || self.tcp.closed_some()) { self.listen(true) } else { Ok(()) }
    }

    fn listen(&mut self, on: bool) -> Result<(), Errno> {
        if self.full != on {
            return Ok(());
        }
        let (before, after) =
            if on { (EventFlags::empty(), EventFlags::IN) } else { (EventFlags::IN, EventFlags::empty()) };
        for (index, relay) in self.relays.iter().enumerate() {
            if relay.protocol != Protocol::Udp {
                self.poll.change(relay.listener.as_fd(), Token::Listener(index), before, after)?;
            }
        }
        self.full = !on;
        self.tcp.closed_some();
        Ok(())
    }
}

fn family(address: SocketAddr) -> AddressFamily {
    if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        for index in [0, 1, MAX_FLOWS] {
            for token in [Token::Listener(index), Token::Client(index), Token::Container(index), Token::Udp(index)] {
                assert_eq!(Token::decode(token.encode()), token);
            }
        }
    }
}
