//! `ctr manifest rm`.

use super::image_names;
use crate::context::Context;
use crate::error::CliError;
use clap::Parser;
use std::process::ExitCode;

/// Forget manifest lists; their images stay
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Lists
    #[arg(value_name = "LIST", required = true)]
    lists: Vec<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    context.for_each(&args.lists, |context, list| {
        context.engine()?.remove_list(&image_names::tag(list)?)?;
        Ok(Some(list.to_owned()))
    })
}
