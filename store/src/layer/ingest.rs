//! One stream a layer: source → sha256 and blob file → inflate → sha256 → unpack. Nothing is read back, and
//! nothing is visible before both digests are right.

use super::extract::{Extracted, Marks, extract};
use super::read::TarReader;
use super::rows::LayerFile;
use super::stream::{Primed, Watched, chunks};
use crate::compression::decompress;
use crate::layout::Layout;
use crate::lease::{NameLock, lock_name};
use crate::lock::Wait;
use crate::{Result, Store, StoreError};
use oci::{Descriptor, Digest, Hasher, Reference};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Plain bytes held at a time where one thread does it all.
const BUFFER_BYTES: usize = 128 << 10;
/// Compressed bytes from which on a second thread pays.
const PIPELINE_BYTES: u64 = 1 << 20;
/// How often in a row a source may break off without giving a byte.
const MAX_FAILURES: u32 = 5;
/// What any layer may inflate to, in bytes.
const FREE_BYTES: u64 = 16 << 30;
/// What a layer may inflate to beyond that, times its compressed size (gzip's own limit is 1032).
const MAX_RATIO: u64 = 200;

/// Begins reading a blob at an offset.
pub(crate) type Open<'a> = &'a mut dyn FnMut(u64) -> io::Result<Box<dyn Read>>;

impl Store {
    /// Fetches, verifies and unpacks one layer, in one stream. `open(offset)` begins reading the blob at an
    /// offset: once, and again after a broken read; a partial file of an earlier attempt is used.
    /// `progress` gets the number of compressed bytes had so far. Called from several threads at once; a second caller for the
    /// same layer waits and finds it done.
    pub fn ingest_layer(
        &self,
        blob: &Descriptor,
        diff_id: &Digest,
        open: &mut dyn FnMut(u64) -> io::Result<Box<dyn Read>>,
        progress: &dyn Fn(u64),
    ) -> Result<()> {
        self.ingest(blob, diff_id, None, open, progress)
    }

    /// The same for a layer of a repository, from which the blob can be had again: it is kept only if the store keeps such.
    pub fn ingest_pulled_layer(
        &self,
        blob: &Descriptor,
        diff_id: &Digest,
        from: &Reference,
        open: &mut dyn FnMut(u64) -> io::Result<Box<dyn Read>>,
        progress: &dyn Fn(u64),
    ) -> Result<()> {
        self.ingest(blob, diff_id, Some(from.repository()), open, progress)
    }

    fn ingest(
        &self,
        blob: &Descriptor,
        diff_id: &Digest,
        from: Option<String>,
        open: &mut dyn FnMut(u64) -> io::Result<Box<dyn Read>>,
        progress: &dyn Fn(u64),
    ) -> Result<()> {
        let name = Layout::layer_name(diff_id);
        let busy = || StoreError::Busy(format!("layer {diff_id}"));
        let lock = lock_name(&self.layout, &name, Wait::Block)?.ok_or_else(busy)?;
        if self.lease_if_there(&lock, &name)? {
            progress(blob.size);
            return Ok(());
        }
        let blob_lock = lock_name(&self.layout, blob.digest.as_str(), Wait::Block)?.ok_or_else(busy)?;
        self.lease.add(&self.layout, blob.digest.as_str())?;
        let mut first = BlobSource::begin(self, blob, open, progress)?;
        let resumed = first.stored > 0;
        let mut made = self.unpack(&lock, blob, diff_id, &from, &mut first);
        if made.is_err() && resumed && !is_source_failure(&made) {
            // What was kept from an earlier attempt may be what is damaged: once more, from the beginning.
            first.discard();
            made = self.unpack(&lock, blob, diff_id, &from, &mut BlobSource::begin(self, blob, open, progress)?);
        }
        if made.as_ref().is_err_and(is_full_disk) {
            // Its space is worth more now than the part of the download.
            self.discard_partial(blob);
        }
        drop(blob_lock);
        made
    }

    fn discard_partial(&self, blob: &Descriptor) {
        // What cannot be removed the sweep takes in a week.
        let _ = fs::remove_file(self.partial(blob));
    }

    fn partial(&self, blob: &Descriptor) -> PathBuf {
        self.layout.ingest(&format!("{}.partial", blob.digest.as_str().replace(':', "-")))
    }

