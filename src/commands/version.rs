//! `ctr version`.

use crate::context::Context;
use crate::error::CliError;
use crate::output::format::{compile, template_error};
use clap::Parser;
use serde_json::json;
use std::process::ExitCode;

/// Show the version
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// json, or a template: '{{.Client.Version}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let host = oci::Platform::host();
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let version = env!("CARGO_PKG_VERSION");
    // Client and server are one program here; scripts ask for either.
    let client = json!({ "Version": version, "Os": host.os, "Arch": host.architecture });
    let server = json!({ "Version": version, "Os": host.os, "Arch": host.architecture, "KernelVersion": kernel });
    let value = json!({ "Client": client, "Server": server });
    match args.format.as_deref() {
        Some("json") => context.print(&value)?,
        Some(format) if !format.is_empty() => {
            let text = compile(format)?.render(&value).map_err(template_error)?;
            context.print(text)?;
        }
        _ => {
            context.print(format_args!(" Version:         {version}"))?;
            context.print(format_args!(" OS/Arch:         {}/{}", host.os, host.architecture))?;
            context.print(format_args!(" Kernel:          {kernel}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
