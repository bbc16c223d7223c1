//! gzip, as layers come in it: members one after the other (RFC 1952), read as one stream.
//!
//! flate2 inflates; its own gzip reader would spend a tenth of the time on a CRC made without vector instructions.

use flate2::{Decompress, FlushDecompress, Status};
use std::io::{self, BufRead, Read};

/// The most bytes of a header's name, comment or extra field: names of files have nothing to say here.
const MAX_FIELD_BYTES: usize = 64 << 10;

const HEADER_CRC: u8 = 2;
const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;
const RESERVED: u8 = 0xe0;

/// The plain bytes of gzip.
pub(crate) struct Gunzip<R> {
    inner: R,
    inflate: Decompress,
    /// Of the current member; none between two.
    check: Option<Check>,
}

/// What the end of a member says of its content.
struct Check {
    crc: libdeflater::Crc,
    length: u32,
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed gzip: {why}"))
}

impl<R: BufRead> Gunzip<R> {
    pub(crate) fn new(inner: R) -> Gunzip<R> {
        Gunzip { inner, inflate: Decompress::new(false), check: None }
    }

    /// Reads a member's header; false where the stream ends instead.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            match self.inner.fill_buf() {
                Ok([]) => return Ok(false),
                Ok(_) => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let mut head = [0_u8; 10];
        self.inner.read_exact(&mut head)?;
        let [0x1f, 0x8b, 8, flags, ..] = head else { return Err(malformed("a member begins with something else")) };
        if flags & RESERVED != 0 {
            return Err(malformed("unknown flags"));
        }
        if flags & EXTRA != 0 {
            let mut length = [0; 2];
            self.inner.read_exact(&mut length)?;
            self.skip(usize::from(u16::from_le_bytes(length)))?;
        }
        for field in [NAME, COMMENT] {
            if flags & field != 0 {
                self.skip_text()?;
            }
        }
        if flags & HEADER_CRC != 0 {
            self.skip(2)?;
        }
        self.inflate.reset(false);
        self.check = Some(Check { crc: libdeflater::Crc::new(), length: 0 });
        Ok(true)
    }

    fn skip(&mut self, count: usize) -> io::Result<()> {
        let skipped = io::copy(&mut self.inner.by_ref().take(count as u64), &mut io::sink())?;
        if skipped == count as u64 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// A text that ends with a NUL.
    fn skip_text(&mut self) -> io::Result<()> {
        let mut text = Vec::new();
        self.inner.by_ref().take(MAX_FIELD_BYTES as u64).read_until(0, &mut text)?;
        if text.last() == Some(&0) { Ok(()) } else { Err(malformed("a header without an end")) }
    }

    /// Compares a member's content with what its end says.
    fn end(&mut self, check: &Check) -> io::Result<()> {
        let mut tail = [0_u8; 8];
        self.inner.read_exact(&mut tail)?;
        let [a, b, c, d, e, f, g, h] = tail;
        if check.crc.sum() != u32::from_le_bytes([a, b, c, d]) || check.length != u32::from_le_bytes([e, f, g, h]) {
            return Err(malformed("the checksum is wrong"));
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.check.is_none() && !self.begin()? {
                return Ok(0);
            }
            let Some(check) = &mut self.check else { continue };
            let input = self.inner.fill_buf()?;
            let at_end = input.is_empty();
            let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(input, buffer, FlushDecompress::None);
            let status = status.map_err(|e| malformed(&e.to_string()))?;
            let count = |now: u64, before: u64| usize::try_from(now - before).unwrap_or(usize::MAX);
            let (read, written) =
                (count(self.inflate.total_in(), read), count(self.inflate.total_out(), written).min(buffer.len()));
            self.inner.consume(read);
            check.crc.update(&buffer[..written]);
            // The length is told modulo 2³².
            check.length = check.length.wrapping_add(u32::try_from(written).unwrap_or(0));
            if status == Status::StreamEnd
                && let Some(check) = self.check.take()
            {
                self.end(&check)?;
            } else if at_end && written == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if written > 0 {
                return Ok(written);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::{BufReader, Write};

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::GzBuilder::new()
            .filename("name")
            .comment("a comment")
            .extra(vec![1; 300])
            .write(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn gunzip(bytes: &[u8], capacity: usize) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        Gunzip::new(BufReader::with_capacity(capacity, bytes)).read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn members_with_all_kinds_of_headers_are_one_stream() {
        let long = b"some text ".repeat(50_000);
        let packed = [gzip(b"one"), gzip(b""), gzip(&long)].concat();
        for capacity in [1, 7, 4096, 1 << 20] {
            assert!(gunzip(&packed, capacity).unwrap() == [&b"one"[..], &long].concat(), "{capacity}");
        }
        assert_eq!(gunzip(b"", 10).unwrap(), b"");
    }

    #[test]
    fn what_is_cut_or_changed_is_an_error() {
        let whole = gzip(&b"some text ".repeat(1000));
        for end in 1..whole.len() {
            assert!(gunzip(&whole[..end], 4096).is_err(), "cut at {end}");
        }
        for at in [0, 2, 3, whole.len() - 20, whole.len() - 5, whole.len() - 1] {
            let mut bad = whole.clone();
            bad[at] ^= 0xe1;
            assert!(gunzip(&bad, 4096).is_err(), "changed at {at}");
        }
        assert!(gunzip(&[&whole[..], b"what follows"].concat(), 4096).is_err());
    }
}
