//! `ctr builder du`.

use crate::context::Context;
use crate::error::CliError;
use crate::output::format::Listing;
use crate::output::container_rows::since;
use crate::output::units;
use clap::Parser;
use jiff::Timestamp;
use serde_json::json;
use std::collections::BTreeSet;
use std::process::ExitCode;

/// Show what the build cache takes on the disk
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// json, table, or a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let store = context.engine()?.store();
    let of_images: BTreeSet<_> = store.images()?.into_iter().flat_map(|image| image.diff_ids).collect();
    let sizes = store.layer_usage()?;
    let now = Timestamp::now();
    let mut seen = BTreeSet::new();
    let mut rows = Vec::new();
    for entry in store.cache_entries()?.into_iter().rev() {
        for layer in entry.diff_ids.iter().filter(|layer| seen.insert((*layer).clone())) {
            rows.push(json!({
                "ID": layer.short(),
                "Reclaimable": !of_images.contains(layer),
                "Size": units::size(sizes.get(layer).copied().unwrap_or(0)),
                "LastUsed": format!("{} ago", units::duration(since(entry.used, now))),
            }));
        }
    }
    let columns = vec![("ID", "ID"), ("RECLAIMABLE", "Reclaimable"), ("SIZE", "Size"), ("LAST ACCESSED", "LastUsed")];
    Listing { rows, columns, titles: &[], id: "ID" }.print(context, args.format.as_deref(), false)?;
    Ok(ExitCode::SUCCESS)
}
