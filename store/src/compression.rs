//! Layer compression: reading whatever comes, writing one pinned form.
//!
//! Written gzip is a row of members over fixed-size blocks, so it is the same bytes whatever the number
//! of threads (RFC 1952, 2.2: a file is a series of members; every OCI tool reads them as one).

use crate::gunzip::Gunzip;
use libdeflater::{CompressionLvl, Compressor};
use oci::{Digest, Hasher};
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Input of one gzip member, in bytes. Part of what makes a digest: never change it.
const BLOCK_BYTES: usize = 1 << 20;
/// libdeflate's level 6, pinned for the same reason.
const LEVEL: i32 = 6;
/// More threads than this wait for the reader anyway.
const MAX_THREADS: usize = 16;

/// How a stream is compressed, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// By the magic number; an error names what ctr can't read.
    pub(crate) fn detect(head: &[u8]) -> io::Result<Compression> {
        match head {
            [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Compression::Zstd),
            [b'B', b'Z', b'h', ..] => Err(unreadable("bzip2")),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Err(unreadable("xz")),
            _ => Ok(Compression::None),
        }
    }
}

fn unreadable(kind: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("{kind} compression is not supported: use gzip, zstd or none"))
}

/// The plain bytes of a stream that is gzip (of any number of members), zstd or plain.
pub(crate) fn decompress<'a>(reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut reader = BufReader::with_capacity(128 << 10, reader);
    Ok(match Compression::detect(reader.fill_buf()?)? {
        Compression::None => Box::new(reader),
        Compression::Gzip => Box::new(Gunzip::new(reader)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?),
    })
}

/// Hashes and counts what is written through it.
pub(crate) struct Digesting<W> {
    inner: W,
    hasher: Hasher,
    bytes: u64,
}

impl<W: Write> Digesting<W> {
    pub(crate) fn new(inner: W) -> Digesting<W> {
        Digesting { inner, hasher: Hasher::sha256(), bytes: 0 }
    }

    /// The digest and number of all bytes written, and what they were written to.
    pub(crate) fn finish(self) -> (Digest, u64, W) {
        (self.hasher.finish(), self.bytes, self.inner)
    }
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

type Answer = io::Result<Vec<u8>>;
type Job = (Vec<u8>, Sender<Answer>);

/// Compresses what is written through it as gzip, on all cores. Call [`ParallelGzip::finish`]: without it the end is lost.
pub(crate) struct ParallelGzip<W: Write> {
    out: W,
    block: Vec<u8>,
    any: bool,
    jobs: Option<SyncSender<Job>>,
    in_flight: VecDeque<Receiver<Answer>>,
    threads: Vec<JoinHandle<()>>,
}

impl<W: Write> ParallelGzip<W> {
    pub(crate) fn new(out: W) -> ParallelGzip<W> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        let (jobs, queue) = sync_channel::<Job>(cores);
        let queue = Arc::new(Mutex::new(queue));
        let threads = (0..cores)
            .map(|_| {
                let queue = Arc::clone(&queue);
                std::thread::spawn(move || work(&queue))
            })
            .collect();
        let block = Vec::with_capacity(BLOCK_BYTES);
        ParallelGzip { out, block, any: false, jobs: Some(jobs), in_flight: VecDeque::new(), threads }
    }

    /// Writes the last members and hands back the writer.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        if !self.block.is_empty() || !self.any {
            self.submit()?;
        }
        while !self.in_flight.is_empty() {
            self.collect_one()?;
        }
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A worker only computes; should it panic, its answer is missing and was reported above.
            let _ended = thread.join();
        }
        Ok(self.out)
    }

    fn submit(&mut self) -> io::Result<()> {
        self.any = true;
        if self.in_flight.len() > self.threads.len() * 2 {
            self.collect_one()?;
        }
        let (answer, receiver) = channel();
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK_BYTES));
        let jobs = self.jobs.as_ref().ok_or_else(lost_worker)?;
        jobs.send((block, answer)).map_err(|_| lost_worker())?;
        self.in_flight.push_back(receiver);
        Ok(())
    }

    fn collect_one(&mut self) -> io::Result<()> {
        match self.in_flight.pop_front() {
            Some(answer) => self.out.write_all(&answer.recv().map_err(|_| lost_worker())??),
            None => Ok(()),
        }
    }
}

fn lost_worker() -> io::Error {
    io::Error::other("a compression thread ended early")
}

fn work(queue: &Mutex<Receiver<Job>>) {
    let Ok(level) = CompressionLvl::new(LEVEL) else { return };
    let mut compressor = Compressor::new(level);
    loop {
        let next = queue.lock().map(|jobs| jobs.recv());
        let Ok(Ok((block, answer))) = next else { return };
        let mut member = vec![0; compressor.gzip_compress_bound(block.len())];
        let done = compressor.gzip_compress(&block, &mut member).map_err(io::Error::other).map(|length| {
            member.truncate(length);
            member
        });
        // The asker may have given up on an error of its own.
        let _gone = answer.send(done);
    }
}

impl<W: Write> Write for ParallelGzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == BLOCK_BYTES {
            self.submit()?;
        }
        Ok(taken)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut gzip = ParallelGzip::new(Vec::new());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap()
    }

    #[test]
    #[allow(clippy::cast_possible_truncation)]
    fn what_was_compressed_comes_back_in_order_and_always_the_same() {
        let long: Vec<u8> = (0..BLOCK_BYTES * 5 / 2).map(|n| (n / 7 % 251) as u8).collect();
        for plain in [&b""[..], b"x", &long, &long[..BLOCK_BYTES], &long[..BLOCK_BYTES * 2]] {
            let packed = gzip(plain);
            assert_eq!(packed, gzip(plain));
            let mut back = Vec::new();
            decompress(&packed[..]).unwrap().read_to_end(&mut back).unwrap();
            assert!(back == plain, "{} bytes", plain.len());
        }
    }

    #[test]
    fn zstd_and_plain_streams_are_told_apart_and_others_named() {
        let packed = zstd::encode_all(&b"text"[..], 1).unwrap();
        for stream in [&packed[..], b"text"] {
            assert_eq!(io::read_to_string(decompress(stream).unwrap()).unwrap(), "text");
        }
        assert!(decompress(&b"BZh91AY"[..]).err().unwrap().to_string().contains("bzip2"));
    }
}
