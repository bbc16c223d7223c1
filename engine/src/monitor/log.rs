//! Writing a container's log: docker's json-file lines, split at 16 KiB, rotated by size.

use crate::{LogConfig, LogStream};
use jiff::Timestamp;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The longest piece of a line that makes one entry, in bytes.
pub(crate) const MAX_ENTRY_BYTES: usize = 16 << 10;

/// The current log file's name in the container's folder; older ones have `.1`, `.2`, … behind.
pub(crate) const LOG_FILE: &str = "container.log";

/// A log being written.
#[derive(Debug)]
pub(crate) struct LogWriter {
    path: PathBuf,
    file: File,
    size_bytes: u64,
    max_size_bytes: u64,
    max_files: u32,
    /// The begun line of each stream.
    partial: [Vec<u8>; 2],
    lines: Vec<u8>,
}

impl LogWriter {
    /// Goes on with the log of a container. None: it keeps none.
    pub(crate) fn open(folder: &Path, config: &LogConfig) -> io::Result<Option<LogWriter>> {
        if config.driver == "none" {
            return Ok(None);
        }
        let path = folder.join(LOG_FILE);
        let file = open(&path)?;
        Ok(Some(LogWriter {
            size_bytes: file.metadata()?.len(),
            file,
            path,
            max_size_bytes: config.max_size_bytes,
            max_files: config.max_files.max(1),
            partial: [Vec::new(), Vec::new()],
            lines: Vec::new(),
        }))
    }

    /// Takes output as it comes. A disk that is full loses lines, never the container.
    pub(crate) fn write(&mut self, stream: LogStream, bytes: &[u8]) {
        let tail = entry_tail(stream);
        let mut partial = std::mem::take(&mut self.partial[stream as usize]);
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            if partial.is_empty() && piece.len() <= MAX_ENTRY_BYTES && piece.ends_with(b"\n") {
                self.entry(piece, &tail);
                continue;
            }
            partial.extend_from_slice(piece);
            let mut rest = &partial[..];
            while rest.len() > MAX_ENTRY_BYTES {
                let (entry, later) = rest.split_at(char_boundary(rest, MAX_ENTRY_BYTES));
                self.entry(entry, &tail);
                rest = later;
            }
            if rest.ends_with(b"\n") || rest.len() == MAX_ENTRY_BYTES {
                self.entry(rest, &tail);
                rest = b"";
            }
            let kept = rest.len();
            partial.drain(..partial.len() - kept);
        }
        if partial.is_empty() && partial.capacity() > 1024 {
            partial = Vec::new();
        }
        self.partial[stream as usize] = partial;
        self.flush();
    }

    /// Writes what is left of lines that had no end.
    pub(crate) fn finish(&mut self) {
        for (stream, index) in [(LogStream::Stdout, 0), (LogStream::Stderr, 1)] {
            let partial = std::mem::take(&mut self.partial[index]);
            if !partial.is_empty() {
                self.entry(&partial, &entry_tail(stream));
            }
        }
        self.flush();
    }

    fn entry(&mut self, text: &[u8], tail: &str) {
        let before = self.lines.len();
        self.lines.extend_from_slice(b"{\"log\":");
        // Writing to a Vec cannot fail.
        let _infallible = serde_json::to_writer(&mut self.lines, &String::from_utf8_lossy(text));
        self.lines.extend_from_slice(tail.as_bytes());
        let pending = u64::try_from(self.lines.len()).unwrap_or(u64::MAX);
        if self.max_size_bytes > 0 && before > 0 && self.size_bytes + pending > self.max_size_bytes {
            let last = self.lines.split_off(before);
            self.flush();
            self.rotate();
            self.lines = last;
        } else if self.lines.len() > 4 * MAX_ENTRY_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let length = u64::try_from(self.lines.len()).unwrap_or(u64::MAX);
        if self.max_size_bytes > 0 && self.size_bytes > 0 && self.size_bytes + length > self.max_size_bytes {
            self.rotate();
        }
        if crate::protocol::write_file(&self.file, &self.lines).is_ok() {
            self.size_bytes += length;
        }
        self.lines.clear();
        if self.lines.capacity() > 4096 {
            self.lines = Vec::new();
        }
    }

    /// `.1` becomes `.2` and so on, the oldest goes; a new current file begins. If that fails the old one goes on.
    fn rotate(&mut self) {
        for number in (1..self.max_files.saturating_sub(1)).rev() {
            let _missing = std::fs::rename(rotated(&self.path, number), rotated(&self.path, number + 1));
        }
        let moved = if self.max_files > 1 {
            std::fs::rename(&self.path, rotated(&self.path, 1))
        } else {
            std::fs::remove_file(&self.path)
        };
        if let (Ok(()), Ok(file)) = (moved, open(&self.path)) {
            self.file = file;
            self.size_bytes = 0;
        }
    }
}

