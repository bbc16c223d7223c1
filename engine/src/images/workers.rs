//! Layers side by side: a few threads take jobs off one list, and the first failure stops them all.

use crate::Result;
use registry_client::RegistryError;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Streams at a time. More than a handful gains nothing on one registry, and each holds a connection and buffers.
const MAX_STREAMS: usize = 6;

/// What the threads of one operation share.
#[derive(Default)]
pub(super) struct Outcome {
    stop: AtomicBool,
    first: Mutex<Option<crate::EngineError>>,
    /// What a registry said, before other layers wrapped it up: it has the better message and the hint.
    registry: Mutex<Option<RegistryError>>,
}

impl Outcome {
    /// Runs `job` for each of the jobs, the first ones first. The first error ends the others and is returned.
    pub(super) fn run<J: Sync>(&self, jobs: &[J], job: impl Fn(&J) -> Result<()> + Sync) -> Result<()> {
        let next = AtomicUsize::new(0);
        let work = || {
            while !self.stopped() {
                let Some(one) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                if let Err(error) = job(one) {
                    self.fail(error);
                }
            }
        };
        match jobs.len() {
            0 => {}
            1 => work(),
            count => std::thread::scope(|scope| {
                for _ in 0..count.min(MAX_STREAMS) {
                    scope.spawn(work);
                }
            }),
        }
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        first.map_or(Ok(()), Err)
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The first failure is the one to tell; those after it are its consequences.
    fn fail(&self, error: crate::EngineError) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner).take();
            *first = Some(registry.map_or(error, Into::into));
        }
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Keeps a registry's error aside and passes on a plain one.
    pub(super) fn note(&self, error: RegistryError) -> io::Error {
        let text = error.to_string();
        self.registry.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        io::Error::other(text)
    }
}

/// A stream that ends when another one has failed.
pub(super) struct Watched<R> {
    pub(super) inner: R,
    pub(super) outcome: Arc<Outcome>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.outcome.stopped() {
            return Err(io::Error::other("another layer has failed"));
        }
        self.inner.read(buffer).map_err(|error| match error.downcast::<RegistryError>() {
            Ok(registry) => self.outcome.note(registry),
            Err(other) => other,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::EngineError;

    #[test]
    fn all_jobs_are_done_and_the_first_failure_is_told() {
        let done = AtomicUsize::new(0);
        let jobs: Vec<usize> = (0..40).collect();
        Outcome::default()
            .run(&jobs, |_| {
                done.fetch_add(1, Ordering::SeqCst);
                Ok(())
            })
            .unwrap();
        assert_eq!(done.load(Ordering::SeqCst), 40);

        let begun = AtomicUsize::new(0);
        let outcome = Outcome::default();
        let error = outcome.run(&jobs, |job| {
            begun.fetch_add(1, Ordering::SeqCst);
            if *job == 3 {
                return Err(EngineError::Invalid("three".to_owned()));
            }
            while !outcome.stopped() {
                std::thread::yield_now();
            }
            Ok(())
        });
        assert_eq!(error.unwrap_err().to_string(), "three");
        assert!(begun.load(Ordering::SeqCst) <= MAX_STREAMS, "nothing is begun after a failure");
    }
}
