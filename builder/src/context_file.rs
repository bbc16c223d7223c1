//! Files of a folder that may be a stranger's, read for what they say. The recipe and the ignore file of a context: a link
//! leads to nothing outside. Those of layouts, which digests hold to what they are: nothing but regular files.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

/// The bytes of `name` in a context's folder; None where nothing is there.
pub(crate) fn read_in(context: &Path, name: &Path, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let opened = linux::resolve::open_root(context)
        .and_then(|root| linux::resolve::open_regular(root.as_fd(), name).map(File::from));
    match opened {
        Ok(file) => read_bounded(file, max_bytes).map(Some),
        Err(error) if matches!(error.errno, Errno::NOENT | Errno::NOTDIR) => {
            match context.join(name).symlink_metadata().is_ok_and(|meta| meta.is_symlink()) {
                // As if it were not there, an ignore file would hide nothing.
                true => Err(io::Error::other("it is a link that leads out of the context, or nowhere")),
                false => Ok(None),
            }
        }
        Err(error) if error.errno == Errno::INVAL => Err(irregular()),
        Err(error) => Err(error.into()),
    }
}

/// The bytes of a file that the user named; None where nothing is there.
pub(crate) fn read(path: &Path, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    match File::open(path) {
        Ok(file) => read_bounded(file, max_bytes).map(Some),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a file that is to be a regular one: a pipe would be waited for, a device may have no end.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(irregular());
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(irregular()) }
}

fn irregular() -> io::Error {
    io::Error::other("it is not a regular file")
}

fn read_bounded(file: File, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > max_bytes {
        true => Err(io::Error::other(format!("larger than {max_bytes} bytes"))),
        false => Ok(bytes),
    }
}
