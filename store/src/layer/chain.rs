//! Layers that depend on those below them. (See the end of this build; for now each layer stands alone.)

use crate::layout::Layout;
use crate::{Result, Store};
use oci::Digest;

impl Store {
    /// The folders' names of a chain of layers, lowest first.
    pub(crate) fn settle_chain(&self, diff_ids: &[Digest]) -> Result<Vec<String>> {
        Ok(diff_ids.iter().map(Layout::layer_name).collect())
    }
}
