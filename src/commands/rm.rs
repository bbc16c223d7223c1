//! `ctr rm`.

use crate::context::Context;
use crate::error::CliError;
use clap::Parser;
use std::process::ExitCode;

/// Remove containers
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Kill it if it runs; a missing one is no error
    #[arg(short, long)]
    force: bool,
    /// Remove its anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
    /// Not supported
    #[arg(short, long, hide = true)]
    link: bool,
    /// The containers
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    if args.link {
        return Err(CliError::flag("--link is not supported: there are no links, use a network"));
    }
    context.for_each(&args.containers, |context, name| {
        match context.engine()?.remove(name, args.force, args.volumes) {
            Ok(()) => Ok(Some(name.to_owned())),
            Err(error) if args.force && is_missing(&error) => {
                context.flush()?;
                context.report(&error.into());
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    })
}

fn is_missing(error: &engine::EngineError) -> bool {
    matches!(error, engine::EngineError::Store(store::StoreError::NoSuchContainer(_)))
}
