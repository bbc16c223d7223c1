//! Locks are flocks of files: whoever dies, however, leaves none behind.

use std::fs::File;

/// A held lock; let go by dropping it, or by dying.
#[derive(Debug)]
pub struct Lock {
    pub(crate) _file: File,
}
