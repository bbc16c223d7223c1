//! Layers: tars in, folders on disk, tars out.

pub(crate) mod chain;
pub(crate) mod commit;
pub(crate) mod extract;
pub(crate) mod ingest;
mod mapped;
pub(crate) mod read;
pub(crate) mod rows;
pub(crate) mod stream;
mod walk;
