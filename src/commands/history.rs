//! `ctr history`.

use crate::context::Context;
use crate::error::CliError;
use crate::output::container_rows::{at, since};
use crate::output::format::Listing;
use crate::output::table::ellipsis;
use crate::output::units;
use clap::Parser;
use jiff::Timestamp;
use serde_json::json;
use std::process::ExitCode;

/// Show how an image was made
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// json, table, or a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print sizes and dates as people read them
    #[arg(short = 'H', long, value_name = "BOOL", action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value = "true", default_missing_value = "true")]
    human: bool,
    /// Don't shorten
    #[arg(long)]
    no_trunc: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// A name or id
    image: String,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let store = context.engine()?.store();
    let image = store.image(&args.image)?;
    // What is said of the image does not need its layers to be there.
    let mut layers = store.layer_sizes(&image).unwrap_or_default().into_iter();
    // Entries and layers both stand in the order in which they were made.
    let sizes: Vec<u64> =
        image.config.history.iter().map(|step| if step.empty_layer { 0 } else { layers.next().unwrap_or(0) }).collect();
    let now = Timestamp::now();
    let newest = image.config.history.len().saturating_sub(1);
    let rows = image.config.history.iter().zip(sizes).enumerate().rev().map(|(index, (step, size))| {
        let created: Option<Timestamp> = step.created.as_ref().and_then(|t| t.parse().ok());
        let id = match (index == newest, args.no_trunc) {
            (true, true) => image.id.to_string(),
            (true, false) => image.id.short().to_owned(),
            (false, _) => "<missing>".to_owned(),
        };
        let by = step.created_by.clone().unwrap_or_default().replace(['\n', '\t'], " ");
        let ago = created.map_or("N/A".to_owned(), |t| format!("{} ago", units::duration(since(t, now))));
        json!({
            "ID": id,
            "CreatedAt": created.map(at).unwrap_or_default(),
            "CreatedSince": if args.human { ago } else { created.map(at).unwrap_or_default() },
            "CreatedBy": if args.no_trunc { by } else { ellipsis(&by, 45) },
            "Size": if args.human { units::size(size) } else { size.to_string() },
            "Comment": step.comment.clone().unwrap_or_default(),
        })
    });
    let listing = Listing {
        rows: rows.collect(),
        columns: vec![
            ("IMAGE", "ID"),
            ("CREATED", "CreatedSince"),
            ("CREATED BY", "CreatedBy"),
            ("SIZE", "Size"),
            ("COMMENT", "Comment"),
        ],
        titles: &[("CREATED AT", "CreatedAt")],
        id: "ID",
    };
    listing.print(context, args.format.as_deref(), args.quiet)?;
    Ok(ExitCode::SUCCESS)
}