    fn unpack(
        &self,
        lock: &NameLock,
        blob: &Descriptor,
        diff_id: &Digest,
        from: &Option<String>,
        source: &mut BlobSource<'_>,
    ) -> Result<()> {
        let scratch = self.new_scratch()?;
        let (made, fs) = Store::new_layer_folder(scratch.path())?;
        let partial = source.path.clone();
        let read_failed = |source: io::Error| match source.kind() {
            io::ErrorKind::StorageFull => StoreError::Io { operation: "write", path: partial.clone(), source },
            _ => StoreError::LayerRead { digest: blob.digest.clone(), source },
        };
        let most = FREE_BYTES.max(blob.size.saturating_mul(MAX_RATIO));
        let unpacked = Primed::new(&mut *source).and_then(decompress).map_err(read_failed).and_then(|plain| {
            let unpack = Unpack { root: &fs, marks: self.marks(), hasher: diff_id.hasher(), most };
            if blob.size < PIPELINE_BYTES { unpack.run(buffered(plain)) } else { unpack.run_beside(plain) }
        });
        // A source that failed is the reason for whatever the tar then looked like.
        let (extracted, got_diff_id) = unpacked.map_err(|e| source.failure.take().map_or(e, read_failed))?;
        let kept = source.finish(blob);
        if let Err(e @ (StoreError::DigestMismatch { .. } | StoreError::SizeMismatch { .. })) = kept {
            source.discard();
            return Err(e);
        }
        kept?;
        if got_diff_id != *diff_id {
            source.discard();
            return Err(StoreError::DigestMismatch { what: "layer", expected: diff_id.clone(), got: got_diff_id });
        }
        let drop_blob = self.drops_blobs && from.is_some() && !source.finished;
        if !drop_blob {
            source.keep(self, blob)?;
        }
        let mut file = layer_file(diff_id, extracted, &self.boot);
        file.source = from.as_ref().map(|from| (blob.clone(), from.clone()));
        self.install_layer(lock, &made, &Layout::layer_name(diff_id), &file, Some(blob))?;
        if drop_blob {
            // A kill before the row would have left it to be resumed from.
            source.discard();
        }
        Ok(())
    }
}

/// Whether the source, not the content, is what failed.
fn is_source_failure(result: &Result<()>) -> bool {
    matches!(result, Err(StoreError::LayerRead { .. } | StoreError::Io { .. } | StoreError::Database { .. }))
}

fn is_full_disk(error: &StoreError) -> bool {
    matches!(error, StoreError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull)
}

fn layer_file(diff_id: &Digest, extracted: Extracted, boot: &str) -> LayerFile {
    LayerFile {
        diff_id: diff_id.clone(),
        size: extracted.size,
        boot: boot.to_owned(),
        root: extracted.root,
        implied: extracted.implied.into_iter().collect(),
        links: extracted.links,
        source: None,
    }
}

/// The second half of the stream: plain bytes → hash → folder.
struct Unpack<'a> {
    root: &'a Path,
    marks: Marks,
    hasher: Hasher,
    /// What it may inflate to, in bytes.
    most: u64,
}

impl Unpack<'_> {
    fn run(self, plain: impl BufRead) -> Result<(Extracted, Digest)> {
        let mut tar = TarReader::new(Watched::new(plain, self.hasher, self.most));
        let extracted = extract(&mut tar, self.root, self.marks)?;
        let mut rest = tar.into_inner();
        drain(&mut rest).map_err(|e| StoreError::BadArchive(e.to_string()))?;
        Ok((extracted, rest.finish()))
    }

    /// In a thread of its own, while this one fetches and inflates: a large layer alone keeps two cores busy.
    fn run_beside(self, mut plain: impl Read) -> Result<(Extracted, Digest)> {
        std::thread::scope(|scope| {
            let (sender, chunks) = chunks();
            let unpacker = scope.spawn(move || self.run(chunks));
            sender.send_all(&mut plain);
            unpacker.join().unwrap_or_else(|_| Err(StoreError::BadArchive("the unpacking thread failed".to_owned())))
        })
    }
}

/// Plain bytes to be unpacked in the same thread.
fn buffered<R: Read>(plain: R) -> BufReader<R> {
    BufReader::with_capacity(BUFFER_BYTES, plain)
}

