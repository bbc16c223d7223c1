//! What a container's monitor and its clients say to each other: frames of one byte type, four bytes length (big
//! endian) and a payload, over a stream socket. The same frames join an exec or step helper with its caller.
//!
//! A monitor outlives an upgrade of the binary, so a frame's number and meaning never change; unknown types are skipped.

use crate::{EngineError, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read as _, Write as _};
use std::os::fd::BorrowedFd;

/// The longest payload of a frame, in bytes.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 64 << 10;
/// The longest message of a start (a request holds a whole container config), in bytes.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
const HEADER_BYTES: usize = 5;

/// What a frame means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// To the container: input.
    Stdin,
    /// From the container.
    Stdout,
    /// From the container.
    Stderr,
    /// From the monitor, once: an [`crate::ExitStatus`] as JSON.
    Exit,
    /// To the container: end of input.
    CloseStdin,
    /// Rows and columns, two u16.
    Resize,
    /// A signal's number as i32, and one byte: 1 if the user asked for it (it suppresses restarts when it ends the program).
    Signal,
    /// A [`StopRequest`] as JSON.
    Stop,
    /// One byte of [`AttachFlags`]: from now on this client takes part in the streams.
    Attach,
    /// Freeze the processes; answered by `Reply`.
    Pause,
    /// Thaw them; answered by `Reply`.
    Unpause,
    /// An answer: empty is success, else the error's text.
    Reply,
    /// From an exec or step helper: the program runs now.
    Started,
    /// From an exec or step helper: a [`Failure`] as JSON.
    Failed,
}

const KINDS: [(u8, FrameKind); 14] = [
    (0, FrameKind::Stdin),
    (1, FrameKind::Stdout),
    (2, FrameKind::Stderr),
    (3, FrameKind::Exit),
    (4, FrameKind::CloseStdin),
    (5, FrameKind::Resize),
    (6, FrameKind::Signal),
    (7, FrameKind::Stop),
    (8, FrameKind::Attach),
    (9, FrameKind::Pause),
    (10, FrameKind::Unpause),
    (11, FrameKind::Reply),
    (12, FrameKind::Started),
    (13, FrameKind::Failed),
];

impl FrameKind {
    fn number(self) -> u8 {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or(u8::MAX, |(number, _)| *number)
    }

    fn of(number: u8) -> Option<FrameKind> {
        KINDS.iter().find(|(n, _)| *n == number).map(|(_, kind)| *kind)
    }
}

/// Bits of an `Attach` frame.
pub(crate) struct AttachFlags;

impl AttachFlags {
    pub(crate) const STDIN: u8 = 1;
    pub(crate) const STDOUT: u8 = 2;
    pub(crate) const STDERR: u8 = 4;
}

/// What `stop` asks of a monitor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub(crate) struct StopRequest {
    /// The signal's number.
    pub(crate) signal: i32,
    /// From the signal to SIGKILL; None: never.
    pub(crate) timeout_ms: Option<u64>,
}

/// A helper could not start its program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub(crate) struct Failure {
    /// Docker's 125, 126 or 127.
    pub(crate) exit_code: u8,
    /// One line.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn of(error: &EngineError) -> Failure {
        Failure { exit_code: error.exit_code(), message: error.to_string() }
    }
}

impl From<Failure> for EngineError {
    fn from(failure: Failure) -> EngineError {
        EngineError::Start { exit_code: failure.exit_code, message: failure.message }
    }
}

/// Appends a frame; a payload longer than a frame may be is split (only streams are).
pub(crate) fn encode(buffer: &mut Vec<u8>, kind: FrameKind, payload: &[u8]) {
    let mut rest = payload;
    loop {
        let (now, later) = rest.split_at(rest.len().min(MAX_PAYLOAD_BYTES));
        buffer.push(kind.number());
        // At most MAX_PAYLOAD_BYTES, so it fits.
        buffer.extend_from_slice(&u32::try_from(now.len()).unwrap_or(0).to_be_bytes());
        buffer.extend_from_slice(now);
        rest = later;
        if rest.is_empty() {
            return;
        }
    }
}

/// One frame's bytes.
pub(crate) fn frame(kind: FrameKind, payload: &[u8]) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(HEADER_BYTES + payload.len());
    encode(&mut buffer, kind, payload);
    buffer
}

