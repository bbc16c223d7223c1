//! Reading tars that strangers made.
//!
//! The tar crate's own iteration reads extension headers into memory whatever their size; here each has a
//! limit, sizes are decided in one place (a PAX size counts wherever a header's would, CVE-2025-62518), and
//! sparse files of all four dialects are understood. Field parsing is the crate's.

use std::io::{self, BufRead};
use tar::{EntryType, Header};

pub(super) const BLOCK: usize = 512;
/// The most bytes a PAX header, long name or sparse map may have (Go's archive/tar has the same).
const MAX_EXTENSION_BYTES: u64 = 1 << 20;
/// The most bytes of a path: the kernel's PATH_MAX.
const MAX_PATH_BYTES: usize = 4096;

/// The most bytes a sparse file may claim to have: they cost the archive nothing.
const MAX_SPARSE_BYTES: u64 = 1 << 40;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // They say themselves.
pub enum Kind {
    File,
    Dir,
    Symlink,
    Hardlink,
    Char,
    Block,
    Fifo,
}

/// One entry, extensions applied.
#[derive(Clone, Debug)]
pub struct Entry {
    /// As the tar has it.
    pub path: Vec<u8>,
    /// Of links: where to.
    pub link: Vec<u8>,
    /// File, folder, link, device.
    pub kind: Kind,
    /// Permission bits, setuid and so on.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Of a device.
    pub major: u32,
    /// Of a device.
    pub minor: u32,
    /// `SCHILY.xattr` records.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of the file once written.
    pub size: u64,
    /// Of a sparse file: where its stored bytes belong, offset and length.
    pub sparse: Option<Vec<(u64, u64)>>,
}

/// A tar being read.
pub struct TarReader<R> {
    inner: R,
    /// Data bytes of the current entry not yet read.
    data_left: u64,
    /// Bytes up to the next block after them.
    padding: u64,
}

#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse_name: Option<Vec<u8>>,
    sparse_size: Option<u64>,
    sparse_major: Option<u64>,
    sparse_numbers: Vec<u64>,
}