/// What follows the text of each entry that was written in one go.
fn entry_tail(stream: LogStream) -> String {
    let name = if stream == LogStream::Stdout { "stdout" } else { "stderr" };
    format!(",\"stream\":\"{name}\",\"time\":\"{}\"}}\n", Timestamp::now())
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

/// The path of an older log file.
pub(crate) fn rotated(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Where to cut so that no UTF-8 character is torn (unless it is none).
fn char_boundary(bytes: &[u8], at: usize) -> usize {
    (at.saturating_sub(3)..=at).rev().find(|i| bytes.get(*i).is_none_or(|b| b & 0xc0 != 0x80)).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn lines(path: &Path) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(path).unwrap();
        let value = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        let pair = |v: serde_json::Value| (v["log"].as_str().unwrap().into(), v["stream"].as_str().unwrap().into());
        text.lines().map(|line| pair(value(line))).collect()
    }

    fn writer(folder: &Path, max_size_bytes: u64, max_files: u32) -> LogWriter {
        let config = LogConfig { max_size_bytes, max_files, ..LogConfig::default() };
        LogWriter::open(folder, &config).unwrap().unwrap()
    }

    #[test]
    fn lines_are_joined_and_long_ones_split() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = writer(folder.path(), 0, 1);
        log.write(LogStream::Stdout, b"a");
        log.write(LogStream::Stderr, b"error\n");
        log.write(LogStream::Stdout, b"b\nc");
        log.write(LogStream::Stdout, "ü".repeat(10_000).as_bytes());
        log.finish();
        let got = lines(&folder.path().join(LOG_FILE));
        assert_eq!(got[0], ("error\n".into(), "stderr".into()));
        assert_eq!(got[1], ("ab\n".into(), "stdout".into()));
        assert!(got[2].0.len() <= MAX_ENTRY_BYTES);
        assert_eq!(format!("{}{}", got[2].0, got[3].0), format!("c{}", "ü".repeat(10_000)));
        assert_eq!(got.len(), 4);
    }

    #[test]
    fn it_rotates_by_size_and_keeps_so_many() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = writer(folder.path(), 500, 3);
        for n in 0..100 {
            log.write(LogStream::Stdout, format!("line {n}\n").as_bytes());
        }
        let path = folder.path().join(LOG_FILE);
        let mut got = lines(&rotated(&path, 2));
        got.extend(lines(&rotated(&path, 1)));
        got.extend(lines(&path));
        assert_eq!(got.last().unwrap().0, "line 99\n");
        let first: u32 = got[0].0.trim().strip_prefix("line ").unwrap().parse().unwrap();
        assert_eq!(u32::try_from(got.len()).unwrap(), 100 - first, "no line in the middle is lost");
        assert!(!rotated(&path, 3).exists());
        assert!(std::fs::metadata(&path).unwrap().len() <= 500);
    }

    proptest! {
        #[test]
        fn text_comes_out_as_it_went_in(pieces in proptest::collection::vec("[a-zé\\n]{0,9000}", 0..6)) {
            let folder = tempfile::tempdir().unwrap();
            let mut log = writer(folder.path(), 0, 1);
            for piece in &pieces {
                log.write(LogStream::Stdout, piece.as_bytes());
            }
            log.finish();
            let got: String = lines(&folder.path().join(LOG_FILE)).into_iter().map(|(text, _)| text).collect();
            prop_assert_eq!(got, pieces.concat());
        }
    }
}
