//! `create`: image config × command line → a container's record.

use crate::{ContainerSpec, Engine, Result};

/// A created container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its full id, 64 hex digits.
    pub id: String,
    /// Its name, given or made up.
    pub name: String,
    /// What was not done as asked, but was no reason to fail.
    pub warnings: Vec<String>,
}

impl Engine {
    /// Makes a container of an image that is there. Fails with [`store`]'s `No such image` where it is not: the caller
    /// may pull and try again.
    pub fn create(&self, spec: &ContainerSpec) -> Result<Created> {
        let _ = spec;
        todo!()
    }
}
