//! Pseudo-terminals of a container's own devpts.

use crate::CallError;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The magic number of devpts (statfs).
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
/// /dev/ptmx is character device 5:2 wherever it stands.
const PTMX: (u32, u32) = (5, 2);
/// Pty ends are character devices of these majors.
const PTY_MAJORS: std::ops::RangeInclusive<u32> = 136..=143;

/// Both ends of a new terminal.
#[derive(Debug)]
pub struct Pty {
    /// The end a terminal emulator holds.
    pub master: OwnedFd,
    /// The end the program holds.
    pub slave: OwnedFd,
}

/// Opens a terminal in the devpts mounted at `devpts` (an O_PATH folder). What is not devpts, or not its
/// ptmx, is refused: an image can put anything at these names.
pub fn open(devpts: BorrowedFd<'_>) -> Result<Pty, CallError> {
    let at = |call| move |errno| CallError::new(call, "/dev/pts/ptmx", errno);
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if i128::from(rustix::fs::fstatfs(devpts).map_err(at("fstatfs"))?.f_type) != i128::from(DEVPTS_SUPER_MAGIC) {
        return Err(CallError::new("fstatfs", "/dev/pts is not devpts", Errno::NODEV));
    }
    let master = rustix::fs::openat(devpts, "ptmx", flags, Mode::empty()).map_err(at("openat"))?;
    let device = rustix::fs::fstat(&master).map_err(at("fstat"))?.st_rdev;
    if (rustix::fs::major(device), rustix::fs::minor(device)) != PTMX {
        return Err(CallError::new("fstat", "/dev/pts/ptmx is not a terminal multiplexer", Errno::NODEV));
    }
    rustix::pty::unlockpt(&master).map_err(at("TIOCSPTLCK"))?;
    // TIOCGPTPEER opens the other end itself: no name to look up, nothing to swap.
    let peer = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, peer).map_err(at("TIOCGPTPEER"))?;
    let device = rustix::fs::fstat(&slave).map_err(at("fstat"))?.st_rdev;
    if !PTY_MAJORS.contains(&rustix::fs::major(device)) {
        return Err(CallError::new("fstat", "the terminal's other end is no pty", Errno::NODEV));
    }
    Ok(Pty { master, slave })
}

/// Sets a terminal's size in rows and columns.
pub fn set_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> Result<(), CallError> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).map_err(|e| CallError::new("TIOCSWINSZ", "", e))
}

/// Makes the terminal the controlling one of this (new) session.
pub fn make_controlling(terminal: BorrowedFd<'_>) -> Result<(), CallError> {
    rustix::process::ioctl_tiocsctty(terminal.as_fd()).map_err(|e| CallError::new("TIOCSCTTY", "", e))
}
