//! The grammars of flags' values: text in, types of the engine out. No effects but reading the files they name.

pub(crate) mod build_output;
pub(crate) mod change;
pub(crate) mod container;
mod container_spec;
pub(crate) mod env;
pub(crate) mod filter;
pub(crate) mod mount;
pub(crate) mod registry;
pub(crate) mod units;
pub(crate) mod values;
