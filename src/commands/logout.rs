//! `ctr logout`.

use crate::context::Context;
use crate::error::CliError;
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// Log out from a registry
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// The file of logins, instead of docker's and podman's
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// The registry; Docker Hub where none is given
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    if let Some(file) = args.authfile {
        context.set_authfile(file);
    }
    let server = args.server.as_deref().unwrap_or("docker.io");
    context.print(match context.engine()?.logout(server)? {
        true => format!("Removing login credentials for {server}"),
        false => format!("Not logged in to {server}"),
    })?;
    Ok(ExitCode::SUCCESS)
}
