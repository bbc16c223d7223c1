//! `ctr search`, which there is not: a clear word instead of "unknown command".

use crate::context::Context;
use crate::error::CliError;
use clap::Parser;
use std::process::ExitCode;

/// Not available: registries have no common way to be searched
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Words
    #[arg(value_name = "TERM")]
    terms: Vec<String>,
}

pub(crate) fn run(args: Args, _: &mut Context) -> Result<ExitCode, CliError> {
    let words = args.terms.join("+");
    Err(CliError::new("search is not supported: the distribution API has no search, and Docker Hub's own is for its web site")
        .with_hint(format!(
            "look at https://hub.docker.com/search?q={words}; the tags of a repository: skopeo list-tags docker://NAME, or ctr pull -a NAME"
        )))
}
