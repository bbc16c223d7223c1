//! When a container that has ended is started again.

use crate::RestartPolicy;
use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A container that was up for so long has recovered: the pause begins anew.
const RECOVERED: Duration = Duration::from_secs(10);

/// Counts restarts and spaces them out.
#[derive(Debug)]
pub(crate) struct Restarts {
    policy: RestartPolicy,
    count: u32,
    pause: Duration,
}

impl Restarts {
    pub(crate) fn new(policy: RestartPolicy) -> Restarts {
        Restarts { policy, count: 0, pause: FIRST_PAUSE }
    }

    /// How long to wait before the next start; None: it stays ended.
    pub(crate) fn pause_after(&mut self, exit_code: i32, up_for: Duration, stopped_by_user: bool) -> Option<Duration> {
        let wanted = match self.policy {
            RestartPolicy::No => false,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
            RestartPolicy::OnFailure(limit) => exit_code != 0 && (limit == 0 || self.count < limit),
        };
        if !wanted || stopped_by_user {
            return None;
        }
        if up_for >= RECOVERED {
            self.pause = FIRST_PAUSE;
            self.count = 0;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        self.count += 1;
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(1);

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_anew_after_ten_seconds() {
        let mut restarts = Restarts::new(RestartPolicy::Always);
        let pauses: Vec<u128> =
            (0..12).filter_map(|_| restarts.pause_after(0, SHORT, false)).map(|p| p.as_millis()).collect();
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[11], 60_000);
        assert_eq!(restarts.pause_after(0, RECOVERED, false), Some(FIRST_PAUSE));
        assert_eq!(restarts.pause_after(0, SHORT, true), None);
    }

    #[test]
    fn on_failure_counts() {
        let mut restarts = Restarts::new(RestartPolicy::OnFailure(2));
        assert_eq!(restarts.pause_after(0, SHORT, false), None);
        assert!(restarts.pause_after(1, SHORT, false).is_some());
        assert!(restarts.pause_after(1, SHORT, false).is_some());
        assert_eq!(restarts.pause_after(1, SHORT, false), None);
        assert_eq!(Restarts::new(RestartPolicy::No).pause_after(1, SHORT, false), None);
    }
}
