//! Containerfile to image.
//!
//! Four layers, each of which can be used and tested alone:
//!
//! 1. parser: text → syntax tree, every node with its lines;
//! 2. instruction: syntax tree → typed instructions, with lint warnings;
//! 3. plan: instructions → stages as a graph, of which only the reachable ones count;
//! 4. execution: each step's cache key is looked up, else the step is run into a scratch upperdir
//!    that becomes a layer where it lies.
//!
//! No part prints or reads the environment: what there is to tell goes out as [`BuildEvent`]s.

mod cache;
mod context_file;
mod error;
mod event;
mod execute;
mod expand;
mod export;
mod fetch;
mod ignore;
mod instruction;
mod layer;
mod named_context;
mod parser;
mod paths;
mod plan;
mod recipe;
mod remote_cache;
mod request;
mod secret;
mod step_error;
mod tree;
mod usage;

pub use error::{BuildError, SourceLine};
pub use event::{BuildEvent, OutputStream, StepId, Warning};
pub use export::{export_files, export_tar};
pub use fetch::{FetchedContext, GitContext, fetch_stream, fetch_url, is_url};
pub use ignore::ignores;
pub use named_context::{ContextParseError, NamedContext};
pub use recipe::{Argument, Recipe, Stage, Summary, check};
pub use remote_cache::{CacheOrigin, CacheParseError, CacheRecord, CacheTarget, export_cache};
pub use request::{BuildNetwork, BuildRequest, Containerfile, PullPolicy};
pub use secret::{Secret, SecretParseError, SecretSource, SshAgent};
pub use usage::{CacheItem, CacheKind, CachePrune, bound_cache, cache_items, prune_cache};

use ignore::ignore_rules;
use oci::{Digest, Platform};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a build made.
#[derive(Clone, Debug)]
pub struct Built {
    /// The image's id: the digest of its config.
    pub image_id: Digest,
    /// The store had no such image before.
    pub is_new: bool,
    /// The layers' folders, lowest first.
    pub layers: Vec<PathBuf>,
    /// What it is for.
    pub platform: Platform,
    /// What the steps made, for [`export_cache`].
    pub cache: Vec<CacheRecord>,
    /// Those of its manifest.
    pub annotations: BTreeMap<String, String>,
    /// Everything that was worth a warning, in the order of the Containerfile. Each went out as an event too.
    pub warnings: Vec<Warning>,
}

/// Who looks at a failed step.
pub type Debugger<'a> = &'a (dyn Fn(&engine::StepRequest) + Sync);

/// Builds the image `request` describes in `engine`'s store. `events` is called from several threads,
/// as things happen; it should return quickly.
///
/// A build that fails or is killed leaves cached steps for the next one, nothing else.
pub fn build(
    engine: &engine::Engine,
    request: &BuildRequest,
    events: &(dyn Fn(BuildEvent) + Sync),
) -> Result<Built, BuildError> {
    build_and_debug(engine, request, events, None)
}

/// The same; a RUN that fails is handed to `debug` before what it left is thrown away: with a shell as its program, the
/// step's environment, folder, user and mounts.
pub fn build_and_debug(
    engine: &engine::Engine,
    request: &BuildRequest,
    events: &(dyn Fn(BuildEvent) + Sync),
    debug: Option<Debugger<'_>>,
) -> Result<Built, BuildError> {
    let (plan, mut warnings) = understand(request)?;
    for warning in &warnings {
        events(BuildEvent::Warning(warning.clone()));
    }
    let mut built = execute::Build::new(engine, request, &plan, events, debug).run()?;
    warnings.append(&mut built.warnings);
    built.warnings = warnings;
    Ok(built)
}

fn understand(request: &BuildRequest) -> Result<(plan::Plan, Vec<Warning>), BuildError> {
    let document = parser::parse(&request.containerfile)?;
    let escape = document.directives.escape;
    let instructions = document
        .nodes
        .iter()
        .map(|node| instruction::from_node(node, escape, &document.source))
        .collect::<Result<Vec<_>, _>>()?;
    let mut warnings = instruction::lint(&document, &instructions);
    // A file that cannot be read is the build's to tell.
    let rules = ignore_rules(&request.context, request.containerfile.path.as_deref()).unwrap_or_default();
    let skipped = document.directives.skipped_rules.clone();
    warnings.extend(instruction::ignored(&document.source, &instructions, &rules, &skipped));
    let fails = document.directives.warnings_fail;
    let (plan, more) = plan::Plan::new(document, instructions, request)?;
    let is_skipped = |warning: &Warning| skipped.iter().any(|skip| skip == warning.rule || skip == "all");
    warnings.extend(more.into_iter().filter(|warning| warning.rule.is_empty() || !is_skipped(warning)));
    match warnings.iter().find(|warning| fails && !warning.rule.is_empty()) {
        Some(first) => Err(violation(first)),
        None => Ok((plan, warnings)),
    }
}

/// A warning where the recipe wants none.
fn violation(warning: &Warning) -> BuildError {
    BuildError::Containerfile {
        message: format!("lint violation found: {warning}"),
        at: None,
        hint: Some("the check directive of the recipe makes warnings errors".to_owned()),
    }
}
