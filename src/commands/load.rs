//! `ctr load`.

use crate::context::Context;
use crate::error::CliError;
use crate::terminal::archive_input;
use clap::Parser;
use std::io::Read;
use std::process::ExitCode;

/// Load images from an archive (docker's or OCI's, gzip and zstd are recognised)
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Read this file instead of standard input
    #[arg(short, long, value_name = "FILE")]
    input: Option<String>,
    /// Don't say what was loaded
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let mut reader: Box<dyn Read> = match args.input.as_deref() {
        None | Some("-") => Box::new(archive_input("cannot load")?),
        Some(path) => Box::new(std::fs::File::open(path).map_err(|e| CliError::io("open", path, &e))?),
    };
    let loaded = context.engine()?.store().load(&mut reader)?;
    if args.quiet {
        return Ok(ExitCode::SUCCESS);
    }
    for image in loaded {
        for name in &image.names {
            context.print(format_args!("Loaded image: {}", name.familiar()))?;
        }
        if image.names.is_empty() {
            context.print(format_args!("Loaded image ID: {}", image.id))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
