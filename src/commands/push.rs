//! `ctr push`.

use super::image_names;
use crate::context::Context;
use crate::error::CliError;
use crate::output::transfer::PushView;
use clap::Parser;
use engine::PushRequest;
use std::process::ExitCode;

/// Send an image to a registry
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Send all tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Print the image's name only
    #[arg(short, long)]
    quiet: bool,
    /// Accept only a registry that proves who it is
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value = "true", default_missing_value = "true")]
    tls_verify: bool,
    /// The image
    #[arg(value_name = "NAME[:TAG]")]
    image: String,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let reference = image_names::reference(&args.image)?;
    let references = match args.all_tags {
        false => {
            let has_tag = args.image.rsplit_once(':').is_some_and(|(_, tag)| !tag.contains('/'));
            if !args.quiet && !has_tag {
                context.print("Using default tag: latest")?;
            }
            vec![reference]
        }
        true => {
            let images = context.engine()?.store().images()?;
            let names = images.into_iter().flat_map(|i| i.names);
            let mut tags: Vec<_> = names.filter(|name| name.repository() == reference.repository()).collect();
            tags.sort();
            if tags.is_empty() {
                let name = reference.familiar_name();
                return Err(CliError::new(format!("An image does not exist locally with the tag: {name}")));
            }
            tags
        }
    };
    for reference in references {
        push(context, PushRequest { reference, tls_verify: args.tls_verify }, args.quiet)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends one image.
pub(super) fn push(context: &mut Context, request: PushRequest, quiet: bool) -> Result<(), CliError> {
    context.flush()?;
    let store = context.engine()?.store();
    if let Err(store::StoreError::NoSuchImage(_)) = store.image(&request.reference.to_string()) {
        let name = request.reference.familiar();
        return Err(CliError::new(format!("An image does not exist locally with the tag: {name}"))
            .with_hint("'ctr images' lists what there is, 'ctr tag' gives an image another name"));
    }
    let view = PushView::new(context, quiet);
    let result = context.engine()?.push(&request, &|event| view.event(&event));
    view.finish();
    let pushed = result?;
    if quiet {
        return context.print(&request.reference);
    }
    let tag = request.reference.tag_or_digest();
    context.print(format_args!("{tag}: digest: {} size: {}", pushed.digest, pushed.size_bytes))
}