fn drain(reader: &mut impl BufRead) -> io::Result<()> {
    loop {
        match reader.fill_buf().map(<[u8]>::len) {
            Ok(0) => return Ok(()),
            Ok(n) => reader.consume(n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// A blob coming in: first what is on disk already, then from outside, written down as it passes.
struct BlobSource<'a> {
    open: Open<'a>,
    progress: &'a dyn Fn(u64),
    current: Option<Box<dyn Read>>,
    /// The partial file, or the finished blob.
    file: File,
    path: PathBuf,
    /// The file is the finished blob: nothing is to be written.
    finished: bool,
    /// Bytes the file had at the beginning.
    stored: u64,
    position: u64,
    size: u64,
    hasher: Option<Hasher>,
    failures: u32,
    /// Why the source gave up; readers in between garble it.
    failure: Option<io::Error>,
}

impl<'a> BlobSource<'a> {
    fn begin<'b: 'a>(
        store: &Store,
        blob: &Descriptor,
        open: &'a mut (dyn FnMut(u64) -> io::Result<Box<dyn Read>> + 'b),
        progress: &'a dyn Fn(u64),
    ) -> Result<BlobSource<'a>> {
        let whole = store.layout.blob(&blob.digest);
        let partial = store.partial(blob);
        let (file, path, finished) = match File::open(&whole) {
            Ok(file) if length(&file, &whole)? == blob.size => (file, whole, true),
            _ => {
                let mut options = fs::OpenOptions::new();
                options.read(true).append(true).create(true).mode(0o600);
                let file = options.open(&partial).map_err(StoreError::io("create", &partial))?;
                (file, partial, false)
            }
        };
        let mut stored = length(&file, &path)?;
        if stored > blob.size {
            file.set_len(0).map_err(StoreError::io("truncate", &path))?;
            stored = 0;
        }
        Ok(BlobSource {
            open,
            progress,
            current: None,
            file,
            path,
            finished,
            stored,
            position: 0,
            size: blob.size,
            hasher: Some(blob.digest.hasher()),
            failures: 0,
            failure: None,
        })
    }

    /// Whether size and digest are right.
    fn finish(&mut self, blob: &Descriptor) -> Result<()> {
        if self.position != blob.size {
            let (digest, expected) = (blob.digest.clone(), blob.size);
            return Err(StoreError::SizeMismatch { what: "layer", digest, expected, got: self.position });
        }
        let got = self.hasher.take().map(Hasher::finish);
        match got {
            Some(got) if got == blob.digest => Ok(()),
            Some(got) => Err(StoreError::DigestMismatch { what: "layer", expected: blob.digest.clone(), got }),
            None => Ok(()),
        }
    }

    fn keep(&self, store: &Store, blob: &Descriptor) -> Result<()> {
        if self.finished {
            return Ok(());
        }
        let target = store.layout.blob(&blob.digest);
        fs::rename(&self.path, &target).map_err(StoreError::io("create", &target))
    }

    /// Damaged content is not to be resumed, nor read as a blob again.
    fn discard(&self) {
        let _ = fs::remove_file(&self.path);
    }

    fn next_bytes(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let attempt = match &mut self.current {
                Some(source) => source.read(buffer),
                None => {
                    let offset = self.position;
                    (self.open)(offset).and_then(|source| self.current.insert(source).read(buffer))
                }
            };
            match attempt {
                Ok(n) if n > 0 => {
                    self.failures = 0;
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                broken => {
                    self.current = None;
                    self.failures += 1;
                    if self.failures >= MAX_FAILURES {
                        return Err(broken.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()));
                    }
                }
            }
        }
    }

    fn advance(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.size || buffer.is_empty() {
            return Ok(0);
        }
        let left = usize::try_from(self.size - self.position).unwrap_or(usize::MAX);
        let want = buffer.len().min(left);
        let from_disk = self.position < self.stored;
        let n = if from_disk {
            match self.file.read(&mut buffer[..want])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => n,
            }
        } else {
            let n = self.next_bytes(&mut buffer[..want])?;
            self.file.write_all(&buffer[..n])?;
            n
        };
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..n]);
        }
        self.position += n as u64;
        (self.progress)(self.position);
        Ok(n)
    }
}

impl Read for BlobSource<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.advance(buffer).map_err(|e| {
            let copy =
                e.raw_os_error().map_or_else(|| io::Error::new(e.kind(), e.to_string()), io::Error::from_raw_os_error);
            self.failure = Some(e);
            copy
        })
    }
}

fn length(file: &File, path: &Path) -> Result<u64> {
    file.metadata().map(|m| m.len()).map_err(StoreError::io("inspect", path))
}
