//! `ctr login`.

use crate::context::{Context, read_stdin};
use crate::error::CliError;
use crate::options::registry::RegistryOptions;
use crate::terminal::prompt;
use clap::Parser;
use engine::{Kept, LoginRequest};
use std::process::ExitCode;

/// The longest password taken, in bytes: tokens can be long.
const MAX_PASSWORD_BYTES: u64 = 64 << 10;
const DEFAULT_REGISTRY: &str = "docker.io";

/// Log in to a registry
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Password or access token; other users of this machine can see it in the list of processes
    #[arg(short, long, value_name = "PASSWORD")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    registry: RegistryOptions,
    /// User name
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// The registry; Docker Hub where none is given
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let tls_verify = args.registry.apply(context);
    let registry = args.server.clone().unwrap_or_else(|| DEFAULT_REGISTRY.to_owned());
    let (username, password) = credentials(&args, &registry, context)?;
    if username.is_empty() || password.is_empty() {
        return Err(CliError::new(if username.is_empty() { "username is empty" } else { "password is empty" }));
    }
    let request = LoginRequest { registry, username, password, tls_verify };
    let kept_in = context.engine()?.login(&request)?;
    if let Kept::File(file) = &kept_in {
        context.say(format_args!(
            "WARNING! Your credentials are stored unencrypted in '{}'.\n\
             Configure a credential helper (credsStore) to remove this warning.",
            file.display()
        ));
    }
    context.print("Login Succeeded")?;
    Ok(ExitCode::SUCCESS)
}

fn credentials(args: &Args, registry: &str, context: &mut Context) -> Result<(String, String), CliError> {
    if args.password_stdin {
        if args.password.is_some() {
            return Err(CliError::flag("conflicting options: cannot specify both --password and --password-stdin"));
        }
        let Some(username) = args.username.clone() else {
            return Err(CliError::flag("the --password-stdin option requires --username to be set"));
        };
        let bytes = read_stdin(MAX_PASSWORD_BYTES)?;
        let text = String::from_utf8(bytes).map_err(|_| CliError::new("the password is not valid UTF-8"))?;
        return Ok((username, text.trim_end_matches(['\r', '\n']).to_owned()));
    }
    if args.password.is_some() {
        context.say("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    let username = match &args.username {
        Some(name) => name.clone(),
        None => {
            let known = context.engine()?.logged_in_as(registry)?;
            let question = known.as_ref().map_or("Username: ".to_owned(), |name| format!("Username ({name}): "));
            let typed = prompt::line(&question)?;
            if typed.is_empty() { known.unwrap_or_default() } else { typed }
        }
    };
    let password = match &args.password {
        Some(password) => password.clone(),
        None => prompt::password("Password: ")?,
    };
    Ok((username, password))
}
