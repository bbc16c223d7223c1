//! Netlink: messages of attributes to the kernel and its answers, every length checked both ways.
//!
//! One [`Message`] is built with its attributes, a [`Socket`] sends any number of them in one system call and
//! collects the answers. rtnetlink and nfnetlink (where a batch is a transaction) both work so.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::CallError;

/// The length of `struct nlmsghdr`.
const HEADER_LEN: usize = 16;
/// The length of `struct nlattr`.
const ATTRIBUTE_LEN: usize = 4;
/// Room for one datagram: the kernel makes those of a dump 8 KiB, or 32 KiB for a reader with as much room. Lent for the time of
/// a call: who keeps a socket should not keep this.
const RECEIVE_BYTES: usize = 32 << 10;
/// The most datagrams read for one request: bounds a dump, and a kernel that answers something else for ever.
const MAX_DATAGRAMS: usize = 1 << 16;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLA_TYPE_MASK: u16 = 0x3fff;
const NLA_F_NESTED: u16 = 0x8000;

/// NLM_F_REQUEST: set on all we send.
pub const REQUEST: u16 = 0x01;
/// NLM_F_ACK: answer success as well.
pub const ACK: u16 = 0x04;
/// NLM_F_DUMP: list.
pub const DUMP: u16 = 0x300;
/// NLM_F_EXCL: fail where it exists.
pub const EXCLUSIVE: u16 = 0x200;
/// NLM_F_CREATE: create where it does not exist.
pub const CREATE: u16 = 0x400;
/// NLM_F_APPEND: at the end.
pub const APPEND: u16 = 0x800;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetlinkError {
    /// The socket itself failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The kernel said no to one message.
    #[error("{errno}")]
    Refused {
        /// Which of the messages, counted from 0.
        index: usize,
        /// Why.
        errno: Errno,
    },
    /// A message grew beyond what its length fields can say.
    #[error("netlink message too long")]
    TooLong,
    /// An answer whose lengths do not fit.
    #[error("malformed netlink answer: {0}")]
    Malformed(&'static str),
}

impl NetlinkError {
    /// The kernel's error number, where it was the kernel that refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            NetlinkError::Refused { errno, .. } => Some(*errno),
            NetlinkError::Call(error) => Some(error.errno),
            _ => None,
        }
    }
}

impl From<NetlinkError> for std::io::Error {
    fn from(error: NetlinkError) -> std::io::Error {
        match error.errno() {
            Some(errno) => errno.into(),
            None => std::io::Error::new(std::io::ErrorKind::InvalidData, error),
        }
    }
}

/// A message under construction: header, family header, attributes.
#[derive(Clone, Debug)]
pub struct Message {
    bytes: Vec<u8>,
    overflow: bool,
}

impl Message {
    /// A message of a type, with flags beyond [`REQUEST`]. `header` is what the type has before its attributes.
    pub fn new(kind: u16, flags: u16, header: &[u8]) -> Message {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        let mut message = Message { bytes, overflow: false };
        message.raw(header);
        message
    }

