//! `ctr tag`.

use super::image_names;
use crate::context::Context;
use crate::error::CliError;
use clap::Parser;
use std::process::ExitCode;

/// Give an image another name
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// A name or id
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    source: String,
    /// The new name
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    target: String,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let name = image_names::tag(&args.target)?;
    let store = context.engine()?.store();
    let image = store.image(&args.source)?;
    store.tag(&image.id, &name)?;
    Ok(ExitCode::SUCCESS)
}
