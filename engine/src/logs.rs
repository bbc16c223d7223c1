//! Reading a container's log, across rotation, following it while the container runs.

use crate::attach::connect_monitor;
use crate::config::ContainerConfig;
use crate::monitor::log::{LOG_FILE, rotated};
use crate::{Engine, EngineError, Result};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What to show of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// `-f`: go on until the container ends.
    pub follow: bool,
    /// `-n`: the last so many lines; None: all.
    pub tail: Option<u64>,
    /// Nothing older.
    pub since: Option<Timestamp>,
    /// Nothing newer.
    pub until: Option<Timestamp>,
}

/// The stream a line was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output, or the terminal's.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of output. Its text ends in a newline unless the line was longer than 16 KiB (the rest follows as further
/// entries) or the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Where it was written.
    pub stream: LogStream,
    /// When.
    pub time: Timestamp,
    /// What, newline included.
    pub text: String,
}

/// The longest line of a log file: 16 KiB of output, each byte escaped to six, and the frame.
const MAX_LINE_BYTES: u64 = 128 << 10;
/// More files than anybody keeps.
const MAX_FILES: u32 = 1000;

/// A log being read: an iterator whose `next` blocks while it follows.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    /// Files still to be read, oldest first; the last is the one that grows.
    files: VecDeque<BufReader<File>>,
    skip: u64,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    follow: Option<Follow>,
    /// The begun line of a file that is being written.
    partial: Vec<u8>,
}

/// What wakes a follower: the log folder changes, or the monitor ends.
#[derive(Debug)]
struct Follow {
    changes: OwnedFd,
    monitor: Option<OwnedFd>,
    socket: PathBuf,
}

impl Engine {
    /// Opens a container's log.
    pub fn logs(&self, container: &str, options: &LogOptions) -> Result<LogReader> {
        let row = self.store().container(container)?;
        let folder = self.store().container_dir(&row.id);
        let config = ContainerConfig::load(&folder)?;
        if config.spec.log.driver == "none" {
            return Err(EngineError::State("configured logging driver does not support reading".to_owned()));
        }
        // Connected before anything is read: what is written later wakes us, and so does the end.
        let socket = self.socket_path(&row.id);
        let monitor = if options.follow { connect_monitor(&socket).ok() } else { None };
        let follow = monitor.map(|monitor| Follow::new(&folder, monitor, socket)).transpose()?;
        LogReader::open(&folder.join(LOG_FILE), options, follow)
    }
}

