//! `ctr pull`.

use super::pulling;
use crate::context::Context;
use crate::error::CliError;
use clap::Parser;
use engine::PullRequest;
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
    let mut requests = Vec::new();
    for name in pulling::names(context, &args.image)? {
        let request = pulling::request(&name, args.platform.as_deref())?;
        requests.push(PullRequest { tls_verify: args.tls_verify, ..request });
    }
    let Some(request) = requests.first().cloned() else { return Ok(ExitCode::SUCCESS) };
    if args.all_tags {
        return pull_all(&args, &request, context);
    }
    if !args.quiet && !has_tag(&args.image) && request.reference.digest().is_none() {
        context.print("Using default tag: latest")?;
        context.flush()?;
    }
    pull_one(&args, requests, context)?;
    Ok(ExitCode::SUCCESS)
}

fn has_tag(name: &str) -> bool {
    name.rsplit_once(':').is_some_and(|(_, tag)| !tag.contains('/'))
}

fn pull_one(args: &Args, requests: Vec<PullRequest>, context: &mut Context) -> Result<(), CliError> {
    let (request, pulled) = pulling::pull_first(context, requests, args.quiet, true)?;
    if !args.quiet {
        context.print(format_args!("Digest: {}", pulled.digest))?;
        context.print(pulling::status(&request, &pulled))?;
    }
    context.print(request.reference.to_string())?;
    context.flush()
}

/// Every tag of the repository, one after the other.
fn pull_all(args: &Args, request: &PullRequest, context: &mut Context) -> Result<ExitCode, CliError> {
    if has_tag(&args.image) || request.reference.digest().is_some() {
        return Err(CliError::flag("tag can't be used with --all-tags"));
    }
    let repository = request.reference.familiar_name();
    for tag in context.engine()?.remote_tags(&request.reference, args.tls_verify)? {
        let mut one = pulling::request(&format!("{repository}:{tag}"), args.platform.as_deref())?;
        one.tls_verify = args.tls_verify;
        pull_one(args, vec![one], context)?;
    }
    Ok(ExitCode::SUCCESS)
}
