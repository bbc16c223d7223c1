//! How many bodies a process moves from or to one host at a time, over all of its clients: a build may pull several images
//! at once, and registries turn away who asks for too much.
//!
//! Whoever waits for a slot to upload holds none to download – an upload's source is opened after its slot is had – so those who
//! copy between two registries cannot wait for one another.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Condvar, Mutex, PoisonError};

/// Bodies to or from a host at a time. More gain nothing on one connection's way.
pub(crate) const MAX_BODIES: usize = 8;

/// Which way a body goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Way {
    Down,
    Up,
}

type Place = (String, Way);

#[derive(Default)]
struct Slots {
    taken: Mutex<HashMap<Place, usize>>,
    freed: Condvar,
}

static SLOTS: std::sync::LazyLock<Slots> = std::sync::LazyLock::new(Slots::default);

/// The right to move one body; given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    place: Place,
}

impl Slot {
    /// Waits for one. It comes: every transfer has limits on its own waits.
    pub(crate) fn take(authority: &str, way: Way) -> Slot {
        let place = (authority.to_owned(), way);
        let taken = SLOTS.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |taken: &mut HashMap<Place, usize>| taken.get(&place).copied().unwrap_or(0) >= MAX_BODIES;
        let mut taken = SLOTS.freed.wait_while(taken, is_full).unwrap_or_else(PoisonError::into_inner);
        *taken.entry(place.clone()).or_default() += 1;
        drop(taken);
        Slot { place }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = SLOTS.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.place) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(taken.remove(&self.place)),
        }
        drop(taken);
        SLOTS.freed.notify_all();
    }
}

/// A body and its slot.
pub(crate) struct Held<R> {
    pub(crate) body: R,
    pub(crate) _slot: Slot,
}

impl<R: Read> Read for Held<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.body.read(buffer)
    }
}
