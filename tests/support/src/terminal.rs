//! A command on a real terminal, for what only a terminal has: job control, sizes, control keys.

use crate::Finished;
use crate::wait::{PATIENCE, wait_for_exit};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

/// A command whose stdin, stdout and stderr are a pseudo-terminal that the test holds the other end of.
pub struct Terminal {
    command: String,
    child: Child,
    master: File,
    output: Receiver<Vec<u8>>,
    /// What came and was not yet consumed by `expect`.
    pending: Vec<u8>,
    transcript: Vec<u8>,
    reaped: bool,
}

impl Terminal {
    #[track_caller]
    pub(crate) fn start(text: String, mut command: Command, rows: u16, columns: u16) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pty can be had");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("our own pty");
        let name = ptsname(&master, Vec::new()).expect("a pty has a name");
        tcsetwinsize(&master, winsize(rows, columns)).expect("a size can be set");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave: OwnedFd = rustix::fs::open(&name, flags, Mode::empty()).expect("the terminal's side opens");
        let stdio = || Stdio::from(slave.try_clone().expect("an fd can be copied"));
        command.env("TERM", "xterm").stdin(stdio()).stdout(stdio()).stderr(stdio());
        let child = command.spawn().unwrap_or_else(|error| panic!("starting {text}: {error}"));
        // The command holds copies of the terminal's side: they go, or the output would never end.
        drop(command);
        drop(slave);
        let master = File::from(master);
        let mut reader = master.try_clone().expect("an fd can be copied");
        let (send, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The end is EIO: the last holder of the terminal's side has gone.
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                let _ = send.send(buffer[..n].to_vec());
            }
        });
        Terminal { command: text, child, master, output, pending: Vec::new(), transcript: Vec::new(), reaped: false }
    }

    /// Types.
    #[track_caller]
    pub fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("the terminal takes input");
    }

    /// Reads on until `text` has appeared, and returns what came up to it.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.pending.windows(text.len().max(1)).position(|window| window == text.as_bytes());
            if let Some(at) = found {
                let before: Vec<u8> = self.pending.drain(..at + text.len()).collect();
                return String::from_utf8_lossy(&before).into_owned();
            }
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => {
                    self.pending.extend_from_slice(&bytes);
                    self.transcript.extend_from_slice(&bytes);
                }
                Err(why) => panic!("no {text:?} from `{}` ({why}); all of it:\n{}", self.command, self.transcript()),
            }
        }
    }

    /// Changes the window's size; the foreground job is told by SIGWINCH.
    pub fn resize(&self, rows: u16, columns: u16) {
        tcsetwinsize(&self.master, winsize(rows, columns)).expect("a size can be set");
    }

    /// The process id of the command.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid fits")
    }

    /// Waits for the command's end. Its whole output is the result's stdout.
    #[track_caller]
    pub fn wait(mut self) -> Finished {
        if !wait_for_exit(self.pid(), PATIENCE) {
            panic!("`{}` still ran after {PATIENCE:?}; all of it:\n{}", self.command, self.transcript());
        }
        let status = self.child.wait().expect("a child can be waited for");
        self.reaped = true;
        let deadline = Instant::now() + PATIENCE;
        while let Ok(bytes) = self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.transcript.extend_from_slice(&bytes);
        }
        let stdout = std::mem::take(&mut self.transcript);
        Finished { command: self.command.clone(), status, stdout, stderr: Vec::new() }
    }

    /// Whether the terminal is in raw mode at this moment (no echo, no line editing).
    pub fn is_raw(&self) -> bool {
        let modes = rustix::termios::tcgetattr(&self.master).expect("a terminal has modes");
        !modes.local_modes.intersects(rustix::termios::LocalModes::ICANON | rustix::termios::LocalModes::ECHO)
    }

    fn transcript(&self) -> String {
        String::from_utf8_lossy(&self.transcript).into_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn winsize(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
