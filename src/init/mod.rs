//! `ctr init`: what a project is, and the files that build it. Looking and writing are apart: [`detect`] reads, the
//! templates are text.

mod detect;
mod templates;

use detect::{Kind, Manager, Project};

pub(crate) use detect::detect;
pub(crate) use templates::plan;
