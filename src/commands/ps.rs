//! `ctr ps`.

use crate::context::Context;
use crate::error::CliError;
use crate::options::filter::Filters;
use crate::output::container_rows::{matches_filters, row};
use crate::output::format::Listing;
use clap::Parser;
use engine::{ContainerSummary, ListFilter};
use jiff::Timestamp;
use std::process::ExitCode;

const FILTERS: [&str; 12] = [
    "ancestor", "before", "exited", "expose", "health", "id", "label", "name", "network", "publish", "since", "status",
];

/// List containers
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Show those that don't run too
    #[arg(short, long)]
    all: bool,
    /// Only those that match: ancestor, before, exited, health, id, label, name, network, publish, since, status, volume
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// json, table, or a template: '{{.ID}} {{.Names}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// The N newest, running or not
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<i64>,
    /// The newest, running or not
    #[arg(short, long)]
    latest: bool,
    /// Don't shorten ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Show sizes
    #[arg(short, long)]
    size: bool,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let known: Vec<&str> = FILTERS.into_iter().chain(["volume"]).collect();
    let filters = Filters::parse(&args.filter, &known)?;
    let last = match (args.latest, args.last) {
        (true, _) => Some(1),
        (false, Some(n)) if n > 0 => usize::try_from(n).ok(),
        _ => None,
    };
    let by_state = filters.has("status") || filters.has("exited");
    let all = args.all || last.is_some() || by_state;
    let list = context.engine()?.list(&ListFilter { all: true, size: args.size })?;
    let chosen = choose(&list, &filters, all, last, context)?;
    let now = Timestamp::now();
    let size_column = args.size.then_some(("SIZE", "Size"));
    let listing = Listing {
        rows: chosen.iter().map(|c| row(c, now, args.no_trunc)).collect(),
        columns: [
            ("CONTAINER ID", "ID"),
            ("IMAGE", "Image"),
            ("COMMAND", "Command"),
            ("CREATED", "RunningFor"),
            ("STATUS", "Status"),
            ("PORTS", "Ports"),
            ("NAMES", "Names"),
        ]
        .into_iter()
        .chain(size_column)
        .collect(),
        titles: &[("CREATED AT", "CreatedAt"), ("LABELS", "Labels"), ("LOCAL VOLUMES", "LocalVolumes")],
        id: "ID",
    };
    listing.print(context, args.format.as_deref(), args.quiet)?;
    Ok(ExitCode::SUCCESS)
}

fn choose<'a>(
    list: &'a [ContainerSummary],
    filters: &Filters,
    all: bool,
    last: Option<usize>,
    context: &Context,
) -> Result<Vec<&'a ContainerSummary>, CliError> {
    let created = |key: &str| -> Result<Option<Timestamp>, CliError> {
        let Some(name) = filters.values(key).last() else { return Ok(None) };
        let id = context.engine()?.resolve(name)?;
        Ok(list.iter().find(|c| c.id == id).map(|c| c.created))
    };
    let (before, since) = (created("before")?, created("since")?);
    let images = ancestors(filters.values("ancestor"), context)?;
    for status in filters.values("status") {
        const KNOWN: [&str; 7] = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
        if !KNOWN.contains(&status.as_str()) {
            return Err(CliError::flag(format!("invalid filter 'status={status}'"))
                .with_hint(format!("known: {}", KNOWN.join(", "))));
        }
    }
    Ok(list
        .iter()
        .filter(|c| all || c.status.is_active())
        .filter(|c| before.is_none_or(|t| c.created < t) && since.is_none_or(|t| c.created > t))
        .filter(|c| images.as_ref().is_none_or(|ids| ids.iter().any(|id| *id == c.image_id || *id == c.image)))
        .filter(|c| matches_filters(c, filters))
        .take(last.unwrap_or(usize::MAX))
        .collect())
}

/// The ids (and names, for images that are gone) that `ancestor` filters mean; None without one.
fn ancestors(names: &[String], context: &Context) -> Result<Option<Vec<String>>, CliError> {
    if names.is_empty() {
        return Ok(None);
    }
    let mut ids = names.to_vec();
    for name in names {
        if let Ok(image) = context.engine()?.store().image(name) {
            ids.push(image.id.to_string());
        }
    }
    Ok(Some(ids))
}
