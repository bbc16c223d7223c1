//! `ctr manifest inspect`.

use super::image_names;
use crate::context::Context;
use crate::error::CliError;
use crate::options::registry::RegistryOptions;
use crate::output::json::indented;
use clap::Parser;
use std::io::Write;
use std::process::ExitCode;

/// Show a manifest list made here, or what a registry has under a name
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Print the very bytes, which the digest is of
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    registry: RegistryOptions,
    /// A name, with a tag or digest
    #[arg(value_name = "NAME")]
    name: String,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let tls_verify = args.registry.apply(context);
    let name = image_names::reference(&args.name)?;
    let bytes = context.engine()?.inspect_manifest(&name, tls_verify)?;
    if args.raw {
        context.out().write_all(&bytes)?;
    } else {
        let text = indented(&String::from_utf8_lossy(&bytes));
        context.print(text)?;
    }
    Ok(ExitCode::SUCCESS)
}
