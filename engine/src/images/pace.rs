//! Bodies of different sizes that end together.
//!
//! Side by side, each of an upload's bodies gets the same share of the registry's processors, which hashes them; in the end the
//! largest is alone on one of them while the others idle. So the rest, taken together, keeps behind the largest. On a network that
//! all of them share this changes nothing: whoever waits leaves his part to the others.

use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The largest is not waited for when it has stood still for so long: a connection that broke is being made again.
const STANDSTILL: Duration = Duration::from_millis(100);
/// The part of themselves by which the rest may be ahead: one in so many.
const LEAD: u128 = 32;

/// What the bodies of one upload know of each other.
#[derive(Debug, Default)]
pub(super) struct Pace {
    progress: Mutex<Progress>,
    moved: Condvar,
}

/// In bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    largest: u64,
    largest_done: u64,
    /// When the largest last moved; none before it began, or where it need not be sent.
    moved: Option<Instant>,
    /// All the others, those that have not begun too.
    rest: u64,
    rest_done: u64,
}

impl Pace {
    /// For bodies of these sizes, in bytes.
    pub(super) fn new(sizes: impl Iterator<Item = u64> + Clone) -> Arc<Pace> {
        let largest = sizes.clone().max().unwrap_or(0);
        let rest = sizes.filter(|size| *size != largest).fold(0u64, u64::saturating_add);
        let progress = Mutex::new(Progress { largest, rest, ..Progress::default() });
        Arc::new(Pace { progress, moved: Condvar::new() })
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn went(&self, is_largest: bool, bytes: u64) {
        let mut progress = self.progress();
        if !is_largest {
            progress.rest_done = progress.rest_done.saturating_add(bytes);
            return;
        }
        progress.largest_done = progress.largest_done.saturating_add(bytes);
        progress.moved = Some(Instant::now());
        self.moved.notify_all();
    }

    fn keep_behind(&self) {
        let mut progress = self.progress();
        while let Some(patience) = progress.patience() {
            (progress, _) = self.moved.wait_timeout(progress, patience).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Progress {
    /// How long the rest should wait for the largest to move; None: not at all.
    fn patience(&self) -> Option<Duration> {
        let [largest, done, rest, rest_done] =
            [self.largest, self.largest_done, self.rest, self.rest_done].map(u128::from);
        let is_ahead = rest_done * largest > done * rest + largest * rest / LEAD;
        let left = STANDSTILL.checked_sub(self.moved?.elapsed())?;
        (is_ahead && done < largest && !left.is_zero()).then_some(left)
    }
}

/// A body that keeps the pace.
pub(super) struct Paced<R> {
    inner: R,
    pace: Arc<Pace>,
    is_largest: bool,
}

impl<R> Paced<R> {
    /// One of `size_bytes`.
    pub(super) fn new(inner: R, pace: &Arc<Pace>, size_bytes: u64) -> Paced<R> {
        let is_largest = pace.progress().largest == size_bytes;
        Paced { inner, pace: pace.clone(), is_largest }
    }
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.is_largest {
            self.pace.keep_behind();
        }
        let count = self.inner.read(buffer)?;
        self.pace.went(self.is_largest, count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_waits_for_the_largest_alone() {
        let now = Instant::now;
        let sent =
            |largest_done, moved, rest_done| Progress { largest: 1000, largest_done, moved, rest: 500, rest_done };
        for (progress, waits) in [
            (sent(0, None, 500), false),
            (sent(0, Some(now()), 0), false),
            (sent(0, Some(now()), 15), false),
            (sent(0, Some(now()), 20), true),
            (sent(500, Some(now()), 250), false),
            (sent(500, Some(now()), 265), false),
            (sent(500, Some(now()), 270), true),
            (sent(500, now().checked_sub(STANDSTILL), 270), false),
            (sent(1000, Some(now()), 499), false),
            (sent(u64::MAX, Some(now()), u64::MAX), false),
            (Progress { moved: Some(now()), ..Progress::default() }, false),
        ] {
            assert_eq!(progress.patience().is_some(), waits, "{progress:?}");
        }
    }

    /// However fast the others are: the largest has sent its part when they end.
    #[test]
    fn bodies_end_together() {
        let sizes = [4_000_000_u64, 1_000_000, 500_000, 1000];
        let pace = Pace::new(sizes.iter().copied());
        let mut largest = Paced::new(io::repeat(0).take(sizes[0]), &pace, sizes[0]);
        let mut begun = [0; 1000];
        assert_eq!(largest.read(&mut begun).ok(), Some(1000));
        std::thread::scope(|scope| {
            for size in &sizes[1..] {
                let mut body = Paced::new(io::repeat(0).take(*size), &pace, *size);
                scope.spawn(move || assert_eq!(io::copy(&mut body, &mut io::sink()).ok(), Some(*size)));
            }
            let mut buffer = [0; 4096];
            while largest.read(&mut buffer).is_ok_and(|count| count > 0) {
                let progress = *pace.progress();
                let ahead = i128::from(progress.rest_done) * 4_000_000 / 1_501_000 - i128::from(progress.largest_done);
                // The lead, and the buffers of three readers.
                assert!(ahead < 4_000_000 / 32 + 3 * 4 * 8192 || progress.patience().is_none(), "{progress:?}");
            }
        });
        let progress = *pace.progress();
        assert_eq!((progress.largest_done, progress.rest_done), (sizes[0], sizes[1..].iter().sum()));
    }
}
