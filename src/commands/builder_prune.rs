//! `ctr builder prune`.

use super::pruning;
use crate::context::Context;
use crate::error::CliError;
use crate::options::units::parse_size;
use clap::Parser;
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use store::CacheEntry;

/// Remove the build cache
#[derive(Parser, Debug)]
pub(crate) struct Args {
    /// All of it, not just what no image has
    #[arg(short, long)]
    all: bool,
    /// Don't ask
    #[arg(short, long)]
    force: bool,
    /// Keep what was used last, up to so many bytes
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    keep_storage: Option<u64>,
}

pub(crate) fn run(args: Args, context: &mut Context) -> Result<ExitCode, CliError> {
    let what = if args.all { "all build cache" } else { "all dangling build cache" };
    pruning::prune(context, args.force, &[what], |context| {
        let unwanted = unwanted(context, args.all, args.keep_storage.unwrap_or(0))?;
        pruning::build_cache(context, &unwanted)
    })
}

/// The entries to go: the least recently used ones, until what they keep on the disk is within `keep` bytes.
pub(super) fn unwanted(context: &Context, all: bool, keep: u64) -> Result<Vec<CacheEntry>, CliError> {
    let store = context.engine()?.store();
    let of_images: BTreeSet<_> = store.images()?.into_iter().flat_map(|image| image.diff_ids).collect();
    let sizes: BTreeMap<_, _> = store.layer_usage()?.into_iter().filter(|(layer, _)| !of_images.contains(layer)).collect();
    let mut kept = 0;
    let mut counted = BTreeSet::new();
    let mut unwanted = Vec::new();
    for entry in store.cache_entries()?.into_iter().rev() {
        let is_free = entry.diff_ids.iter().all(|layer| !sizes.contains_key(layer));
        if is_free && !all {
            continue;
        }
        let new = entry.diff_ids.iter().filter(|layer| counted.insert((*layer).clone()));
        kept += new.filter_map(|layer| sizes.get(layer)).sum::<u64>();
        if keep == 0 || kept > keep {
            unwanted.push(entry);
        }
    }
    Ok(unwanted)
}
