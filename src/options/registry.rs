//! What every command that talks to a registry takes.

use crate::context::Context;
use std::path::PathBuf;

/// How a registry is spoken to.
#[derive(clap::Args, Debug)]
pub(crate) struct RegistryOptions {
    /// The file of logins, instead of docker's and podman's
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Accept only a registry that proves who it is
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value = "true", default_missing_value = "true")]
    tls_verify: bool,
}

impl RegistryOptions {
    /// Sets the context up; whether certificates are verified is for the request.
    pub(crate) fn apply(&self, context: &mut Context) -> bool {
        if let Some(file) = &self.authfile {
            context.set_authfile(file.clone());
        }
        self.tls_verify
    }
}
