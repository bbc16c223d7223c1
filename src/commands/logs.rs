//! `ctr logs`.

use crate::context::Context;
use crate::error::CliError;
use crate::options::units::parse_time;
use clap::Parser;
use engine::{LogOptions, LogStream};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::io::Write;
use std::process::ExitCode;

/// Show what a container wrote
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// Show what log options add to a line (nothing: there are none)
    #[arg(long)]
    details: bool,
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Only since a time or a duration ago: 2026-01-02T13:23:37Z, 42m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only the last N lines, or all
    #[arg(short = 'n', long, value_name = "N", default_value = "all")]
    tail: String,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Only before a time or a duration ago
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// The container
    container: String,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let now = Timestamp::now();
    let time = |flag: &str, text: &Option<String>| {
        let parse = |text: &String| parse_time(text, now, &TimeZone::UTC);
        text.as_ref()
            .map(parse)
            .transpose()
            .map_err(|e| CliError::flag(format!("invalid value for \"{flag}\": {e}")))
    };
    let options = LogOptions {
        follow: args.follow,
        // As docker: what is no number, or a negative one, means all.
        tail: args.tail.parse().ok(),
        since: time("--since", &args.since)?,
        until: time("--until", &args.until)?,
    };
    if args.tail != "all" && args.tail.parse::<i64>().is_err() {
        return Err(CliError::flag(format!("invalid value for \"--tail\": {:?}: expected a number or all", args.tail)));
    }
    let reader = context.engine()?.logs(&args.container, &options)?;
    let mut stderr = std::io::stderr();
    for entry in reader {
        let entry = entry?;
        let mut stamp = if args.timestamps { format!("{:.9} ", entry.time) } else { String::new() };
        if args.details {
            // Docker's place for what log options add to each line; there are no such options here.
            stamp.push(' ');
        }
        match entry.stream {
            LogStream::Stdout => {
                context.out().write_all(stamp.as_bytes())?;
                context.out().write_all(entry.text.as_bytes())?;
            }
            LogStream::Stderr => {
                // In the order they were written, where both go to one place.
                context.flush()?;
                stderr.write_all(stamp.as_bytes())?;
                stderr.write_all(entry.text.as_bytes())?;
            }
        }
        if args.follow {
            context.flush()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