    fn raw(&mut self, data: &[u8]) {
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Adds an attribute.
    pub fn put(&mut self, kind: u16, data: &[u8]) -> &mut Message {
        match u16::try_from(ATTRIBUTE_LEN + data.len()) {
            Ok(len) => {
                self.bytes.extend_from_slice(&len.to_ne_bytes());
                self.bytes.extend_from_slice(&kind.to_ne_bytes());
                self.raw(data);
            }
            Err(_) => self.overflow = true,
        }
        self
    }

    /// Adds a number in the host's byte order (rtnetlink).
    pub fn put_u32(&mut self, kind: u16, value: u32) -> &mut Message {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Adds a number in network byte order (nfnetlink).
    pub fn put_be32(&mut self, kind: u16, value: u32) -> &mut Message {
        self.put(kind, &value.to_be_bytes())
    }

    /// Adds a text, ended by NUL.
    pub fn put_str(&mut self, kind: u16, text: &str) -> &mut Message {
        let mut data = Vec::with_capacity(text.len() + 1);
        data.extend_from_slice(text.as_bytes());
        data.push(0);
        self.put(kind, &data)
    }

    /// Adds an attribute whose content `fill` writes: attributes, or with [`Message::append`] anything.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Message)) -> &mut Message {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        fill(self);
        match u16::try_from(self.bytes.len() - start) {
            Ok(len) => {
                if let Some(field) = self.bytes.get_mut(start..start + 2) {
                    field.copy_from_slice(&len.to_ne_bytes());
                }
            }
            Err(_) => self.overflow = true,
        }
        self
    }

    /// Adds bytes that are no attribute: a second header within a nest (veth's peer has one).
    pub fn append(&mut self, data: &[u8]) -> &mut Message {
        self.raw(data);
        self
    }

    /// Asks for an answer on success.
    fn set_flags(&mut self, flags: u16) {
        if let Some(field) = self.bytes.get_mut(6..8) {
            let old = u16::from_ne_bytes([field[0], field[1]]);
            field.copy_from_slice(&(old | flags).to_ne_bytes());
        }
    }

    /// Adds the message to a datagram, under this number.
    pub fn encode(&self, sequence: u32, into: &mut Vec<u8>) -> Result<(), NetlinkError> {
        let len = u32::try_from(self.bytes.len()).map_err(|_| NetlinkError::TooLong)?;
        if self.overflow {
            return Err(NetlinkError::TooLong);
        }
        into.extend_from_slice(&len.to_ne_bytes());
        into.extend_from_slice(self.bytes.get(4..8).unwrap_or_default());
        into.extend_from_slice(&sequence.to_ne_bytes());
        into.extend_from_slice(&[0; 4]);
        into.extend_from_slice(self.bytes.get(HEADER_LEN..).unwrap_or_default());
        Ok(())
    }
}

/// One message of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// nlmsg_type.
    pub kind: u16,
    /// nlmsg_flags.
    pub flags: u16,
    /// The number of the request it answers.
    pub sequence: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Splits a datagram into its messages. A length that does not fit ends it with an error.
pub fn answers(mut datagram: &[u8]) -> impl Iterator<Item = Result<Answer<'_>, NetlinkError>> {
    std::iter::from_fn(move || {
        if datagram.is_empty() {
            return None;
        }
        let parsed = (|| {
            let len = usize::try_from(u32_at(datagram, 0)?).ok()?;
            let payload = datagram.get(HEADER_LEN..len)?;
            let (kind, flags, sequence) = (u16_at(datagram, 4)?, u16_at(datagram, 6)?, u32_at(datagram, 8)?);
            // The last message's padding may be left out.
            datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
            Some(Answer { kind, flags, sequence, payload })
        })();
        if parsed.is_none() {
            datagram = &[];
        }
        Some(parsed.ok_or(NetlinkError::Malformed("message length")))
    })
}

/// Splits a run of attributes into (type without flags, content). A length that does not fit ends it.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & NLA_TYPE_MASK;
        let content = bytes.get(ATTRIBUTE_LEN..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, content))
    })
}

/// The content of the first attribute of a type.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, content)| content)
}

/// The text of an attribute, without its NUL; None where it is no UTF-8.
pub fn text(content: &[u8]) -> Option<&str> {
    std::str::from_utf8(content.strip_suffix(&[0]).unwrap_or(content)).ok()
}

