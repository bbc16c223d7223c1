//! Digests of files that have not changed since an earlier build read them: (device, inode, size, mtime, ctime) → digest.
//! An unchanged context then costs a stat a file.

use super::Stamp;
use oci::Digest;
use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Seven numbers of eight bytes and a sha256.
const RECORD_BYTES: usize = 7 * 8 + 32;
const MAGIC: &[u8; 8] = b"ctrdig01";
/// A table beyond this is begun anew with what the build at hand saw.
const MAX_RECORDS: usize = 1_000_000;

/// The table of one context. Losing it costs time, nothing else, so no error of its file is one of the build's.
#[derive(Debug)]
pub(crate) struct DigestTable {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<Stamp, [u8; 32]>,
    fresh: HashMap<Stamp, [u8; 32]>,
}

impl DigestTable {
    /// The table in this file, empty where there is none.
    pub(crate) fn open(path: PathBuf) -> DigestTable {
        let known = fs::read(&path).ok().and_then(|bytes| decode(&bytes)).unwrap_or_default();
        DigestTable { path, state: Mutex::new(State { known, fresh: HashMap::new() }) }
    }

    /// The digest of a file that looks like this, if it was read before.
    pub(crate) fn get(&self, stamp: &Stamp) -> Option<Digest> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = state.known.get(stamp).or_else(|| state.fresh.get(stamp))?;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{hex}").parse().ok()
    }

    /// Notes what a file's bytes hash to, unless the file is so young that a later write could leave no trace in its
    /// times. `read_at` is from before the reading.
    pub(crate) fn put(&self, stamp: &Stamp, digest: &Digest, read_at: SystemTime) {
        if is_settled(stamp, read_at)
            && let Some(bytes) = sha256_bytes(digest)
        {
            self.state.lock().unwrap_or_else(PoisonError::into_inner).fresh.insert(*stamp, bytes);
        }
    }

    /// Writes the table, if there is anything new in it.
    pub(crate) fn save(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.fresh.is_empty() {
            return;
        }
        let State { known, fresh } = std::mem::take(&mut *state);
        let mut all = if known.len() + fresh.len() > MAX_RECORDS { HashMap::new() } else { known };
        // A file of the same inode replaces its earlier self.
        let inodes: std::collections::HashSet<(u64, u64)> = fresh.keys().map(|s| (s.device, s.inode)).collect();
        all.retain(|stamp, _| !inodes.contains(&(stamp.device, stamp.inode)));
        all.extend(fresh);
        let _lost = write(&self.path, &encode(&all));
        state.known = all;
    }
}

fn is_settled(stamp: &Stamp, read_at: SystemTime) -> bool {
    let Ok(seconds) = u64::try_from(stamp.ctime.0) else { return false };
    let nanoseconds = u32::try_from(stamp.ctime.1).unwrap_or(0);
    let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds.min(999_999_999));
    // Whole seconds: the file system may know no finer ones.
    let tick = if nanoseconds == 0 { Duration::from_secs(2) } else { Duration::from_millis(100) };
    read_at.duration_since(changed).is_ok_and(|age| age > tick)
}

fn sha256_bytes(digest: &Digest) -> Option<[u8; 32]> {
    let hex = digest.hex();
    let mut bytes = [0; 32];
    if digest.algorithm() != "sha256" || hex.len() != 64 {
        return None;
    }
    for (byte, index) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(hex.get(index..index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

fn encode(records: &HashMap<Stamp, [u8; 32]>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MAGIC.len() + records.len() * RECORD_BYTES);
    bytes.extend_from_slice(MAGIC);
    for (stamp, digest) in records {
        bytes.extend_from_slice(&stamp.device.to_le_bytes());
        bytes.extend_from_slice(&stamp.inode.to_le_bytes());
        bytes.extend_from_slice(&stamp.size_bytes.to_le_bytes());
        for (seconds, nanoseconds) in [stamp.mtime, stamp.ctime] {
            bytes.extend_from_slice(&seconds.to_le_bytes());
            bytes.extend_from_slice(&nanoseconds.to_le_bytes());
        }
        bytes.extend_from_slice(digest);
    }
    bytes
}

/// None for anything that is no table.
fn decode(bytes: &[u8]) -> Option<HashMap<Stamp, [u8; 32]>> {
    let records = bytes.strip_prefix(MAGIC)?.chunks_exact(RECORD_BYTES);
    if !records.remainder().is_empty() || records.len() > 2 * MAX_RECORDS {
        return None;
    }
    let record = |bytes: &[u8]| {
        let word = |n: usize| Some(u64::from_le_bytes(bytes.get(n * 8..n * 8 + 8)?.try_into().ok()?));
        let signed = |n: usize| Some(i64::from_le_bytes(bytes.get(n * 8..n * 8 + 8)?.try_into().ok()?));
        let stamp = Stamp {
            device: word(0)?,
            inode: word(1)?,
            size_bytes: signed(2)?,
            mtime: (signed(3)?, word(4)?),
            ctime: (signed(5)?, word(6)?),
        };
        Some((stamp, bytes.get(56..)?.try_into().ok()?))
    };
    records.map(record).collect()
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let temporary = path.with_extension(std::process::id().to_string());
    let mut file = fs::File::create(&temporary)?;
    file.write_all(bytes).and_then(|()| fs::rename(&temporary, path)).inspect_err(|_| {
        let _gone = fs::remove_file(&temporary);
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn stamp(inode: u64, ctime: i64) -> Stamp {
        Stamp { device: 1, inode, size_bytes: 3, mtime: (5, 6), ctime: (ctime, 7) }
    }

    #[test]
    fn tables_survive_and_replace_what_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/table");
        let (one, two) = (Digest::sha256("1"), Digest::sha256("2"));
        let table = DigestTable::open(path.clone());
        table.put(&stamp(1, 100), &one, SystemTime::now());
        table.put(&stamp(2, 100), &two, SystemTime::now());
        table.save();
        let table = DigestTable::open(path.clone());
        assert_eq!(table.get(&stamp(1, 100)), Some(one));
        assert_eq!(table.get(&stamp(1, 101)), None);
        table.put(&stamp(1, 101), &two, SystemTime::now());
        table.save();
        let table = DigestTable::open(path.clone());
        assert_eq!((table.get(&stamp(1, 100)), table.get(&stamp(1, 101))), (None, Some(two)));
        fs::write(&path, b"ctrdig01 torn").unwrap();
        assert_eq!(DigestTable::open(path).get(&stamp(1, 101)), None);
    }

    #[test]
    fn a_file_just_written_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let seconds = i64::try_from(now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()).unwrap();
        let table = DigestTable::open(dir.path().join("t"));
        table.put(&stamp(1, seconds), &Digest::sha256(""), now - Duration::from_secs(1));
        assert_eq!(table.get(&stamp(1, seconds)), None);
    }
}
