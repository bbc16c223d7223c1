//! What the caller and a container's init say to each other: typed messages over a seqpacket socket
//! that no exec survives. The end of the stream means that the program runs (or the other side died).

use crate::RuntimeError;
use linux::CallError;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The longest message, in bytes; both sides are ours, errors are cut to fit.
const MAX_MESSAGE: usize = 16 << 10;

/// From the init to its maker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromInit {
    /// Still outside: it is to be put into its group.
    EnterGroup,
    /// In its user namespace; its ids are to be mapped.
    MapIds,
    /// In its network, which is to be given its interfaces.
    MoveDevices,
    /// Its root is mounted where others live: it will not go by itself.
    Attached,
    /// Its namespaces are there, its root not yet entered: the moment of the prestart and createRuntime hooks.
    RunHooks,
    /// Set up, waiting to start. The terminal's master comes along.
    Ready {
        /// What could not be done but was no reason to fail.
        warnings: Vec<String>,
    },
    /// Of an exec'd process, by whoever prepared its birth: it lives. Its pidfd comes along.
    Born,
    /// It gives up.
    Failed(Failure),
}

/// To the init.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToInit {
    /// What it asked for is done.
    Done,
    /// It is in its group.
    InGroup {
        /// The group's path below its hierarchy's root.
        path: String,
    },
    /// Execute the program.
    Start {
        /// The process as its maker knows it, where it can't know itself.
        pid: Option<i32>,
    },
}

/// An error on its way from the init to its maker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) message: String,
}

/// Which exit code it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FailureKind {
    NotFound,
    NotExecutable,
    SetUp,
}

impl Failure {
    pub(crate) fn not_found(message: impl Into<String>) -> Failure {
        Failure { kind: FailureKind::NotFound, message: message.into() }
    }

    pub(crate) fn not_executable(message: impl Into<String>) -> Failure {
        Failure { kind: FailureKind::NotExecutable, message: message.into() }
    }

    pub(crate) fn set_up(message: impl Into<String>) -> Failure {
        Failure { kind: FailureKind::SetUp, message: message.into() }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Failure {
        Failure::set_up(error.to_string())
    }
}

impl From<Failure> for RuntimeError {
    fn from(failure: Failure) -> RuntimeError {
        match failure.kind {
            FailureKind::NotFound => RuntimeError::NotFound(failure.message),
            FailureKind::NotExecutable => RuntimeError::NotExecutable(failure.message),
            FailureKind::SetUp => RuntimeError::Init(failure.message),
        }
    }
}

/// A fresh pair of ends: the maker's and the init's.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), CallError> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|e| CallError::new("socketpair", "", e))
}

/// Sends a message, with a descriptor if there is one.
pub(crate) fn send(
    channel: BorrowedFd<'_>,
    message: &impl Serialize,
    descriptor: Option<BorrowedFd<'_>>,
) -> Result<(), CallError> {
    let bytes = serde_json::to_vec(message).unwrap_or_default();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    loop {
        match rustix::net::sendmsg(channel, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(CallError::new("sendmsg", "", errno)),
            Ok(_) => return Ok(()),
        }
    }
}

/// Receives a message and the descriptor sent along; None at the end of the stream.
pub(crate) fn receive<T: DeserializeOwned>(channel: BorrowedFd<'_>) -> Result<Option<(T, Option<OwnedFd>)>, CallError> {
    let mut bytes = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let length = loop {
        let flags = RecvFlags::CMSG_CLOEXEC;
        match rustix::net::recvmsg(channel.as_fd(), &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags) {
            Err(Errno::INTR) => {}
            // The other end died with something of ours unread.
            Err(Errno::CONNRESET) => return Ok(None),
            Err(errno) => return Err(CallError::new("recvmsg", "", errno)),
            Ok(received) => break received.bytes,
        }
    };
    if length == 0 {
        return Ok(None);
    }
    let descriptor = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let message = serde_json::from_slice(&bytes[..length])
        .map_err(|_| CallError::new("recvmsg", "a message that is not ours", Errno::BADMSG))?;
    Ok(Some((message, descriptor)))
}

/// Cuts a text so that a message made of it fits.
pub(crate) fn bounded(text: &str) -> String {
    text.chars().take(MAX_MESSAGE / 16).collect()
}

/// Waits for the channel; false when the helper at its other end was killed without a word: then nobody may ever speak.
pub(crate) fn has_news(channel: BorrowedFd<'_>, helper: BorrowedFd<'_>) -> Result<bool, RuntimeError> {
    let mut fds = [PollFd::from_borrowed_fd(channel, PollFlags::IN), PollFd::from_borrowed_fd(helper, PollFlags::IN)];
    loop {
        match poll(&mut fds, None) {
            Ok(_) => return Ok(!fds[0].revents().is_empty()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(CallError::new("poll", "", errno).into()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_with_its_descriptor_and_the_end_is_seen() {
        let (ours, theirs) = pair().unwrap();
        send(theirs.as_fd(), &FromInit::Ready { warnings: vec!["w".into()] }, Some(ours.as_fd())).unwrap();
        drop(theirs);
        let (message, descriptor) = receive::<FromInit>(ours.as_fd()).unwrap().unwrap();
        assert!(matches!(message, FromInit::Ready { warnings } if warnings == ["w"]));
        assert!(descriptor.is_some());
        drop(descriptor);
        assert!(receive::<FromInit>(ours.as_fd()).unwrap().is_none());
    }
}
