//! A file's bytes, by the shortest way the two file systems allow: shared extents, a copy in the kernel, a loop.

use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

/// Below this size a read and a write are cheaper than finding out what else works.
const SMALL_BYTES: u64 = 64 << 10;

/// Copies all of `from` to the empty file `to`. `reflinks` is set to false once the file systems refuse them.
pub(super) fn copy(from: &mut File, to: &mut File, size_bytes: u64, reflinks: &mut bool) -> io::Result<()> {
    if size_bytes > SMALL_BYTES {
        if *reflinks {
            match rustix::fs::ioctl_ficlone(to.as_fd(), from.as_fd()) {
                Ok(()) => return Ok(()),
                Err(_) => *reflinks = false,
            }
        }
        if in_kernel(from, to)? {
            return Ok(());
        }
    }
    let mut buffer = vec![0; 128 << 10];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            n => to.write_all(&buffer[..n])?,
        }
    }
}

/// copy_file_range to the end of the file; false where it does not work between these two.
fn in_kernel(from: &File, to: &File) -> io::Result<bool> {
    let mut copied = false;
    loop {
        match rustix::fs::copy_file_range(from, None, to, None, 1 << 30) {
            Ok(0) => return Ok(copied),
            Ok(_) => copied = true,
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) if !copied => {
                return Ok(false);
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
