//! `ctr builder du`.

use super::builder_filter::{self, CacheFilter};
use crate::context::Context;
use crate::error::CliError;
use crate::output::container_rows::since;
use crate::output::format::Listing;
use crate::output::table::printable;
use crate::output::units;
use builder::{CacheItem, CacheKind};
use clap::Parser;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Show what the build cache takes on the disk
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Only what matches: description, id, inuse, mutable, private, shared, type, until
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// json, table, or a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// All that is known of each, and the sums
    #[arg(long)]
    verbose: bool,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let filter = CacheFilter::parse(&args.filter)?;
    let now = Timestamp::now();
    let items: Vec<CacheItem> =
        builder::cache_items(context.engine()?.store())?.into_iter().filter(|item| filter.matches(item)).collect();
    if args.verbose && args.format.is_none() {
        return verbose(&items, now, context);
    }
    let rows = items.iter().map(|item| row(item, now)).collect();
    let columns = vec![
        ("ID", "ID"),
        ("RECLAIMABLE", "Reclaimable"),
        ("SIZE", "Size"),
        ("LAST ACCESSED", "LastUsed"),
        ("TYPE", "Type"),
    ];
    let titles = &[("DESCRIPTION", "Description"), ("SHARED", "Shared"), ("MUTABLE", "Mutable"), ("IN USE", "InUse")];
    Listing { rows, columns, titles, id: "ID" }.print(context, args.format.as_deref(), false)?;
    Ok(ExitCode::SUCCESS)
}

fn row(item: &CacheItem, now: Timestamp) -> Value {
    json!({
        "ID": item.id,
        "Type": item.kind.name(),
        "Description": item.description,
        "Mutable": item.kind == CacheKind::Mount,
        "Reclaimable": builder_filter::is_reclaimable(item),
        "Shared": item.is_shared,
        "InUse": item.in_use,
        "Size": units::size(item.bytes),
        "LastUsed": format!("{} ago", units::duration(since(item.used, now))),
    })
}

/// A block of lines for each, and the sums, as docker has them.
fn verbose(items: &[CacheItem], now: Timestamp, context: &mut Context) -> Result<ExitCode, CliError> {
    for item in items {
        let mut lines = vec![("ID", item.id.clone())];
        lines.extend(item.created.map(|time| ("Created at", time.to_string())));
        lines.extend([
            ("Mutable", (item.kind == CacheKind::Mount).to_string()),
            ("Reclaimable", builder_filter::is_reclaimable(item).to_string()),
            ("Shared", item.is_shared.to_string()),
            ("Size", units::size(item.bytes)),
            ("Description", item.description.clone()),
            ("Last used", format!("{} ago", units::duration(since(item.used, now)))),
            ("Type", item.kind.name().to_owned()),
        ]);
        for (title, value) in lines {
            context.print(format_args!("{:<16}{}", format!("{title}:"), printable(&value)))?;
        }
        context.print("")?;
    }
    let sum = |wanted: &dyn Fn(&&CacheItem) -> bool| {
        units::size(items.iter().filter(wanted).map(|item| item.bytes).sum())
    };
    context.print(format_args!("{:<16}{}", "Shared:", sum(&|item| item.is_shared)))?;
    context.print(format_args!("{:<16}{}", "Private:", sum(&|item| !item.is_shared)))?;
    context.print(format_args!("{:<16}{}", "Reclaimable:", sum(&|item| builder_filter::is_reclaimable(item))))?;
    context.print(format_args!("{:<16}{}", "Total:", sum(&|_| true)))?;
    Ok(ExitCode::SUCCESS)
}
