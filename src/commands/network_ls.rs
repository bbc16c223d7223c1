//! `ctr network ls`.

use crate::context::Context;
use crate::error::CliError;
use crate::output::format::Listing;
use clap::Parser;
use serde_json::json;
use std::process::ExitCode;

/// List networks
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// json, table, or a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Don't shorten ids
    #[arg(long)]
    no_trunc: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let networks = context.engine()?.store().networks()?;
    let short = |id: &str| if args.no_trunc { id.to_owned() } else { id.chars().take(12).collect() };
    let mut rows: Vec<_> = networks.iter().map(|n| (n.name.clone(), short(&n.id), "bridge")).collect();
    // These are there always, and need nothing kept.
    for name in ["host", "none"] {
        let id = oci::Digest::sha256(format!("network {name}"));
        rows.push((name.to_owned(), short(id.hex()), if name == "none" { "null" } else { "host" }));
    }
    rows.sort();
    let listing = Listing {
        rows: rows
            .into_iter()
            .map(|(name, id, driver)| json!({ "ID": id, "Name": name, "Driver": driver, "Scope": "local" }))
            .collect(),
        columns: vec![("NETWORK ID", "ID"), ("NAME", "Name"), ("DRIVER", "Driver"), ("SCOPE", "Scope")],
        titles: &[],
        id: "ID",
    };
    listing.print(context, args.format.as_deref(), args.quiet)?;
    Ok(ExitCode::SUCCESS)
}
