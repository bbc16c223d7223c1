//! `ctr copy`.

use crate::context::Context;
use crate::error::CliError;
use crate::options::registry::RegistryOptions;
use crate::output::transfer::{CopyView, ProgressKind, Show};
use clap::Parser;
use engine::{Copied, CopyRequest, Place, PlaceError, Platforms};
use oci::Platform;
use std::process::ExitCode;

/// Copy an image between registries, archives, layouts and the store, as it is
///
/// Places go by skopeo's names: docker://NAME (a registry), oci:FOLDER[:NAME], oci-archive:FILE[:NAME],
/// docker-archive:FILE[:NAME]; ctr:NAME or a name alone is an image of the store. No byte of a manifest changes, and
/// nothing is unpacked but what goes into the store.
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Copy an index with all it names, instead of the one image for this machine
    #[arg(short, long, conflicts_with = "platform")]
    all: bool,
    /// The image for this platform, of an index: os/arch[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// How to show what happens
    #[arg(long, value_name = "KIND", value_enum, default_value = "auto")]
    progress: ProgressKind,
    /// Print the digest only
    #[arg(short, long)]
    quiet: bool,
    /// The same as --tls-verify, for the source alone
    #[arg(long, value_name = "BOOL")]
    src_tls_verify: Option<bool>,
    /// The same as --tls-verify, for the destination alone
    #[arg(long, value_name = "BOOL")]
    dest_tls_verify: Option<bool>,
    #[command(flatten)]
    registry: RegistryOptions,
    /// From where
    #[arg(value_name = "SOURCE")]
    source: String,
    /// To where
    #[arg(value_name = "DESTINATION")]
    destination: String,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let tls_verify = args.registry.apply(context);
    let place = |text: &str| text.parse::<Place>().map_err(|e: PlaceError| CliError::new(e.to_string()));
    let platform = args.platform.as_deref().map(str::parse::<Platform>).transpose();
    let platform = platform.map_err(|e| CliError::flag(e.to_string()))?.unwrap_or_else(Platform::host);
    let request = CopyRequest {
        from: place(&args.source)?,
        to: place(&args.destination)?,
        platforms: if args.all { Platforms::All } else { Platforms::One(platform) },
        from_tls_verify: args.src_tls_verify.unwrap_or(tls_verify),
        to_tls_verify: args.dest_tls_verify.unwrap_or(tls_verify),
    };
    let show = Show { quiet: args.quiet, to_stdout: true, kind: args.progress };
    let view = CopyView::new(context, show);
    let result = context.engine()?.copy(&request, &|event| view.event(&event));
    view.finish();
    let Copied { digest, size_bytes } = result.inspect_err(|error| view.failed(error))?;
    if args.progress == ProgressKind::Json && !args.quiet {
        context.print(serde_json::json!({ "aux": { "Digest": digest, "Size": size_bytes } }))?;
    } else if args.quiet {
        context.print(digest)?;
    } else {
        context.print(format_args!("Copied {} to {}: {digest} size: {size_bytes}", request.from, request.to))?;
    }
    Ok(ExitCode::SUCCESS)
}
