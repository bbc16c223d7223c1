//! What a build tells while it goes on.

use std::time::Duration;

/// A step, counted from 0 in the order steps are announced. Steps of different stages may interleave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepId(pub usize);

/// Which of a step's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Something happened.
#[derive(Clone, Debug)]
pub enum BuildEvent {
    /// A step begins (its cache look-up included).
    StepStarted {
        /// Its number.
        step: StepId,
        /// How to show it: `[build 2/5] RUN make`.
        name: String,
    },
    /// A step wrote something; not necessarily whole lines.
    Output {
        /// The step.
        step: StepId,
        /// Which stream.
        stream: OutputStream,
        /// The bytes, as written.
        bytes: Vec<u8>,
    },
    /// How far a step has come, where that can be told (a pull, a large copy).
    Progress {
        /// The step.
        step: StepId,
        /// What is counted: a layer's short digest, `extracting`, …
        what: String,
        /// Bytes done.
        done_bytes: u64,
        /// Of how many; 0 if unknown.
        total_bytes: u64,
    },
    /// Why the step is not cached, where an earlier build had one like it: `COPY src: app.py changed`.
    CacheMiss {
        /// The step.
        step: StepId,
        /// The reason.
        why: String,
    },
    /// A step ended well.
    StepDone {
        /// The step.
        step: StepId,
        /// Its result was there already.
        cached: bool,
        /// From its start.
        duration: Duration,
    },
    /// A step failed; the [`crate::BuildError`] that follows says why.
    StepFailed {
        /// The step.
        step: StepId,
        /// One line.
        message: String,
        /// From its start.
        duration: Duration,
    },
    /// Something looks wrong but doesn't stop the build.
    Warning(Warning),
}

/// A lint finding or another remark about the Containerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The rule's name, as docker's: `JSONArgsRecommended`; empty where there is no rule.
    pub rule: &'static str,
    /// One line.
    pub message: String,
    /// Where in the Containerfile: `Containerfile:3`; none if it is about the whole build.
    pub location: Option<String>,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.rule.is_empty() {
            write!(f, "{}: ", self.rule)?;
        }
        f.write_str(&self.message)?;
        self.location.as_ref().map_or(Ok(()), |location| write!(f, " ({location})"))
    }
}
