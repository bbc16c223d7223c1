//! Readers around readers: what a layer passes through on its way in.

use oci::{Digest, Hasher};
use std::io::{self, Read};

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
