//! `ctr manifest create`.

use super::image_names;
use crate::context::Context;
use crate::error::CliError;
use crate::options::registry::RegistryOptions;
use clap::Parser;
use std::process::ExitCode;

/// Make a manifest list of images for several platforms
///
/// An image is one of the store, by name or id, or else one of a registry; of an index all images are taken. A platform
/// has one image in the list.
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Add to a list that is there; an image takes the place of the one for the same platform
    #[arg(short, long)]
    amend: bool,
    #[command(flatten)]
    registry: RegistryOptions,
    /// The list's name
    #[arg(value_name = "LIST")]
    list: String,
    /// Images
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let tls_verify = args.registry.apply(context);
    let name = image_names::tag(&args.list)?;
    context.engine()?.create_list(&name, &args.images, args.amend, tls_verify)?;
    context.print(format_args!("Created manifest list {name}"))?;
    Ok(ExitCode::SUCCESS)
}
