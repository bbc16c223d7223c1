//! `ctr image tree`.

use crate::context::Context;
use crate::error::CliError;
use crate::output::units;
use clap::Parser;
use oci::{Digest, Reference};
use std::process::ExitCode;
use store::ImageSummary;

/// Show an image's layers, lowest first, with the images each of them ends
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Don't shorten ids
    #[arg(long)]
    no_trunc: bool,
    /// A name or id
    image: String,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let store = context.engine()?.store();
    let image = store.image(&args.image)?;
    let all = store.images()?;
    let sizes: Vec<u64> = store.layer_sizes(&image)?;
    let id = |digest: &Digest| if args.no_trunc { digest.to_string() } else { digest.short().to_owned() };
    context.print(format_args!("Image ID: {}", id(&image.id)))?;
    context.print(format_args!("Tags:     [{}]", familiar(&image.names)))?;
    context.print(format_args!("Size:     {}", units::size(image.size)))?;
    context.print("Image Layers")?;
    let diff_ids = &image.config.rootfs.diff_ids;
    for (at, (diff_id, size)) in diff_ids.iter().zip(sizes).enumerate() {
        let branch = if at + 1 == diff_ids.len() { "└──" } else { "├──" };
        let top = tops(&all, &diff_ids[..=at]);
        let top = if top.is_empty() { String::new() } else { format!(" Top Layer of: [{top}]") };
        context.print(format_args!("{branch} ID: {} Size: {}{top}", id(diff_id), units::size(size)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The names of the images that have just these layers.
fn tops(images: &[ImageSummary], layers: &[Digest]) -> String {
    let names: Vec<Reference> =
        images.iter().filter(|image| image.diff_ids == layers).flat_map(|image| image.names.clone()).collect();
    familiar(&names)
}

fn familiar(names: &[Reference]) -> String {
    names.iter().map(Reference::familiar).collect::<Vec<_>>().join(", ")
}
