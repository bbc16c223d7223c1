//! `ctr manifest push`.

use super::image_names;
use crate::context::Context;
use crate::error::CliError;
use crate::options::registry::RegistryOptions;
use crate::output::transfer::{CopyView, ProgressKind, Show};
use clap::Parser;
use oci::Reference;
use std::process::ExitCode;

/// Send a manifest list to a registry, with all the images it names
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// How to show what happens
    #[arg(long, value_name = "KIND", value_enum, default_value = "auto")]
    progress: ProgressKind,
    /// Forget the list afterwards
    #[arg(short, long)]
    purge: bool,
    /// Print the digest only
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    registry: RegistryOptions,
    /// The list
    #[arg(value_name = "LIST")]
    list: String,
    /// The name it gets at the registry, if it is another
    #[arg(value_name = "DESTINATION")]
    destination: Option<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let tls_verify = args.registry.apply(context);
    let name = image_names::tag(&args.list)?;
    let to = args.destination.as_deref().map(|to| to.strip_prefix("docker://").unwrap_or(to));
    let to = to.map(image_names::tag).transpose()?.unwrap_or_else(|| name.clone());
    let show = Show { quiet: args.quiet, to_stdout: true, kind: args.progress };
    push(context, &name, &to, tls_verify, show)?;
    if args.purge {
        context.engine()?.remove_list(&name)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends a list.
pub(super) fn push(
    context: &mut Context,
    name: &Reference,
    to: &Reference,
    tls_verify: bool,
    show: Show,
) -> Result<(), CliError> {
    context.flush()?;
    let view = CopyView::new(context, show);
    let result = context.engine()?.push_list(name, to, tls_verify, &|event| view.event(&event));
    view.finish();
    let pushed = result.inspect_err(|error| view.failed(error))?;
    let tag = to.tag_or_digest();
    match show.kind {
        _ if show.quiet => context.print(pushed.digest),
        ProgressKind::Json => {
            let aux = serde_json::json!({ "Tag": tag, "Digest": pushed.digest, "Size": pushed.size_bytes });
            context.print(serde_json::json!({ "progressDetail": {}, "aux": aux }))
        }
        _ => context.print(format_args!("{tag}: digest: {} size: {}", pushed.digest, pushed.size_bytes)),
    }
}