impl Follow {
    fn new(folder: &Path, monitor: OwnedFd, socket: PathBuf) -> Result<Follow> {
        let error = |e: rustix::io::Errno| EngineError::io("watch", folder, e);
        let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).map_err(error)?;
        let events = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&changes, folder, events).map_err(error)?;
        Ok(Follow { changes, monitor: Some(monitor), socket })
    }

    /// Waits for a change. False: the monitor has ended, what is there now is all.
    fn wait(&mut self) -> io::Result<bool> {
        let Some(monitor) = &self.monitor else { return Ok(false) };
        let mut fds = [PollFd::new(&self.changes, PollFlags::IN), PollFd::new(monitor, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let [changed, ended] = fds.map(|fd| !fd.revents().is_empty());
        if changed {
            let mut events = [0; 4096];
            while rustix::io::read(&self.changes, &mut events).is_ok_and(|n| n > 0) {}
        }
        if ended {
            let mut bytes = [0; 4096];
            // Its word that the program has ended, or its own end. Where it still listens it will start the program again.
            if rustix::io::read(monitor, &mut bytes).is_ok_and(|n| n < bytes.len()) {
                self.monitor = connect_monitor(&self.socket).ok();
            }
        }
        Ok(true)
    }
}

impl LogReader {
    fn open(path: &Path, options: &LogOptions, follow: Option<Follow>) -> Result<LogReader> {
        let mut files = VecDeque::new();
        for opened in open_all(path) {
            files.push_front(BufReader::new(opened.map_err(|e| EngineError::io("open", path, e))?));
        }
        let mut reader = LogReader {
            path: path.to_owned(),
            files,
            skip: 0,
            since: options.since,
            until: options.until,
            follow,
            partial: Vec::new(),
        };
        if let Some(tail) = options.tail {
            reader.skip_to_tail(tail).map_err(|e| EngineError::io("read", path, e))?;
        }
        Ok(reader)
    }

    /// Leaves out all but the last `tail` lines, by counting newlines from the end of the newest file.
    fn skip_to_tail(&mut self, tail: u64) -> io::Result<()> {
        let mut missing = tail;
        let mut whole = 0;
        for file in self.files.iter_mut().rev() {
            let (offset, found) = tail_offset(file.get_mut(), missing)?;
            file.seek(SeekFrom::Start(offset))?;
            missing -= found;
            whole += 1;
            if missing == 0 {
                break;
            }
        }
        let unread = self.files.len() - whole;
        self.files.drain(..unread);
        Ok(())
    }

    /// The next whole line; None: there is none, for good.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let Some(file) = self.files.front_mut() else {
                if !self.next_file()? {
                    return Ok(None);
                }
                continue;
            };
            let left = MAX_LINE_BYTES - u64::try_from(self.partial.len()).unwrap_or(MAX_LINE_BYTES).min(MAX_LINE_BYTES);
            file.by_ref().take(left).read_until(b'\n', &mut self.partial)?;
            if self.partial.ends_with(b"\n") || left == 0 {
                return Ok(Some(std::mem::take(&mut self.partial)));
            }
            // The end of this file, for now.
            if self.files.len() > 1 {
                self.partial.clear();
                self.files.pop_front();
            } else if !self.next_file()? {
                return Ok(None);
            }
        }
    }

    /// Waits for more: a newer file takes the place of the current one, or that grows. False: no more comes.
    fn next_file(&mut self) -> io::Result<bool> {
        let Some(follow) = &mut self.follow else { return Ok(false) };
        // Rotated away while we read it: it does not grow any more once the new one is there and we have read it to its end.
        let newer = newer_files(&self.path, self.files.back().map(BufReader::get_ref))?;
        if !newer.is_empty() {
            let at_end = self.files.back_mut().is_none_or(|file| file.fill_buf().is_ok_and(<[u8]>::is_empty));
            if at_end {
                self.partial.clear();
                self.files.clear();
            }
            self.files.extend(newer.into_iter().map(BufReader::new));
            return Ok(true);
        }
        if follow.monitor.is_none() {
            return Ok(false);
        }
        follow.wait()?;
        Ok(true)
    }
}

/// The log's files as they lie now, newest first. A rotation under way leaves one name free for a moment: two
/// free ones in a row are the end.
fn open_all(path: &Path) -> impl Iterator<Item = io::Result<File>> {
    let mut missing = 0;
    let names = [path.to_owned()].into_iter().chain((1..MAX_FILES).map(|number| rotated(path, number)));
    let opened = names.map_while(move |name| match File::open(&name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            missing += 1;
            (missing < 2).then_some(None)
        }
        opened => {
            missing = 0;
            Some(Some(opened))
        }
    });
    opened.flatten()
}

/// The files that came after the one that is open, oldest first.
fn newer_files(path: &Path, current: Option<&File>) -> io::Result<Vec<File>> {
    let identity = |file: &File| file.metadata().map(|meta| (meta.dev(), meta.ino()));
    let current = current.map(identity).transpose()?;
    let mut newer = Vec::new();
    let mut seen = Vec::new();
    for opened in open_all(path) {
        let opened = opened?;
        let own = identity(&opened)?;
        if Some(own) == current {
            break;
        }
        // A rotation while we look shows a file under two names.
        if !seen.contains(&own) {
            seen.push(own);
            newer.insert(0, opened);
        }
        if current.is_none() {
            break;
        }
    }
    Ok(newer)
}

/// Where the last `lines` lines of a file begin, and how many there are (fewer, if the file has fewer).
fn tail_offset(file: &mut File, lines: u64) -> io::Result<(u64, u64)> {
    const BLOCK: u64 = 32 << 10;
    let mut position = file.metadata()?.len();
    let mut block = vec![0; usize::try_from(BLOCK).unwrap_or(0)];
    let mut found = 0;
    if lines == 0 {
        return Ok((position, 0));
    }
    while position > 0 {
        let start = position.saturating_sub(BLOCK);
        let length = usize::try_from(position - start).unwrap_or(0);
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block[..length])?;
        for index in (0..length).rev().filter(|index| block[*index] == b'\n') {
            // This newline ends the line before what has been counted.
            if found == lines {
                return Ok((start + u64::try_from(index).unwrap_or(0) + 1, found));
            }
            found += 1;
        }
        position = start;
    }
    Ok((0, found))
}

