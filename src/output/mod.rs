//! How results look: tables, formats, units, progress.

pub(crate) mod build_json;
pub(crate) mod build_view;
pub(crate) mod container_rows;
pub(crate) mod format;
pub(crate) mod json;
pub(crate) mod table;
pub(crate) mod template;
pub(crate) mod transfer;
pub(crate) mod units;
