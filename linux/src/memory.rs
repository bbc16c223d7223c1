//! Giving memory back. A monitor idles for weeks, one for each container: what its start-up touched –
//! pages of code, freed heap – must not stay in its resident set.

use std::ffi::c_void;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::ptr;

/// A mapping of this process out of /proc/self/smaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Mapping {
    start: usize,
    length: usize,
    /// Readable or executable, private, of a file, not writable.
    constant: bool,
    anonymous_kib: u64,
}

/// Pieces of this size are mapped by a page fault at most.
const PIECE: usize = 16 << 10;

/// Drops what can be had again: free heap goes back to the kernel, pages of code and constants are read anew from the
/// page cache when next needed. Best effort: where /proc can't be read, nothing happens.
///
/// A kernel with large folios (6.18) maps a whole one, up to 2 MB, when one of its pages is touched, but never beyond the
/// area that was mapped. So the areas are made small: advice that differs between neighbours cuts them.
pub fn shed() {
    let constants = constant_mappings();
    // SAFETY: malloc_trim only releases free memory of the allocator.
    unsafe { libc::malloc_trim(0) };
    for mapping in constants {
        let start = ptr::with_exposed_provenance_mut::<c_void>(mapping.start);
        // SAFETY: a private, never written (Anonymous: 0) mapping of a file, not writable: its pages come back from the file
        // with the same content at the next touch.
        unsafe { libc::madvise(start, mapping.length, libc::MADV_DONTNEED) };
        for offset in (0..mapping.length).step_by(2 * PIECE) {
            let piece = start.wrapping_byte_add(offset);
            // SAFETY: within the mapping; the advice concerns read-ahead only.
            unsafe { libc::madvise(piece, PIECE.min(mapping.length - offset), libc::MADV_RANDOM) };
        }
        // SAFETY: as above; what the calls themselves have mapped goes again.
        unsafe { libc::madvise(start, mapping.length, libc::MADV_DONTNEED) };
    }
}

/// Mappings of files that hold exactly what the file holds. Relocated constants (RELRO) look like them in maps, but have
/// private pages: dropping those would undo the relocation.
fn constant_mappings() -> Vec<Mapping> {
    let Ok(file) = File::open("/proc/self/smaps") else { return Vec::new() };
    let mut found = Vec::with_capacity(16);
    let mut current = Mapping::default();
    for line in BufReader::with_capacity(4096, file).lines().map_while(Result::ok) {
        if let Some(next) = header(&line) {
            if current.constant && current.anonymous_kib == 0 {
                found.push(current);
            }
            current = next;
        } else if let Some(rest) = line.strip_prefix("Anonymous:") {
            current.anonymous_kib = rest.trim().trim_end_matches(" kB").parse().unwrap_or(u64::MAX);
        }
    }
    if current.constant && current.anonymous_kib == 0 {
        found.push(current);
    }
    found
}

/// `start-end perms offset dev inode path`; None for the lines of numbers under it.
fn header(line: &str) -> Option<Mapping> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    let permissions = fields.next()?;
    let is_file = fields.nth(3).is_some_and(|path| path.starts_with('/'));
    let constant = is_file && permissions.starts_with('r') && !permissions.contains('w') && permissions.ends_with('p');
    Some(Mapping { start, length: end.checked_sub(start)?, constant, anonymous_kib: u64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_constant_file_mappings_are_taken() {
        let constant = |line: &str| header(line).map(|m| m.constant);
        assert_eq!(constant("00400000-00500000 r-xp 00000000 fe:00 123      /usr/bin/ctr"), Some(true));
        assert_eq!(constant("00400000-00500000 r--p 00000000 fe:00 123      /usr/bin/ctr"), Some(true));
        assert_eq!(constant("00400000-00500000 rw-p 00000000 fe:00 123      /usr/bin/ctr"), Some(false));
        assert_eq!(constant("7ffd0000-7ffe0000 r-xp 00000000 00:00 0        [vdso]"), Some(false));
        assert_eq!(constant("7ffd0000-7ffe0000 rw-p 00000000 00:00 0"), Some(false));
        assert_eq!(header("Size:                  4 kB"), None);
    }

    #[test]
    fn a_process_survives_it() {
        let text = String::from("still here");
        shed();
        assert_eq!(text, "still here");
    }
}
