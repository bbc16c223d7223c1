//! A command that runs beside the test.

use crate::wait::{PATIENCE, wait_for_exit};
use crate::{Finished, TestEnv};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A command in the background. Its output is read all the time (it never blocks on a full pipe)
/// and handed out line by line. Dropped, it is killed.
pub struct Running {
    command: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
    reaped: bool,
}

impl Running {
    pub(crate) fn new(command: String, mut child: Child) -> Running {
        let (send, lines) = channel();
        let stdout = Arc::new(Mutex::new(Vec::new()));
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let mut readers = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            readers.push(follow(pipe, Arc::clone(&stdout), Some(send)));
        }
        if let Some(pipe) = child.stderr.take() {
            readers.push(follow(pipe, Arc::clone(&stderr), None));
        }
        let stdin = child.stdin.take();
        Running { command, child, stdin, lines, stdout, stderr, readers, reaped: false }
    }

    /// The process id of the command itself.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid fits")
    }

    /// The next line of stdout, without its end.
    #[track_caller]
    pub fn line(&mut self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(why) => panic!("no further line from `{}` ({why})\n{}", self.command, self.output()),
        }
    }

    /// Reads on until a line of stdout contains `text`, and returns that line.
    #[track_caller]
    pub fn line_with(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(text) => return line,
                Ok(_) => {}
                Err(why) => panic!("no line with {text:?} from `{}` ({why})\n{}", self.command, self.output()),
            }
        }
    }

    /// Writes to its stdin.
    #[track_caller]
    pub fn write(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("started with a stdin");
        stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).expect("the command reads its stdin");
    }

    pub(crate) fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.stdin.take()
    }

    /// Ends its stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Sends a signal to the command itself.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid()).expect("a child has a pid");
        kill_process(pid, signal).expect("a child that was not reaped can be signalled");
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(self) -> Finished {
        self.wait_within(PATIENCE)
    }

    /// Waits for its end, at most so long; kills it and fails the test after that.
    #[track_caller]
    pub fn wait_within(mut self, limit: Duration) -> Finished {
        self.stdin = None;
        if !wait_for_exit(self.pid(), limit) {
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.reaped = true;
            panic!("`{}` still ran after {limit:?}\n{}", self.command, self.output());
        }
        let status = self.child.wait().expect("a child can be waited for");
        self.reaped = true;
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        Finished {
            command: self.command.clone(),
            status,
            stdout: std::mem::take(&mut self.stdout.lock().unwrap()),
            stderr: std::mem::take(&mut self.stderr.lock().unwrap()),
        }
    }

    /// kill -9, and its end awaited: what a crash test does.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.reaped = true;
    }

    fn output(&self) -> String {
        let text = |bytes: &Mutex<Vec<u8>>| String::from_utf8_lossy(&bytes.lock().unwrap()).into_owned();
        format!("--- stdout\n{}\n--- stderr\n{}\n---", text(&self.stdout), text(&self.stderr))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Reads a pipe to its end on a thread of its own.
fn follow(pipe: impl Read + Send + 'static, all: Arc<Mutex<Vec<u8>>>, lines: Option<Sender<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(n) if n > 0) {
            all.lock().unwrap().extend_from_slice(&line);
            if let Some(lines) = &lines {
                let _ = lines.send(String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned());
            }
            line.clear();
        }
    })
}

impl TestEnv {
    /// Starts `ctr` beside the test, its stdin held open.
    #[track_caller]
    pub fn spawn(&self, args: impl crate::IntoArgs) -> Running {
        self.invoke(args).spawn()
    }
}
