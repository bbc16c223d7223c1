//! As much of gRPC as it takes to ask a Kubernetes container runtime (CRI) one thing at a time: a connection a call, no
//! streams, no compression. The test needs six messages; the crates that speak all of it bring an asynchronous runtime.

use std::io::{Error, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The runtime service behind a socket.
pub(crate) struct Cri {
    pub(crate) socket: PathBuf,
}

impl Cri {
    /// Calls a method of the service; the answer, or None where it was refused (the daemon's log says why).
    #[track_caller]
    pub(crate) fn call(&self, method: &str, request: &Message) -> Option<Answer> {
        let reply = exchange(&self.socket, &format!("/runtime.v1.RuntimeService/{method}"), &request.bytes);
        let body = reply.unwrap_or_else(|error| panic!("{method}: {error}"));
        // A refusal has no message, only headers.
        let length = body.get(1..5).map(|bytes| u32::from_be_bytes(bytes.try_into().expect("four bytes")))?;
        Some(Answer { bytes: body[5..5 + usize::try_from(length).expect("64-bit")].to_vec() })
    }
}

fn exchange(socket: &Path, path: &str, request: &[u8]) -> Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut headers = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        // A literal, not to be indexed (RFC 7541, 6.2.2); lengths below 127 are one byte.
        headers.push(0);
        for text in [name, value] {
            headers.push(u8::try_from(text.len()).ok().filter(|n| *n < 127).expect("names and values are short"));
            headers.extend_from_slice(text.as_bytes());
        }
    }
    let length = u32::try_from(request.len()).expect("requests are short").to_be_bytes();
    let message = [&[0], &length[..], request].concat();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
    send(&mut stream, SETTINGS, 0, 0, &[])?;
    send(&mut stream, HEADERS, END_HEADERS, 1, &headers)?;
    send(&mut stream, DATA, END_STREAM, 1, &message)?;
    let mut body = Vec::new();
    loop {
        let (kind, flags, payload) = receive(&mut stream)?;
        match kind {
            DATA => body.extend(payload),
            SETTINGS if flags & ACK == 0 => send(&mut stream, SETTINGS, ACK, 0, &[])?,
            PING if flags & ACK == 0 => send(&mut stream, PING, ACK, 0, &payload)?,
            RESET | GO_AWAY => return Err(Error::other(format!("the server ended it: {payload:?}"))),
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            return Ok(body);
        }
    }
}

/// One frame (RFC 9113, 4.1).
fn send(stream: &mut UnixStream, kind: u8, flags: u8, id: u32, payload: &[u8]) -> Result<()> {
    let length = u32::try_from(payload.len()).expect("frames are short").to_be_bytes();
    stream.write_all(&[&length[1..], &[kind, flags], &id.to_be_bytes(), payload].concat())
}

fn receive(stream: &mut UnixStream) -> Result<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).expect("64-bit")];
    stream.read_exact(&mut payload)?;
    Ok((head[3], head[4], payload))
}

/// A protobuf message, field by field.
#[derive(Clone, Default)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    pub(crate) fn number(mut self, field: u64, value: u64) -> Message {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    pub(crate) fn text(self, field: u64, value: &str) -> Message {
        self.field(field, value.as_bytes())
    }

    pub(crate) fn message(self, field: u64, value: &Message) -> Message {
        self.field(field, &value.bytes)
    }

    /// A repeated text.
    pub(crate) fn texts(self, field: u64, values: &[&str]) -> Message {
        values.iter().fold(self, |message, value| message.text(field, value))
    }

    fn field(mut self, field: u64, value: &[u8]) -> Message {
        self.varint(field << 3 | 2);
        self.varint(u64::try_from(value.len()).expect("64-bit"));
        self.bytes.extend_from_slice(value);
        self
    }

    fn varint(&mut self, mut value: u64) {
        loop {
            let low = u8::try_from(value & 0x7f).expect("seven bits");
            value >>= 7;
            if value == 0 {
                return self.bytes.push(low);
            }
            self.bytes.push(low | 0x80);
        }
    }
}

/// A protobuf message to be read. Fields that are not there are zero or empty, as protobuf has it.
pub(crate) struct Answer {
    bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self, field: u64) -> String {
        String::from_utf8(self.find(field).1).expect("a text")
    }

    pub(crate) fn number(&self, field: u64) -> u64 {
        self.find(field).0
    }

    pub(crate) fn message(&self, field: u64) -> Answer {
        Answer { bytes: self.find(field).1 }
    }

    /// The last value of a field, as a number and as bytes.
    fn find(&self, wanted: u64) -> (u64, Vec<u8>) {
        let (mut rest, mut found) = (self.bytes.as_slice(), (0, Vec::new()));
        while !rest.is_empty() {
            let key = take_varint(&mut rest);
            let value = match key & 7 {
                0 => (take_varint(&mut rest), Vec::new()),
                2 => {
                    let length = usize::try_from(take_varint(&mut rest)).expect("64-bit");
                    let (value, behind) = rest.split_at(length);
                    rest = behind;
                    (0, value.to_vec())
                }
                kind => panic!("a field of kind {kind} is not among those that this test asks for"),
            };
            if key >> 3 == wanted {
                found = value;
            }
        }
        found
    }
}

fn take_varint(rest: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, behind) = rest.split_first().expect("a whole message");
        *rest = behind;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    value
}
