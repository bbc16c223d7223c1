//! `--output type=local` and `type=tar`: the files of what was built, without an image around them.

use crate::Built;
use crate::error::BuildError;
use crate::layer::{LayerWriter, Placement, view};
use crate::step_error::{StepError, StepResult};
use crate::tree::{Manifest, Tree};
use engine::Engine;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

/// Copies all files of the result into a folder, which is made where missing. They belong to `owner`; what is there
/// already stays, unless a file of the result has its name.
pub fn export_files(built: &Built, folder: &Path, owner: (u32, u32)) -> Result<(), BuildError> {
    files(built, folder, owner).map_err(|error| failed(&error))
}

fn files(built: &Built, folder: &Path, owner: (u32, u32)) -> StepResult<()> {
    std::fs::create_dir_all(folder).map_err(|e| StepError::io("make the folder", folder, e))?;
    let Some(root) = view(&built.layers)? else { return Ok(()) };
    let tree = Tree::of_root(root, "result".to_owned()).unhashed();
    let manifest = Manifest::of(&tree, Path::new(""), &crate::ignore::IgnoreRules::default())?;
    let mut writer = LayerWriter::new(folder, None, owner, 0, None)?;
    let placement = Placement { owner: Some(owner), ..Placement::default() };
    writer.copy(&tree, Path::new(""), &manifest, Path::new(""), &placement)?;
    writer.finish().map(drop)
}

/// Writes all files of the result as one tar.
pub fn export_tar(engine: &Engine, built: &Built, out: &mut dyn Write) -> Result<(), BuildError> {
    let written = view(&built.layers).and_then(|root| {
        let root = root.as_ref().map(AsFd::as_fd);
        engine.store().tree_tar(root, out).map_err(StepError::from)
    });
    written.and_then(|()| out.flush().map_err(|e| StepError::io("write", "the tar", e))).map_err(|error| failed(&error))
}

fn failed(error: &StepError) -> BuildError {
    BuildError::Output { message: format!("cannot write the result: {error}") }
}
