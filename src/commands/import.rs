//! `ctr import`.

use super::image_names;
use crate::context::Context;
use crate::error::CliError;
use crate::options::change;
use crate::terminal::archive_input;
use clap::Parser;
use std::io::Read;
use std::process::ExitCode;
use store::ImportOptions;

/// Make an image of a tar of a root file system
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Apply a Containerfile instruction to the image: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR …
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// A note for the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// The platform it is for: os/arch[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// The tar (gzip and zstd are recognised), or - for standard input
    #[arg(value_name = "FILE|-")]
    file: String,
    /// The image's name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let names: Vec<_> = args.name.iter().map(|name| image_names::tag(name)).collect::<Result<_, _>>()?;
    let mut options = ImportOptions { message: args.message, ..ImportOptions::default() };
    for instruction in &args.change {
        change::apply(&mut options.config.config, instruction).map_err(CliError::flag)?;
    }
    let platform = match &args.platform {
        Some(text) => text.parse().map_err(|e: oci::PlatformError| CliError::flag(e.to_string()))?,
        None => oci::Platform::host(),
    };
    options.config.architecture = platform.architecture;
    options.config.os = platform.os;
    options.config.variant = platform.variant;
    if args.file.starts_with("http://") || args.file.starts_with("https://") {
        return Err(CliError::new("importing from a URL is not supported")
            .with_hint(format!("try: curl -L {} | ctr import -", args.file)));
    }
    let mut reader: Box<dyn Read> = match args.file.as_str() {
        "-" => Box::new(archive_input("cannot read a tar")?),
        path => Box::new(std::fs::File::open(path).map_err(|e| CliError::io("open", path, &e))?),
    };
    let id = context.engine()?.store().import_tar(&mut reader, &names, &options)?;
    context.print(id)?;
    Ok(ExitCode::SUCCESS)
}
