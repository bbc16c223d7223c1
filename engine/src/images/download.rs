//! Files at http addresses, through the same stack as registries: certificates, proxies, limits.

use crate::{Engine, Result};
use registry_client::{Download, Validators};

impl Engine {
    /// Begins to fetch the file at an http or https address, without any login; None: it is still what `known` describes.
    pub fn download(&self, address: &str, known: Option<&Validators>) -> Result<Option<Download>> {
        Ok(self.registry(true)?.download(address, known)?)
    }
}
