//! Readers around readers: what a layer passes through on its way in.

use oci::{Digest, Hasher};
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// A reader that gives at least six bytes with its first read, if there are six.
pub(crate) struct Primed<R> {
    start: Vec<u8>,
    inner: R,
}

impl<R: Read> Primed<R> {
    pub(crate) fn new(mut inner: R) -> io::Result<Primed<R>> {
        let mut start = Vec::with_capacity(6);
        inner.by_ref().take(6).read_to_end(&mut start)?;
        Ok(Primed { start, inner })
    }
}

impl<R: Read> Read for Primed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.start.is_empty() || buffer.len() < 6 {
            let n = self.start.len().min(buffer.len());
            if n > 0 {
                buffer[..n].copy_from_slice(&self.start[..n]);
                self.start.drain(..n);
                return Ok(n);
            }
            return self.inner.read(buffer);
        }
        let n = self.start.len();
        buffer[..n].copy_from_slice(&self.start);
        self.start.clear();
        Ok(n)
    }
}

/// Bytes handed from one thread to the next at a time, and how many such pieces may wait.
const CHUNK_BYTES: usize = 256 << 10;
const WAITING_CHUNKS: usize = 8;

/// A pipe between threads: what the one reads, the other reads.
pub(crate) fn chunks() -> (ChunkSender, Chunks) {
    let (sender, receiver) = sync_channel(WAITING_CHUNKS);
    (ChunkSender { sender }, Chunks { receiver, current: Vec::new(), position: 0 })
}

/// The end that is fed.
pub(crate) struct ChunkSender {
    sender: SyncSender<io::Result<Vec<u8>>>,
}

impl ChunkSender {
    /// Passes on all of `from`, and its error if it fails; ends early if nobody reads any more.
    pub(crate) fn send_all(self, from: &mut impl Read) {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            let message = match from.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk) {
                Ok(0) => return,
                Ok(_) => Ok(chunk),
                Err(e) => Err(e),
            };
            let failed = message.is_err();
            if self.sender.send(message).is_err() || failed {
                return;
            }
        }
    }
}

/// The end that is read.
pub(crate) struct Chunks {
    receiver: Receiver<io::Result<Vec<u8>>>,
    current: Vec<u8>,
    position: usize,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.current.len() {
            match self.receiver.recv() {
                Ok(chunk) => (self.current, self.position) = (chunk?, 0),
                Err(_) => return Ok(0),
            }
        }
        let n = buffer.len().min(self.current.len() - self.position);
        buffer[..n].copy_from_slice(&self.current[self.position..self.position + n]);
        self.position += n;
        Ok(n)
    }
}

/// A reader that hashes, counts, and stops at a limit.
pub(crate) struct Watched<R> {
    inner: R,
    hasher: Hasher,
    count: u64,
    most: u64,
}

impl<R: Read> Watched<R> {
    pub(crate) fn new(inner: R, hasher: Hasher, most: u64) -> Watched<R> {
        Watched { inner, hasher, count: 0, most }
    }
    pub(crate) fn finish(self) -> Digest {
        self.hasher.finish()
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.count += n as u64;
        if self.count > self.most {
            let why = format!("it inflates to more than {} bytes: refused as a decompression bomb", self.most);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(n)
    }
}