fn bad(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

impl<R: BufRead> TarReader<R> {
    /// Nothing is read yet.
    pub fn new(inner: R) -> TarReader<R> {
        TarReader { inner, data_left: 0, padding: 0 }
    }

    /// The reader, for what follows the archive.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry, or `None` at the end mark or a clean end of the stream.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        let mut extended = false;
        loop {
            self.skip_data()?;
            let mut block = [0_u8; BLOCK];
            if !self.read_block(&mut block)? || block.iter().all(|&b| b == 0) {
                return if extended { Err(bad("an extension header without its entry")) } else { Ok(None) };
            }
            let header = Header::from_byte_slice(&block);
            verify_checksum(header)?;
            let kind = header.entry_type();
            let size = number(&block[124..136])?;
            match kind {
                EntryType::XHeader | EntryType::GNULongName | EntryType::GNULongLink => {
                    let bytes = self.read_extension(size)?;
                    extended = true;
                    match kind {
                        EntryType::XHeader => parse_pax(&bytes, &mut extensions)?,
                        EntryType::GNULongName => extensions.path = Some(until_nul(&bytes)),
                        _ => extensions.link = Some(until_nul(&bytes)),
                    }
                }
                // Global headers say nothing about a file.
                EntryType::XGlobalHeader => self.begin_data(size),
                _ => {
                    let size = extensions.size.unwrap_or(size);
                    match self.entry(header, &block, size, std::mem::take(&mut extensions))? {
                        Some(entry) => return Ok(Some(entry)),
                        None => extended = false,
                    }
                }
            }
        }
    }

    /// Data of the current entry, as much as lies ready; nothing at its end. What was used is to be [`consume`](Self::consume)d.
    pub fn data(&mut self) -> io::Result<&[u8]> {
        let most = usize::try_from(self.data_left).unwrap_or(usize::MAX);
        if most == 0 {
            return Ok(&[]);
        }
        let bytes = self.inner.fill_buf()?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(&bytes[..bytes.len().min(most)])
    }

    /// Goes on behind `count` of the bytes that [`data`](Self::data) gave.
    pub fn consume(&mut self, count: usize) {
        self.inner.consume(count);
        self.data_left = self.data_left.saturating_sub(count as u64);
    }

    /// Reads data of the current entry; 0 at its end.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.data()?;
        let n = bytes.len().min(buffer.len());
        buffer[..n].copy_from_slice(&bytes[..n]);
        self.consume(n);
        Ok(n)
    }

    fn begin_data(&mut self, size: u64) {
        self.data_left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn skip_data(&mut self) -> io::Result<()> {
        let mut left = self.data_left.checked_add(self.padding).ok_or_else(|| bad("an entry of impossible size"))?;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            match self.inner.fill_buf().map(|bytes| bytes.len().min(most)) {
                // Some writers leave out the last entry's padding.
                Ok(0) if left <= self.padding => left = 0,
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    self.inner.consume(n);
                    left -= n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        (self.data_left, self.padding) = (0, 0);
        Ok(())
    }

    /// `false` at the end of the stream; an end within a block is an error.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> io::Result<bool> {
        let mut have = 0;
        while have < BLOCK {
            match self.inner.read(&mut block[have..]) {
                Ok(0) if have == 0 => return Ok(false),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    fn read_extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_EXTENSION_BYTES {
            return Err(bad(format!("an extension header of {size} bytes is over the limit of {MAX_EXTENSION_BYTES}")));
        }
        self.begin_data(size);
        let mut bytes = vec![0; usize::try_from(size).map_err(|_| bad("size"))?];
        let mut have = 0;
        while have < bytes.len() {
            have += self.read_data(&mut bytes[have..])?;
        }
        Ok(bytes)
    }

    /// Puts header and extensions together; `None` for a kind that is to be skipped.
    fn entry(&mut self, header: &Header, block: &[u8], size: u64, mut ext: Extensions) -> io::Result<Option<Entry>> {
        let path = ext.path.take().unwrap_or_else(|| header.path_bytes().into_owned());
        let link = match ext.link.take() {
            Some(link) => link,
            None => header.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default(),
        };
        let kind = match header.entry_type() {
            EntryType::Regular if path.ends_with(b"/") => Kind::Dir,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            EntryType::Directory => Kind::Dir,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::Hardlink,
            EntryType::Char => Kind::Char,
            EntryType::Block => Kind::Block,
            EntryType::Fifo => Kind::Fifo,
            _ => {
                self.begin_data(size);
                return Ok(None);
            }
        };
        let narrow = |n: u64| u32::try_from(n).map_err(|_| bad(format!("an owner or device number of {n}")));
        let device = matches!(kind, Kind::Char | Kind::Block);
        let mut entry = Entry {
            path,
            link,
            kind,
            mode: narrow(number(&block[100..108])? & 0o7777)?,
            uid: ext.uid.map_or_else(|| number(&block[108..116]).and_then(narrow), Ok)?,
            gid: ext.gid.map_or_else(|| number(&block[116..124]).and_then(narrow), Ok)?,
            mtime: ext.mtime.unwrap_or_else(|| (header_mtime(block), 0)),
            major: if device { narrow(number(&block[329..337])?)? } else { 0 },
            minor: if device { narrow(number(&block[337..345])?)? } else { 0 },
            xattrs: std::mem::take(&mut ext.xattrs),
            size: 0,
            sparse: None,
        };
        // Only files have data; what other kinds' size fields say is ignored, as Go's reader does.
        self.begin_data(if kind == Kind::File { size } else { 0 });
        if kind == Kind::File {
            self.file_layout(header, block, size, ext, &mut entry)?;
        }
        if entry.path.len() > MAX_PATH_BYTES || entry.link.len() > MAX_PATH_BYTES {
            return Err(bad(format!("a path of more than {MAX_PATH_BYTES} bytes")));
        }
        Ok(Some(entry))
    }

    fn file_layout(
        &mut self,
        header: &Header,
        block: &[u8],
        size: u64,
        ext: Extensions,
        entry: &mut Entry,
    ) -> io::Result<()> {
        entry.size = size;
        if header.entry_type() == EntryType::GNUSparse {
            entry.size = number(&block[483..495])?;
            entry.sparse = Some(self.old_sparse_map(block)?);
            self.begin_data(size);
        } else if ext.sparse_major == Some(1) {
            entry.size = ext.sparse_size.unwrap_or(size);
            entry.sparse = Some(self.data_sparse_map()?);
        } else if !ext.sparse_numbers.is_empty() {
            entry.size = ext.sparse_size.unwrap_or(size);
            entry.sparse = Some(pairs(&ext.sparse_numbers)?);
        }
        if let Some(name) = ext.sparse_name {
            entry.path = name;
        }
        let Some(map) = &entry.sparse else { return Ok(()) };
        let mut end = 0;
        let mut stored = 0_u64;
        for &(offset, length) in map {
            if offset < end {
                return Err(bad("a sparse file's parts overlap"));
            }
            end = offset.checked_add(length).ok_or_else(|| bad("a sparse file of impossible size"))?;
            stored += length;
        }
        if entry.size > MAX_SPARSE_BYTES {
            return Err(bad(format!("a sparse file of {} bytes is over the limit of {MAX_SPARSE_BYTES}", entry.size)));
        }
        if end > entry.size || stored > self.data_left {
            return Err(bad("a sparse file's parts do not fit into it"));
        }
        Ok(())
    }

    /// GNU's first dialect: four parts in the header, 21 in each block that follows.
    fn old_sparse_map(&mut self, block: &[u8]) -> io::Result<Vec<(u64, u64)>> {
        let mut map = Vec::new();
        push_parts(&block[386..386 + 4 * 24], &mut map)?;
        let mut more = block[482] != 0;
        while more {
            let mut next = [0_u8; BLOCK];
            if !self.read_block(&mut next)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            push_parts(&next[..21 * 24], &mut map)?;
            more = next[504] != 0;
            if map.len() as u64 > MAX_EXTENSION_BYTES / 24 {
                return Err(bad("a sparse file of too many parts"));
            }
        }
        Ok(map)
    }

    /// PAX dialect 1.0: decimal lines before the data, padded to a block.
    fn data_sparse_map(&mut self) -> io::Result<Vec<(u64, u64)>> {
        let mut numbers = Vec::new();
        let mut wanted = 1;
        let mut digits = Vec::new();
        let mut read = 0;
        while numbers.len() < wanted {
            let mut block = [0_u8; BLOCK];
            let mut have = 0;
            while have < BLOCK {
                match self.read_data(&mut block[have..])? {
                    0 => return Err(bad("a sparse file without its map")),
                    n => have += n,
                }
            }
            read += BLOCK as u64;
            if read > MAX_EXTENSION_BYTES {
                return Err(bad("a sparse file of too many parts"));
            }
            for &byte in &block {
                if byte != b'\n' {
                    digits.push(byte);
                } else if numbers.len() < wanted {
                    numbers.push(decimal(&digits)?);
                    digits.clear();
                    if numbers.len() == 1 {
                        let parts = usize::try_from(numbers[0]).ok().filter(|n| *n <= 1 << 17);
                        wanted += parts.ok_or_else(|| bad("a sparse file of too many parts"))? * 2;
                    }
                }
                if numbers.len() == wanted {
                    break;
                }
            }
        }
        pairs(&numbers[1..])
    }
}

/// Seconds; a malformed time is no reason to refuse a layer.
fn header_mtime(block: &[u8]) -> i64 {
    match &block[136..148] {
        // Before 1970, as GNU tar writes it: base 256, two's complement.
        [0xff, 0xff, 0xff, 0xff, tail @ ..] => tail.try_into().map_or(0, i64::from_be_bytes),
        field => number(field).ok().and_then(|n| i64::try_from(n).ok()).unwrap_or(0),
    }
}

fn verify_checksum(header: &Header) -> io::Result<()> {
    let bytes = header.as_bytes();
    let sum = |signed: bool| {
        bytes.iter().enumerate().fold(0_i64, |sum, (i, &b)| {
            let b = if (148..156).contains(&i) { b' ' } else { b };
            sum + if signed { i64::from(b.cast_signed()) } else { i64::from(b) }
        })
    };
    let no_tar = || bad("this is no tar archive: a header's checksum is wrong");
    let stored = number(&bytes[148..156]).ok().and_then(|n| i64::try_from(n).ok()).ok_or_else(no_tar)?;
    if stored == sum(false) || stored == sum(true) { Ok(()) } else { Err(no_tar()) }
}

fn until_nul(bytes: &[u8]) -> Vec<u8> {
    bytes.split(|&b| b == 0).next().unwrap_or_default().to_vec()
}

fn decimal(bytes: &[u8]) -> io::Result<u64> {
    let text = std::str::from_utf8(bytes).ok();
    text.and_then(|t| t.parse().ok()).ok_or_else(|| bad("a number that is none in an extension header"))
}

/// An octal or base-256 field. An empty one is 0: writers leave out what does not apply.
fn number(field: &[u8]) -> io::Result<u64> {
    if field[0] & 0x80 != 0 {
        let (lead, tail) = field.split_at(field.len() - 8);
        if field[0] != 0x80 || lead.iter().skip(1).any(|&b| b != 0) {
            return Err(bad("a number that is negative or too large"));
        }
        let mask = |(i, &b): (usize, &u8)| if i == 0 && lead.is_empty() { u64::from(b & 0x7f) } else { u64::from(b) };
        return Ok(tail.iter().enumerate().map(mask).fold(0, |n, b| n << 8 | b));
    }
    let text = until_nul(field);
    let text = std::str::from_utf8(&text).unwrap_or("?").trim();
    if text.is_empty() { Ok(0) } else { u64::from_str_radix(text, 8).map_err(|_| bad("a malformed number")) }
}

fn push_parts(bytes: &[u8], map: &mut Vec<(u64, u64)>) -> io::Result<()> {
    for part in bytes.chunks_exact(24) {
        let (offset, length) = (number(&part[..12])?, number(&part[12..])?);
        if part[0] == 0 || (length == 0 && offset == 0) {
            continue;
        }
        map.push((offset, length));
    }
    Ok(())
}

fn pairs(numbers: &[u64]) -> io::Result<Vec<(u64, u64)>> {
    if !numbers.len().is_multiple_of(2) {
        return Err(bad("a sparse map of odd length"));
    }
    Ok(numbers.chunks_exact(2).map(|p| (p[0], p[1])).collect())
}

/// `LENGTH KEY=VALUE\n`, again and again.
fn parse_pax(mut bytes: &[u8], ext: &mut Extensions) -> io::Result<()> {
    let malformed = || bad("a malformed PAX header");
    while !bytes.is_empty() {
        let space = bytes.iter().position(|&b| b == b' ').filter(|n| *n <= 8).ok_or_else(malformed)?;
        let length = usize::try_from(decimal(&bytes[..space])?).map_err(|_| malformed())?;
        if length <= space + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
            return Err(malformed());
        }
        let record = &bytes[space + 1..length - 1];
        bytes = &bytes[length..];
        let equals = record.iter().position(|&b| b == b'=').ok_or_else(malformed)?;
        apply_pax(&record[..equals], &record[equals + 1..], ext)?;
    }
    Ok(())
}

fn apply_pax(key: &[u8], value: &[u8], ext: &mut Extensions) -> io::Result<()> {
    let name = |value: &[u8]| {
        if value.contains(&0) {
            Err(bad("a name with a NUL byte"))
        } else {
            Ok((!value.is_empty()).then(|| value.to_vec()))
        }
    };
    let id = |value: &[u8]| decimal(value).and_then(|n| u32::try_from(n).map_err(|_| bad("an owner id over 32 bits")));
    match key {
        b"path" => ext.path = name(value)?,
        b"linkpath" => ext.link = name(value)?,
        // An empty value takes an earlier record back.
        _ if value.is_empty() && !key.starts_with(b"SCHILY.xattr.") => {}
        b"size" => ext.size = Some(decimal(value)?),
        b"uid" => ext.uid = Some(id(value)?),
        b"gid" => ext.gid = Some(id(value)?),
        b"mtime" => ext.mtime = Some(pax_time(value)?),
        b"GNU.sparse.name" => ext.sparse_name = name(value)?,
        b"GNU.sparse.size" | b"GNU.sparse.realsize" => ext.sparse_size = Some(decimal(value)?),
        b"GNU.sparse.major" => ext.sparse_major = Some(decimal(value)?),
        b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => ext.sparse_numbers.push(decimal(value)?),
        b"GNU.sparse.map" => {
            ext.sparse_numbers = value.split(|&b| b == b',').map(decimal).collect::<io::Result<_>>()?;
        }
        _ => {
            if let Some(attribute) = key.strip_prefix(b"SCHILY.xattr.") {
                ext.xattrs.push((attribute.to_vec(), value.to_vec()));
            }
        }
    }
    Ok(())
}

/// Decimal seconds with an optional fraction and sign.
fn pax_time(value: &[u8]) -> io::Result<(i64, u32)> {
    let malformed = || bad("a malformed time in a PAX header");
    let text = std::str::from_utf8(value).map_err(|_| malformed())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| malformed())?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().map_err(|_| malformed())?;
    // Before 1970 the fraction counts backwards; to the second is near enough there.
    Ok((seconds, if whole.starts_with('-') { 0 } else { nanos }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_all(bytes: &[u8]) -> io::Result<Vec<Entry>> {
        let mut tar = TarReader::new(bytes);
        let mut entries = Vec::new();
        let mut buffer = [0; 1000];
        while let Some(entry) = tar.next_entry()? {
            while tar.read_data(&mut buffer)? > 0 {}
            entries.push(entry);
        }
        Ok(entries)
    }

    /// A block with a right checksum, so that what follows the check is reached.
    fn sealed(mut block: [u8; BLOCK], kind: u8) -> [u8; BLOCK] {
        block[156] = kind;
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    #[test]
    fn base_256_numbers_are_read_and_negative_ones_refused() {
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 2]).unwrap(), 258);
        assert_eq!(number(&[0x80, 0, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 1]).unwrap(), 0xff00_0000_0000_0001);
        assert!(number(&[0xff; 12]).is_err());
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b"   644 \0").unwrap(), 0o644);
        assert_eq!(number(&[0; 8]).unwrap(), 0);
        assert!(number(b"99999999").is_err());
    }

    #[test]
    fn a_sparse_file_of_an_exabyte_is_refused() {
        let mut block = [0; BLOCK];
        block[0] = b'f';
        block[124..135].copy_from_slice(b"00000000000");
        block[483..495].copy_from_slice(&[0x80, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0]);
        let error = read_all(&sealed(block, b'S')).unwrap_err().to_string();
        assert!(error.contains("over the limit"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn whatever_comes_is_read_or_refused(
            blocks in proptest::collection::vec(
                (proptest::collection::vec(any::<u8>(), BLOCK), proptest::sample::select(b"0125xgLKS5".to_vec()), any::<bool>()), 0..8),
            digits in "[0-9 =a-zGNU.sparse,\n]{0,400}",
        ) {
            let mut tar = Vec::new();
            for (bytes, kind, plain) in blocks {
                let mut block: [u8; BLOCK] = bytes.try_into().unwrap();
                if plain {
                    block[100..148].fill(b'0');
                    block[135] = 0;
                }
                tar.extend_from_slice(&sealed(block, kind));
                tar.extend_from_slice(digits.as_bytes());
                tar.resize(tar.len().next_multiple_of(BLOCK), 0);
            }
            let _ = read_all(&tar);
            let mut extensions = Extensions::default();
            let _ = parse_pax(digits.as_bytes(), &mut extensions);
        }
    }
}
