//! `ctr builder prune`.

use super::builder_filter::CacheFilter;
use super::pruning;
use crate::context::Context;
use crate::error::CliError;
use crate::options::units::parse_size;
use builder::CachePrune;
use clap::Parser;
use std::process::ExitCode;

/// Remove the build cache: steps' layers, and the folders of cache mounts
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// All of it, not just what no image has
    #[arg(short, long)]
    all: bool,
    /// Only what matches: description, id, inuse, mutable, private, shared, type, until
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Don't ask
    #[arg(short, long)]
    force: bool,
    /// Keep what was used last, up to so many bytes
    #[arg(long, value_name = "BYTES", value_parser = parse_size, visible_alias = "reserved-space")]
    keep_storage: Option<u64>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let filter = CacheFilter::parse(&args.filter)?;
    let what = if args.all { "all build cache" } else { "all dangling build cache" };
    pruning::prune(context, args.force, &[what], |context| {
        let prune = CachePrune { all: args.all, keep_bytes: args.keep_storage.unwrap_or(0), until: filter.until };
        pruning::build_cache(context, &prune, &|item| filter.matches(item))
    })
}
