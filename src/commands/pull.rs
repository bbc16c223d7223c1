//! `ctr pull`.

use super::pulling;
use crate::context::Context;
use crate::error::CliError;
use clap::Parser;
use std::process::ExitCode;

/// Fetch an image from a registry
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Fetch all tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// The image's variant for a platform: os/arch[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Print the image's name only
    #[arg(short, long)]
    quiet: bool,
    /// Accept only a registry that proves who it is
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value = "true", default_missing_value = "true")]
    tls_verify: bool,
    /// The image
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    image: String,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    if args.all_tags {
        return Err(CliError::flag("--all-tags is not supported: pull the tags one by one"));
    }
    let mut request = pulling::request(&args.image, args.platform.as_deref())?;
    request.tls_verify = args.tls_verify;
    let name = request.reference.to_string();
    let has_tag = args.image.rsplit_once(':').is_some_and(|(_, tag)| !tag.contains('/'));
    if !args.quiet && !has_tag && request.reference.digest().is_none() {
        context.print("Using default tag: latest")?;
        context.flush()?;
    }
    let pulled = pulling::pull(context, &request, args.quiet, true)?;
    if !args.quiet {
        context.print(format_args!("Digest: {}", pulled.digest))?;
        let familiar = request.reference.familiar();
        context.print(match pulled.up_to_date {
            true => format!("Status: Image is up to date for {familiar}"),
            false => format!("Status: Downloaded newer image for {familiar}"),
        })?;
    }
    context.print(name)?;
    Ok(ExitCode::SUCCESS)
}
