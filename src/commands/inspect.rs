//! `ctr inspect`.

use super::inspection;
use crate::context::Context;
use crate::error::CliError;
use clap::Parser;
use serde_json::Value;
use std::process::ExitCode;

/// Show everything about containers, images, volumes or networks
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// json, or a template: '{{.State.Status}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Compute sizes
    #[arg(short, long)]
    size: bool,
    /// Only objects of this type: container, image, network, volume
    #[arg(long = "type", value_name = "TYPE", value_parser = ["container", "image", "network", "volume"])]
    kind: Option<String>,
    /// Names or ids
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let kind = args.kind.as_deref();
    inspection::print(context, &args.names, args.format.as_deref(), |context, name| look_up(context, kind, name, args.size))
}

type LookUp<'a> = &'a dyn Fn(&Context, &str) -> Result<Value, CliError>;

/// The first kind of thing that has this name.
fn look_up(context: &Context, kind: Option<&str>, name: &str, sizes: bool) -> Result<Value, CliError> {
    let kinds: [(&str, LookUp<'_>); 4] = [
        ("container", &|context, name| inspection::container(context, name, sizes)),
        ("image", &inspection::image),
        ("network", &inspection::network),
        ("volume", &inspection::volume),
    ];
    for (_, look_up) in kinds.iter().filter(|(name, _)| kind.is_none_or(|kind| kind == *name)) {
        match look_up(context, name) {
            Err(error) if error.is_not_found() => {}
            result => return result,
        }
    }
    Err(CliError::new(match kind {
        Some("network") => format!("network {name} not found"),
        Some("volume") => format!("no such volume: {name}"),
        Some(kind) => format!("No such {kind}: {name}"),
        None => format!("No such object: {name}"),
    }))
}
