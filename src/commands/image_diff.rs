//! `ctr image diff`.

use crate::context::Context;
use crate::error::CliError;
use crate::output::table::{ellipsis, printable};
use crate::output::units;
use clap::Parser;
use serde_json::json;
use std::process::ExitCode;
use store::{Change, ChangeKind, Image, LayerChanges};

/// Show what each layer of an image added (A), changed (C) and removed (D), with sizes
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Print the layers alone, without their files
    #[arg(short, long)]
    summary: bool,
    /// json: a line for each layer
    #[arg(long, value_name = "FORMAT", value_parser = ["json"])]
    format: Option<String>,
    /// A name or id
    image: String,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let store = context.engine()?.store();
    let image = store.image(&args.image)?;
    let layers = store.changes(&image)?;
    let made = makers(&image);
    for (layer, made) in layers.iter().zip(made.iter().map(String::as_str).chain(std::iter::repeat(""))) {
        if args.format.is_some() {
            context.print(as_json(layer, made, args.summary))?;
            continue;
        }
        context.print(heading(layer, made))?;
        for change in layer.changes.iter().filter(|_| !args.summary) {
            let path = String::from_utf8_lossy(&change.path);
            // A name is the image's: it neither forges lines nor speaks to the terminal.
            context.print(format_args!("{} {:>8}  /{}", letter(change), units::size(change.bytes), printable(&path)))?;
        }
    }
    if args.format.is_none() {
        let sum = |of: fn(&LayerChanges) -> u64| layers.iter().map(of).sum::<u64>();
        let (all, hidden) = (sum(|layer| layer.bytes), sum(|layer| layer.hidden_bytes));
        context.print(format_args!(
            "Total {}, of which {} are changed or removed again by later layers",
            units::size(all),
            units::size(hidden)
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What made each layer, lowest first; steps without a layer left out.
fn makers(image: &Image) -> Vec<String> {
    let steps = image.config.history.iter().filter(|step| !step.empty_layer);
    steps.map(|step| step.created_by.clone().unwrap_or_default().replace(['\n', '\t'], " ")).collect()
}

fn count(layer: &LayerChanges, kind: ChangeKind) -> usize {
    layer.changes.iter().filter(|change| change.kind == kind).count()
}

fn heading(layer: &LayerChanges, made: &str) -> String {
    let [added, changed, removed] =
        [ChangeKind::Added, ChangeKind::Changed, ChangeKind::Removed].map(|kind| count(layer, kind));
    let line = format!(
        "{} {}: {added} added, {changed} changed, {removed} removed",
        layer.diff_id.short(),
        units::size(layer.bytes)
    );
    let hides = match layer.hidden_bytes {
        0 => String::new(),
        bytes => format!(", hides {}", units::size(bytes)),
    };
    if made.is_empty() { line + &hides } else { format!("{line}{hides}  {}", printable(&ellipsis(made, 60))) }
}

fn letter(change: &Change) -> char {
    match change.kind {
        ChangeKind::Added => 'A',
        ChangeKind::Changed => 'C',
        ChangeKind::Removed => 'D',
    }
}

fn as_json(layer: &LayerChanges, made: &str, summary: bool) -> serde_json::Value {
    let change = |change: &Change| {
        json!({
            "Kind": letter(change).to_string(),
            "Path": format!("/{}", String::from_utf8_lossy(&change.path)),
            "Size": change.bytes,
        })
    };
    let mut line = json!({
        "ID": layer.diff_id.to_string(), "CreatedBy": made, "Size": layer.bytes, "Hidden": layer.hidden_bytes,
        "Added": count(layer, ChangeKind::Added),
        "Changed": count(layer, ChangeKind::Changed),
        "Removed": count(layer, ChangeKind::Removed),
    });
    if !summary {
        line["Changes"] = layer.changes.iter().map(change).collect();
    }
    line
}
