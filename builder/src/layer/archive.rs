//! What an archive is packed with, told by how it begins.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use store::TarReader;

/// More memory than an xz archive may ask for its window, in bytes: `xz -9` needs 65 MiB.
const MAX_XZ_MEMORY_BYTES: u64 = 256 << 20;
/// As many bytes as tell a tar or a compressed file from others.
const HEAD_BYTES: u64 = 512;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

impl Packing {
    /// By the first bytes.
    pub(crate) fn of(head: &[u8]) -> Packing {
        match head {
            [0x1f, 0x8b, 0x08, ..] => Packing::Gzip,
            [b'B', b'Z', b'h', ..] => Packing::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Packing::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
            _ => Packing::Plain,
        }
    }

    /// The bytes as they were before.
    pub(crate) fn reader<'r>(self, from: impl BufRead + 'r) -> io::Result<Box<dyn Read + 'r>> {
        Ok(match self {
            Packing::Plain => Box::new(from),
            Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(from)),
            Packing::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(from)),
            Packing::Xz => {
                let stream =
                    liblzma::stream::Stream::new_stream_decoder(MAX_XZ_MEMORY_BYTES, liblzma::stream::CONCATENATED)?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(from, stream))
            }
            Packing::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(from)?),
        })
    }
}

/// Whether a stream that begins so is taken for a tar, perhaps compressed.
pub(crate) fn looks_packed(head: &[u8]) -> bool {
    Packing::of(head) != Packing::Plain || head.get(257..262) == Some(b"ustar")
}

/// Whether a file is a tar, perhaps compressed: a text that is merely compressed is none, and ADD copies it as it is.
pub(crate) fn is_archive(file: &mut File) -> io::Result<bool> {
    file.rewind()?;
    let packing = Packing::of(&head(file)?);
    file.rewind()?;
    let is_tar = match packing.reader(BufReader::new(&mut *file)) {
        Ok(reader) => TarReader::new(BufReader::new(reader)).next_entry().is_ok_and(|entry| entry.is_some()),
        Err(_) => false,
    };
    file.rewind()?;
    Ok(is_tar)
}

/// The first bytes of a file; what follows is still to be read.
pub(crate) fn head(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    from.take(HEAD_BYTES).read_to_end(&mut head)?;
    Ok(head)
}