/// The payload of a `Resize` frame.
pub(crate) fn size_payload(rows: u16, columns: u16) -> [u8; 4] {
    let [a, b] = rows.to_be_bytes();
    let [c, d] = columns.to_be_bytes();
    [a, b, c, d]
}

/// Rows and columns of a `Resize` frame.
pub(crate) fn parse_size(payload: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = payload.try_into().ok()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// The payload of a `Signal` frame.
pub(crate) fn signal_payload(signal: i32, by_user: bool) -> [u8; 5] {
    let [a, b, c, d] = signal.to_be_bytes();
    [a, b, c, d, by_user.into()]
}

/// Signal and whether the user asked for it.
pub(crate) fn parse_signal(payload: &[u8]) -> Option<(i32, bool)> {
    let (number, by_user) = payload.split_at_checked(4)?;
    Some((i32::from_be_bytes(number.try_into().ok()?), by_user.first() == Some(&1)))
}

/// Takes bytes as they come, gives whole frames.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: Vec<u8>,
    taken: usize,
}

/// A peer that does not speak the protocol.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadFrame;

impl Decoder {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame; unknown types are skipped.
    pub(crate) fn next(&mut self) -> Result<Option<(FrameKind, &[u8])>, BadFrame> {
        loop {
            let rest = &self.buffer[self.taken..];
            let Some((header, body)) = rest.split_at_checked(HEADER_BYTES) else { return Ok(None) };
            let length = u32::from_be_bytes(header[1..].try_into().map_err(|_| BadFrame)?);
            let length = usize::try_from(length).map_err(|_| BadFrame)?;
            if length > MAX_PAYLOAD_BYTES {
                return Err(BadFrame);
            }
            if body.len() < length {
                return Ok(None);
            }
            let start = self.taken + HEADER_BYTES;
            let kind = FrameKind::of(header[0]);
            self.taken = start + length;
            if let Some(kind) = kind {
                return Ok(Some((kind, &self.buffer[start..start + length])));
            }
        }
    }

    /// Frees what an occasional large frame left allocated.
    pub(crate) fn shrink(&mut self) {
        if self.taken == self.buffer.len() {
            self.taken = 0;
            self.buffer = Vec::new();
        }
    }
}

/// Writes all of it to a blocking descriptor.
pub(crate) fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::net::send(fd, bytes, rustix::net::SendFlags::NOSIGNAL) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Sends one JSON message with its length in front (start requests and reports).
pub(crate) fn send_message<T: Serialize>(socket: BorrowedFd<'_>, message: &T) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(&body);
    write_all(socket, &bytes)
}

/// Receives one; None at the end of the stream.
pub(crate) fn receive_message<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<T>> {
    let mut stream = Reader(socket);
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
        Err(e) => return Err(e),
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_MESSAGE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message too long"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some(serde_json::from_slice(&body)?))
}

struct Reader<'a>(BorrowedFd<'a>);

impl io::Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(self.0, buffer)?)
    }
}

/// For sinks that are files.
pub(crate) fn write_file(mut file: &std::fs::File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn unknown_frames_are_skipped_and_long_ones_refused() {
        let mut decoder = Decoder::default();
        decoder.feed(&[200, 0, 0, 0, 1, 7]);
        decoder.feed(&frame(FrameKind::CloseStdin, b""));
        assert_eq!(decoder.next(), Ok(Some((FrameKind::CloseStdin, &b""[..]))));
        assert_eq!(decoder.next(), Ok(None));
        decoder.feed(&[1, 0xff, 0, 0, 0]);
        assert_eq!(decoder.next(), Err(BadFrame));
    }

    #[test]
    fn payloads_round_trip() {
        assert_eq!(parse_size(&size_payload(24, 300)), Some((24, 300)));
        assert_eq!(parse_signal(&signal_payload(15, true)), Some((15, true)));
        assert_eq!(parse_signal(b"x"), None);
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(payload in proptest::collection::vec(any::<u8>(), 0..200_000), cut in 1usize..70_000) {
            let bytes = frame(FrameKind::Stdout, &payload);
            let mut decoder = Decoder::default();
            let mut got = Vec::new();
            for piece in bytes.chunks(cut) {
                decoder.feed(piece);
                while let Some((kind, part)) = decoder.next().unwrap() {
                    prop_assert_eq!(kind, FrameKind::Stdout);
                    got.extend_from_slice(part);
                }
            }
            prop_assert_eq!(got, payload);
        }
    }
}
