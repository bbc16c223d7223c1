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
mod error;
mod event;
mod execute;
mod expand;
mod fetch;
mod ignore;
mod instruction;
mod layer;
mod named_context;
mod parser;
mod paths;
mod plan;
mod request;
mod secret;
mod step_error;
mod tree;

pub use error::{BuildError, SourceLine};
pub use event::{BuildEvent, OutputStream, StepId, Warning};
pub use fetch::{FetchedContext, GitContext, fetch_stream, fetch_url, is_url};
pub use named_context::{ContextParseError, NamedContext};
pub use request::{BuildNetwork, BuildRequest, Containerfile, PullPolicy};
pub use secret::{Secret, SecretParseError, SecretSource, SshAgent};

use oci::Digest;

/// What a build made.
#[derive(Clone, Debug)]
pub struct Built {
    /// The image's id: the digest of its config.
    pub image_id: Digest,
    /// Everything that was worth a warning, in the order of the Containerfile. Each went out as an event too.
    pub warnings: Vec<Warning>,
}

/// Builds the image `request` describes in `engine`'s store. `events` is called from several threads,
/// as things happen; it should return quickly.
///
/// A build that fails or is killed leaves cached steps for the next one, nothing else.
pub fn build(
    engine: &engine::Engine,
    request: &BuildRequest,
    events: &(dyn Fn(BuildEvent) + Sync),
) -> Result<Built, BuildError> {
    let (plan, mut warnings) = understand(request)?;
    for warning in &warnings {
        events(BuildEvent::Warning(warning.clone()));
    }
    let (image_id, more) = execute::Build::new(engine, request, &plan, events).run()?;
    warnings.extend(more);
    Ok(Built { image_id, warnings })
}

/// What a Containerfile says, without building anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Its stages, in order.
    pub stages: Vec<Stage>,
    /// What is worth a warning, in its order.
    pub warnings: Vec<Warning>,
}

/// A stage of a [`Recipe`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its name, else its index.
    pub name: String,
    /// It is what a build of this request makes.
    pub is_target: bool,
}

/// Reads and checks a recipe: errors as of a build, warnings, stages.
pub fn check(request: &BuildRequest) -> Result<Recipe, BuildError> {
    let (plan, warnings) = understand(request)?;
    let stage = |(index, stage): (usize, &plan::StagePlan)| Stage {
        name: stage.name.clone().unwrap_or_else(|| index.to_string()),
        is_target: index == plan.target,
    };
    Ok(Recipe { stages: plan.stages.iter().enumerate().map(stage).collect(), warnings })
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
    let (plan, more) = plan::Plan::new(document, instructions, request)?;
    warnings.extend(more);
    Ok((plan, warnings))
}