impl Iterator for LogReader {
    type Item = Result<LogEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = match self.line() {
                Ok(line) => line?,
                Err(e) => return Some(Err(EngineError::io("read", &self.path, e))),
            };
            // A line torn by a crash or a full disk is left out.
            let Some(entry) = parse(&line) else { continue };
            if self.skip > 0 {
                self.skip -= 1;
                continue;
            }
            if self.until.is_some_and(|until| entry.time > until) {
                return None;
            }
            if self.since.is_none_or(|since| entry.time >= since) {
                return Some(Ok(entry));
            }
        }
    }
}

fn parse(line: &[u8]) -> Option<LogEntry> {
    #[derive(serde::Deserialize)]
    struct Line {
        log: String,
        stream: String,
        time: Timestamp,
    }
    let line: Line = serde_json::from_slice(line).ok()?;
    let stream = if line.stream == "stderr" { LogStream::Stderr } else { LogStream::Stdout };
    Some(LogEntry { stream, time: line.time, text: line.log })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::LogConfig;
    use crate::monitor::log::LogWriter;

    fn written(folder: &Path, count: u32, max_size_bytes: u64) -> LogWriter {
        let config = LogConfig { max_size_bytes, max_files: 100, ..LogConfig::default() };
        let mut log = LogWriter::open(folder, &config).unwrap().unwrap();
        for n in 0..count {
            let stream = if n % 2 == 0 { LogStream::Stdout } else { LogStream::Stderr };
            log.write(stream, format!("line {n}\n").as_bytes());
        }
        log
    }

    fn read(folder: &Path, options: &LogOptions) -> Vec<String> {
        let reader = LogReader::open(&folder.join(LOG_FILE), options, None).unwrap();
        reader.map(|entry| entry.unwrap().text.trim().to_owned()).collect()
    }

    #[test]
    fn all_files_are_read_in_order_and_the_tail_counts_over_them() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), 50, 400);
        let all: Vec<String> = (0..50).map(|n| format!("line {n}")).collect();
        assert_eq!(read(folder.path(), &LogOptions::default()), all);
        for tail in [0, 1, 3, 4, 5, 17, 49, 50, 51] {
            let from = 50usize.saturating_sub(tail);
            let tail = Some(u64::try_from(tail).unwrap());
            assert_eq!(read(folder.path(), &LogOptions { tail, ..LogOptions::default() }), all[from..], "{tail:?}");
        }
    }

    #[test]
    fn times_bound_what_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), 3, 0);
        let later = Timestamp::now() + jiff::SignedDuration::from_secs(1);
        assert!(read(folder.path(), &LogOptions { since: Some(later), ..LogOptions::default() }).is_empty());
        assert_eq!(read(folder.path(), &LogOptions { until: Some(later), ..LogOptions::default() }).len(), 3);
    }

    #[test]
    fn a_torn_line_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(LOG_FILE), "{\"log\":\"x\n").unwrap();
        assert!(read(folder.path(), &LogOptions::default()).is_empty());
    }

    #[test]
    fn a_follower_sees_every_line_across_rotation_and_ends_with_the_monitor() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = written(folder.path(), 5, 400);
        let (ours, monitor) = crate::attach::socket_pair().unwrap();
        let follow = Follow::new(folder.path(), ours, "/none".into()).unwrap();
        let reader = LogReader::open(&folder.path().join(LOG_FILE), &LogOptions::default(), Some(follow)).unwrap();
        let writer = std::thread::spawn(move || {
            for n in 5..500 {
                log.write(LogStream::Stdout, format!("line {n}\n").as_bytes());
                if n % 50 == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
            }
            drop(monitor);
        });
        let got: Vec<String> = reader.map(|entry| entry.unwrap().text.trim().to_owned()).collect();
        writer.join().unwrap();
        assert_eq!(got, (0..500).map(|n| format!("line {n}")).collect::<Vec<_>>());
    }
}
