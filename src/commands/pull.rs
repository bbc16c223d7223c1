//! `ctr pull`.

use super::pulling;
use crate::context::Context;
use crate::error::CliError;
use crate::options::registry::RegistryOptions;
use crate::output::transfer::{ProgressKind, Show};
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
    /// How to show what happens
    #[arg(long, value_name = "KIND", value_enum, default_value = "auto")]
    progress: ProgressKind,
    /// Print the image's name only
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    registry: RegistryOptions,
    /// The image
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    image: String,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let tls_verify = args.registry.apply(context);
    let mut requests = Vec::new();
    for name in pulling::names(context, &args.image)? {
        let request = pulling::request(&name, args.platform.as_deref())?;
        requests.push(PullRequest { tls_verify, ..request });
    }
    let Some(request) = requests.first().cloned() else { return Ok(ExitCode::SUCCESS) };
    if args.all_tags {
        return pull_all(&args, &request, context);
    }
    if args.tells() && !has_tag(&args.image) && request.reference.digest().is_none() {
        context.print("Using default tag: latest")?;
        context.flush()?;
    }
    pull_one(&args, requests, context)?;
    Ok(ExitCode::SUCCESS)
}

fn has_tag(name: &str) -> bool {
    name.rsplit_once(':').is_some_and(|(_, tag)| !tag.contains('/'))
}

impl Args {
    /// Lines for people are printed.
    fn tells(&self) -> bool {
        !self.quiet && self.progress != ProgressKind::Json
    }
}

fn pull_one(args: &Args, requests: Vec<PullRequest>, context: &mut Context) -> Result<(), CliError> {
    let show = Show { quiet: args.quiet, to_stdout: true, kind: args.progress };
    let (request, pulled) = pulling::pull_first(context, requests, show)?;
    if args.progress == ProgressKind::Json && !args.quiet {
        let name = request.reference.to_string();
        let aux = serde_json::json!({ "Name": name, "Digest": pulled.digest, "ID": pulled.image_id });
        for line in [format!("Digest: {}", pulled.digest), pulling::status(&request, &pulled)] {
            context.print(serde_json::json!({ "status": line }))?;
        }
        context.print(serde_json::json!({ "aux": aux }))?;
        return context.flush();
    }
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
    for tag in context.engine()?.remote_tags(&request.reference, request.tls_verify)? {
        let mut one = pulling::request(&format!("{repository}:{tag}"), args.platform.as_deref())?;
        one.tls_verify = request.tls_verify;
        pull_one(args, vec![one], context)?;
    }
    Ok(ExitCode::SUCCESS)
}
