//! What commands on images share.

use crate::error::CliError;
use oci::Reference;

/// A name as people type it.
pub(crate) fn reference(text: &str) -> Result<Reference, CliError> {
    text.parse().map_err(|e: oci::ReferenceError| CliError::new(e.to_string()))
}

/// A name that is to be given to an image: a tag, never a digest.
pub(crate) fn tag(text: &str) -> Result<Reference, CliError> {
    let reference = reference(text)?;
    match reference.digest() {
        None => Ok(reference),
        Some(_) => Err(CliError::new(format!("refusing to create a tag with a digest reference: {text}"))),
    }
}
