//! `ctr push`.

use super::{image_names, manifest_push};
use crate::context::Context;
use crate::error::CliError;
use crate::options::registry::RegistryOptions;
use crate::output::transfer::{ProgressKind, PushView, Show};
use clap::Parser;
use engine::PushRequest;
use std::process::ExitCode;

/// Send an image, or a manifest list with all it names, to a registry
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Send all tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// How to show what happens
    #[arg(long, value_name = "KIND", value_enum, default_value = "auto")]
    progress: ProgressKind,
    /// Print the image's name only
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    registry: RegistryOptions,
    /// The image
    #[arg(value_name = "NAME[:TAG]")]
    image: String,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let tls_verify = args.registry.apply(context);
    let show = Show { quiet: args.quiet, to_stdout: true, kind: args.progress };
    let reference = image_names::reference(&args.image)?;
    let references = match args.all_tags {
        false => {
            let has_tag = args.image.rsplit_once(':').is_some_and(|(_, tag)| !tag.contains('/'));
            if !args.quiet && !has_tag && args.progress != ProgressKind::Json {
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
        push(context, PushRequest { reference, tls_verify }, show)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends one image.
pub(super) fn push(context: &mut Context, request: PushRequest, show: Show) -> Result<(), CliError> {
    context.flush()?;
    let store = context.engine()?.store();
    if let Err(store::StoreError::NoSuchImage(_)) = store.image(&request.reference.to_string()) {
        if context.engine()?.has_list(&request.reference)? {
            return manifest_push::push(context, &request.reference, &request.reference, request.tls_verify, show);
        }
        let name = request.reference.familiar();
        return Err(CliError::new(format!("An image does not exist locally with the tag: {name}"))
            .with_hint("'ctr images' lists what there is, 'ctr tag' gives an image another name"));
    }
    let view = PushView::new(context, show);
    let result = context.engine()?.push(&request, &|event| view.event(&event));
    view.finish();
    let pushed = result.inspect_err(|error| view.failed(error))?;
    if show.quiet {
        return context.print(&request.reference);
    }
    let tag = request.reference.tag_or_digest();
    if show.kind == ProgressKind::Json {
        let aux = serde_json::json!({ "Tag": tag, "Digest": pushed.digest, "Size": pushed.size_bytes });
        return context.print(serde_json::json!({ "progressDetail": {}, "aux": aux }));
    }
    context.print(format_args!("{tag}: digest: {} size: {}", pushed.digest, pushed.size_bytes))
}