/// A netlink socket. It belongs to the network namespace it was made in, for good.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// NETLINK_ROUTE: interfaces, addresses, routes.
    pub fn route() -> Result<Socket, NetlinkError> {
        // Protocol 0, which "none given" means.
        Socket::open(None, "NETLINK_ROUTE")
    }

    /// NETLINK_NETFILTER: nftables and connection tracking.
    pub fn netfilter() -> Result<Socket, NetlinkError> {
        Socket::open(Some(rustix::net::netlink::NETFILTER), "NETLINK_NETFILTER")
    }

    fn open(protocol: Option<Protocol>, name: &'static str) -> Result<Socket, NetlinkError> {
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
            .map_err(|errno| CallError::new("socket", name, errno))?;
        Ok(Socket { fd, sequence: 0 })
    }

    /// Sends messages in one datagram and waits for the kernel's word on each. The first refusal is returned; the others
    /// were tried all the same.
    pub fn request(&mut self, messages: &mut [Message]) -> Result<(), NetlinkError> {
        messages.iter_mut().for_each(|message| message.set_flags(ACK));
        let first = self.send(messages)?;
        let mut left = messages.len();
        let mut refused = None;
        self.receive(|answer| {
            let Some(index) = index_of(answer.sequence, first, messages.len()) else { return Ok(false) };
            if let Some(errno) = error_of(&answer)? {
                left = left.saturating_sub(1);
                if let Err(errno) = errno {
                    refused.get_or_insert(NetlinkError::Refused { index, errno });
                }
            }
            Ok(left == 0)
        })?;
        refused.map_or(Ok(()), Err)
    }

    /// Sends an nfnetlink batch (`begin` … `end`, both without an answer of their own) that holds or fails as one. The
    /// index of a refusal counts the messages between the two; one of the batch as a whole counts as the first.
    pub fn transaction(
        &mut self,
        begin: Message,
        mut messages: Vec<Message>,
        end: Message,
    ) -> Result<(), NetlinkError> {
        let Some(last) = messages.last_mut() else { return Ok(()) };
        last.set_flags(ACK);
        let count = messages.len();
        let batch: Vec<Message> = std::iter::once(begin).chain(messages).chain(std::iter::once(end)).collect();
        let first = self.send(&batch)?;
        let mut refused = None;
        self.receive(|answer| {
            let Some(index) = index_of(answer.sequence, first, batch.len()) else { return Ok(false) };
            let Some(result) = error_of(&answer)? else { return Ok(false) };
            if let Err(errno) = result {
                refused.get_or_insert(NetlinkError::Refused { index: index.saturating_sub(1), errno });
            }
            // Errors come in order, the last message's answer (asked for) or the batch's own is the end.
            Ok(index == count || index == 0)
        })?;
        refused.map_or(Ok(()), Err)
    }

    /// Asks for one thing or, with [`DUMP`], a list, and gives each answer to `each`.
    pub fn get(&mut self, mut message: Message, mut each: impl FnMut(&Answer<'_>)) -> Result<(), NetlinkError> {
        message.set_flags(ACK);
        let first = self.send(std::slice::from_ref(&message))?;
        let mut refused = None;
        self.receive(|answer| {
            if answer.sequence != first {
                return Ok(false);
            }
            match error_of(&answer)? {
                Some(Err(errno)) => {
                    refused = Some(NetlinkError::Refused { index: 0, errno });
                    Ok(true)
                }
                Some(Ok(())) => Ok(true),
                None => {
                    each(&answer);
                    Ok(false)
                }
            }
        })?;
        refused.map_or(Ok(()), Err)
    }

    /// Sends, and returns the first message's sequence number.
    fn send(&mut self, messages: &[Message]) -> Result<u32, NetlinkError> {
        let first = self.sequence.wrapping_add(1);
        let mut datagram = Vec::with_capacity(messages.iter().map(|message| message.bytes.len()).sum());
        for message in messages {
            self.sequence = self.sequence.wrapping_add(1);
            message.encode(self.sequence, &mut datagram)?;
        }
        let sent = rustix::io::retry_on_intr(|| rustix::net::send(&self.fd, &datagram, SendFlags::empty()))
            .map_err(|errno| CallError::new("send", "netlink", errno))?;
        if sent != datagram.len() {
            return Err(NetlinkError::TooLong);
        }
        Ok(first)
    }

    /// Reads answers until `each` says that it has all.
    fn receive(&self, mut each: impl FnMut(Answer<'_>) -> Result<bool, NetlinkError>) -> Result<(), NetlinkError> {
        let mut buffer = vec![0; RECEIVE_BYTES];
        for _ in 0..MAX_DATAGRAMS {
            let (_, len) =
                rustix::io::retry_on_intr(|| rustix::net::recv(&self.fd, buffer.as_mut_slice(), RecvFlags::TRUNC))
                    .map_err(|errno| CallError::new("recv", "netlink", errno))?;
            let datagram = buffer.get(..len).ok_or(NetlinkError::Malformed("truncated datagram"))?;
            for answer in answers(datagram) {
                if each(answer?)? {
                    return Ok(());
                }
            }
        }
        Err(NetlinkError::Malformed("endless answer"))
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> OwnedFd {
        socket.fd
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Which message of a batch a sequence number belongs to.
fn index_of(sequence: u32, first: u32, count: usize) -> Option<usize> {
    usize::try_from(sequence.wrapping_sub(first)).ok().filter(|index| *index < count)
}

/// The result an answer reports: None where it is data, Ok at an acknowledgement or the end of a dump.
fn error_of(answer: &Answer<'_>) -> Result<Option<Result<(), Errno>>, NetlinkError> {
    match answer.kind {
        NLMSG_NOOP => Ok(None),
        NLMSG_ERROR | NLMSG_DONE => {
            let code = match answer.payload.get(..4).and_then(|code| code.try_into().ok()) {
                Some(code) => i32::from_ne_bytes(code),
                None if answer.kind == NLMSG_DONE => 0,
                None => return Err(NetlinkError::Malformed("error without a number")),
            };
            // A dump's DONE may carry a count; only negative numbers are errors.
            Ok(Some(if code < 0 { Err(Errno::from_raw_os_error(code.saturating_neg())) } else { Ok(()) }))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_built_is_read_back() {
        let mut message = Message::new(16, CREATE, &[7; 6]);
        message.put_str(3, "ctr0").nest(18, |m| {
            m.put_u32(1, 5).append(&[9; 3]);
        });
        let mut bytes = Vec::new();
        message.encode(4, &mut bytes).unwrap();
        let all: Vec<_> = answers(&bytes).map(Result::unwrap).collect();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].kind, all[0].flags, all[0].sequence), (16, CREATE | REQUEST, 4));
        let body = &all[0].payload[8..];
        assert_eq!(text(attribute(body, 3).unwrap()), Some("ctr0"));
        assert_eq!(attribute(attribute(body, 18).unwrap(), 1), Some(&5_u32.to_ne_bytes()[..]));
    }

    #[test]
    fn an_attribute_too_long_for_its_field_is_refused() {
        let mut message = Message::new(16, 0, &[]);
        message.put(1, &[0; 70_000]);
        assert_eq!(message.encode(1, &mut Vec::new()), Err(NetlinkError::TooLong));
        let mut message = Message::new(16, 0, &[]);
        message.nest(1, |m| {
            m.put(2, &[0; 40_000]).put(3, &[0; 40_000]);
        });
        assert_eq!(message.encode(1, &mut Vec::new()), Err(NetlinkError::TooLong));
    }

    #[test]
    fn lengths_that_lie_end_the_walk() {
        for len in [0_u32, 1, 15, 17, 4000, u32::MAX] {
            let mut datagram = len.to_ne_bytes().to_vec();
            datagram.extend_from_slice(&[0; 12]);
            assert!(answers(&datagram).all(|answer| answer.is_err()), "{len}");
        }
        for len in [0_u16, 3, 9, u16::MAX] {
            let mut run = len.to_ne_bytes().to_vec();
            run.extend_from_slice(&[1, 0, 0, 0, 0, 0]);
            assert_eq!(attributes(&run).count(), 0, "{len}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_datagram_is_split_within_its_bounds(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let mut total = 0;
            for answer in answers(&bytes).flatten() {
                total += HEADER_LEN + answer.payload.len();
                let inner: usize = attributes(answer.payload).map(|(_, content)| ATTRIBUTE_LEN + content.len()).sum();
                proptest::prop_assert!(inner <= answer.payload.len());
                let _ = error_of(&answer);
            }
            proptest::prop_assert!(total <= bytes.len());
        }

        #[test]
        fn attributes_survive_the_way(all in proptest::collection::vec((0_u16..0x3fff, proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)), 0..8)) {
            let mut message = Message::new(1, 0, &[]);
            for (kind, data) in &all {
                message.put(*kind, data);
            }
            let mut bytes = Vec::new();
            message.encode(1, &mut bytes).unwrap();
            let back: Vec<_> = attributes(&bytes[HEADER_LEN..]).map(|(kind, data)| (kind, data.to_vec())).collect();
            proptest::prop_assert_eq!(back, all);
        }
    }

    #[test]
    fn the_loopback_interface_is_found() {
        let mut socket = Socket::route().unwrap();
        let mut names = Vec::new();
        socket
            .get(Message::new(18, DUMP, &[0; 16]), |answer| {
                names.extend(attribute(&answer.payload[16..], 3).and_then(text).map(str::to_owned));
            })
            .unwrap();
        assert!(names.iter().any(|name| name == "lo"), "{names:?}");
    }
}
