//! `--jobs`: how many steps are carried out at once. Only what does work takes a place – never a stage that waits for
//! another – so nobody waits in a circle.

use super::lock;
use std::sync::{Condvar, Mutex, PoisonError};

/// Places for steps that run.
pub(super) struct Jobs {
    /// None: as many as there are.
    limit: Option<usize>,
    busy: Mutex<usize>,
    freed: Condvar,
}

/// A place; given back when dropped.
pub(super) struct Place<'a>(&'a Jobs);

impl Jobs {
    /// 0 is no limit.
    pub(super) fn new(limit: usize) -> Jobs {
        Jobs { limit: (limit > 0).then_some(limit), busy: Mutex::new(0), freed: Condvar::new() }
    }

    /// Waits for a place.
    pub(super) fn enter(&self) -> Place<'_> {
        let busy = lock(&self.busy);
        let is_full = |busy: &mut usize| self.limit.is_some_and(|limit| *busy >= limit);
        let mut busy = self.freed.wait_while(busy, is_full).unwrap_or_else(PoisonError::into_inner);
        *busy += 1;
        Place(self)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *lock(&self.0.busy) -= 1;
        self.0.freed.notify_one();
    }
}
