//! Readers around readers: what a layer passes through on its way in.

use oci::{Digest, Hasher};
use std::io::{self, BufRead, Read};
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

/// A pipe between threads: what the one reads, the other reads. The pieces go round, so that none is cleared or mapped anew.
pub(crate) fn chunks() -> (ChunkSender, Chunks) {
    let (sender, receiver) = sync_channel(WAITING_CHUNKS);
    let (giver, spare) = sync_channel(WAITING_CHUNKS + 2);
    let chunks = Chunks { receiver, giver, current: Vec::new(), filled: 0, position: 0 };
    (ChunkSender { sender, spare }, chunks)
}

/// A piece and how much of it counts.
type Chunk = (Vec<u8>, usize);

/// The end that is fed.
pub(crate) struct ChunkSender {
    sender: SyncSender<io::Result<Chunk>>,
    spare: Receiver<Vec<u8>>,
}

impl ChunkSender {
    /// Passes on all of `from`, and its error if it fails; ends early if nobody reads any more.
    pub(crate) fn send_all(self, from: &mut impl Read) {
        loop {
            let mut chunk = self.spare.try_recv().unwrap_or_else(|_| vec![0; CHUNK_BYTES]);
            let message = match fill(from, &mut chunk) {
                Ok(0) => return,
                Ok(filled) => Ok((chunk, filled)),
                Err(e) => Err(e),
            };
            let failed = message.is_err();
            if self.sender.send(message).is_err() || failed {
                return;
            }
        }
    }
}

/// Reads until the buffer is full or the source at its end.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match from.read(&mut buffer[have..]) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(have)
}

/// The end that is read.
pub(crate) struct Chunks {
    receiver: Receiver<io::Result<Chunk>>,
    giver: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    filled: usize,
    position: usize,
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.filled
            && let Ok(next) = self.receiver.recv()
        {
            let (chunk, filled) = next?;
            let used = std::mem::replace(&mut self.current, chunk);
            if !used.is_empty() {
                // There is room for all there are; without a taker it is just dropped.
                let _ = self.giver.try_send(used);
            }
            (self.filled, self.position) = (filled, 0);
        }
        Ok(&self.current[self.position..self.filled])
    }

    fn consume(&mut self, count: usize) {
        self.position = self.filled.min(self.position + count);
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buffer)
    }
}

fn read_buffered(reader: &mut impl BufRead, buffer: &mut [u8]) -> io::Result<usize> {
    let bytes = reader.fill_buf()?;
    let n = bytes.len().min(buffer.len());
    buffer[..n].copy_from_slice(&bytes[..n]);
    reader.consume(n);
    Ok(n)
}

/// A reader that hashes, counts, and stops at a limit.
pub(crate) struct Watched<R> {
    inner: R,
    hasher: Hasher,
    count: u64,
    most: u64,
}

impl<R: BufRead> Watched<R> {
    pub(crate) fn new(inner: R, hasher: Hasher, most: u64) -> Watched<R> {
        Watched { inner, hasher, count: 0, most }
    }
    pub(crate) fn finish(self) -> Digest {
        self.hasher.finish()
    }
}

impl<R: BufRead> BufRead for Watched<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.count > self.most {
            let why = format!("it inflates to more than {} bytes: refused as a decompression bomb", self.most);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        // What was given out is still there: nothing is read for it.
        if let Ok(bytes) = self.inner.fill_buf() {
            self.hasher.update(&bytes[..count.min(bytes.len())]);
        }
        self.count += count as u64;
        self.inner.consume(count);
    }
}

impl<R: BufRead> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buffer)
    }
}
