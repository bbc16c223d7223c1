//! `ctr system df`.

use crate::context::Context;
use crate::error::CliError;
use crate::output::format::Listing;
use crate::output::units;
use clap::Parser;
use engine::Usage;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Show what takes space on the disk, and how much of it nothing needs
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// json, table, or a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let usage = context.engine()?.disk_usage()?;
    let kinds = [
        ("Images", usage.images),
        ("Containers", usage.containers),
        ("Local Volumes", usage.volumes),
        ("Build Cache", usage.build_cache),
    ];
    let listing = Listing {
        rows: kinds.iter().map(|(name, usage)| row(name, usage)).collect(),
        columns: vec![
            ("TYPE", "Type"),
            ("TOTAL", "TotalCount"),
            ("ACTIVE", "Active"),
            ("SIZE", "Size"),
            ("RECLAIMABLE", "Reclaimable"),
        ],
        titles: &[],
        id: "Type",
    };
    listing.print(context, args.format.as_deref(), false)?;
    Ok(ExitCode::SUCCESS)
}

fn row(name: &str, usage: &Usage) -> Value {
    let percent = (u128::from(usage.reclaimable_bytes) * 100).checked_div(u128::from(usage.bytes)).unwrap_or(0);
    json!({
        "Type": name,
        "TotalCount": usage.total.to_string(),
        "Active": usage.active.to_string(),
        "Size": units::size(usage.bytes),
        "Reclaimable": format!("{} ({percent}%)", units::size(usage.reclaimable_bytes)),
    })
}
