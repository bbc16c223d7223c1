//! `ctr volume ls`.

use crate::context::Context;
use crate::error::CliError;
use crate::options::filter::Filters;
use crate::output::format::Listing;
use clap::Parser;
use serde_json::json;
use std::process::ExitCode;

/// List volumes
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Only those that match: dangling, label, name
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// json, table, or a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let filters = Filters::parse(&args.filter, &["dangling", "label", "name"])?;
    let dangling = filters.truth("dangling")?;
    let store = context.engine()?.store();
    let mut rows = Vec::new();
    for volume in store.volumes()? {
        let keeps = filters.any("name", |name| volume.name.contains(name)) && filters.labels(&volume.labels);
        let wanted = match dangling {
            Some(wanted) => store.volume_users(&volume.name)?.is_empty() == wanted,
            None => true,
        };
        if keeps && wanted {
            let labels: Vec<String> = volume.labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
            rows.push(json!({
                "Driver": "local",
                "Name": volume.name,
                "Labels": labels.join(","),
                "Mountpoint": store.volume_data(&volume.name).display().to_string(),
                "Scope": "local",
            }));
        }
    }
    let listing =
        Listing { rows, columns: vec![("DRIVER", "Driver"), ("VOLUME NAME", "Name")], titles: &[], id: "Name" };
    listing.print(context, args.format.as_deref(), args.quiet)?;
    Ok(ExitCode::SUCCESS)
}
