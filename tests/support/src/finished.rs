//! A command that has ended, and what a test may ask of it.

use std::fmt;
use std::process::ExitStatus;

/// The outcome of one command. The checks return it again, so that they chain.
#[derive(Debug, Clone)]
pub struct Finished {
    pub(crate) command: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Finished {
    /// It ended with 0.
    #[track_caller]
    pub fn ok(self) -> Finished {
        assert!(self.status.success(), "expected success of {self}");
        self
    }

    /// It ended with exactly this code, and without a Rust panic.
    #[track_caller]
    pub fn fails(self, code: i32) -> Finished {
        assert!(!self.stderr().contains("panicked at"), "a panic in {self}");
        assert_eq!(self.status.code(), Some(code), "expected exit code {code} of {self}");
        self
    }

    /// It ended with one of these codes, where more than one is right.
    #[track_caller]
    pub fn either(self, codes: &[i32]) -> Finished {
        assert!(!self.stderr().contains("panicked at"), "a panic in {self}");
        assert!(codes.contains(&self.code()), "expected one of the exit codes {codes:?} of {self}");
        self
    }

    /// Its stdout is empty.
    #[track_caller]
    pub fn prints_nothing(self) -> Finished {
        assert!(self.stdout.is_empty(), "expected an empty stdout of {self}");
        self
    }

    /// Its stdout has `text` somewhere.
    #[track_caller]
    pub fn prints(self, text: &str) -> Finished {
        assert!(self.stdout().contains(text), "expected {text:?} on the stdout of {self}");
        self
    }

    /// Its stderr has `text` somewhere (letters' case aside).
    #[track_caller]
    pub fn says(self, text: &str) -> Finished {
        assert!(
            self.stderr().to_lowercase().contains(&text.to_lowercase()),
            "expected {text:?} on the stderr of {self}"
        );
        self
    }

    /// What a good error is: something on stderr, few lines, no Debug print, no panic.
    #[track_caller]
    pub fn says_it_plainly(self) -> Finished {
        let text = self.stderr();
        let lines = text.lines().filter(|line| !line.trim().is_empty()).count();
        assert!((1..=4).contains(&lines), "expected one clear message from {self}");
        for ugly in ["panicked at", "RUST_BACKTRACE", "Os {", "Error(", "Some(", "Err("] {
            assert!(!text.contains(ugly), "expected no {ugly:?} from {self}");
        }
        self
    }

    /// Standard output as text.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Standard output as it came.
    pub fn bytes(&self) -> &[u8] {
        &self.stdout
    }

    /// Standard output without the white space around it: an id, a port, one word.
    pub fn text(&self) -> String {
        self.stdout().trim().to_owned()
    }

    /// Standard output, line by line.
    pub fn lines(&self) -> Vec<String> {
        self.stdout().lines().map(str::to_owned).collect()
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}) from {self}"))
    }

    /// The exit code; 128 + n for a signal.
    pub fn code(&self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`\n{}", self.command, self.status)?;
        write!(f, "\n--- stdout\n{}\n--- stderr\n{}\n---", self.stdout(), self.stderr())
    }
}
