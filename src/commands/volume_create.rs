//! `ctr volume create`.

use crate::context::Context;
use crate::error::CliError;
use crate::options::env;
use clap::Parser;
use std::process::ExitCode;

/// Make a volume
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// The driver: local
    #[arg(short, long, value_name = "DRIVER", default_value = "local", value_parser = ["local"])]
    driver: String,
    /// Set a label
    #[arg(long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// An option of the driver
    #[arg(short, long, value_name = "NAME=VALUE")]
    opt: Vec<String>,
    /// Its name; one is made up where none is given
    name: Option<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let labels = env::labels(&[], &args.label)?.into_iter().collect();
    let options = env::labels(&[], &args.opt)?.into_iter().collect();
    let volume = context.engine()?.store().create_volume(args.name.as_deref(), &labels, &options)?;
    context.print(volume.name)?;
    Ok(ExitCode::SUCCESS)
}
