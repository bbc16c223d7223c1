//! What a Containerfile says, without building anything: stages, arguments, what it wants from the caller.

use crate::error::BuildError;
use crate::event::Warning;
use crate::instruction::{Instruction, MountKind};
use crate::parser::{Source, Span};
use crate::plan::{Base, Plan, StagePlan};
use crate::request::BuildRequest;
use std::collections::BTreeSet;

/// A Containerfile, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Its stages, in order.
    pub stages: Vec<Stage>,
    /// The ARGs of what the target needs, in order.
    pub arguments: Vec<Argument>,
    /// The secrets that its RUN steps ask for: id, and whether it must be given.
    pub secrets: Vec<(String, bool)>,
    /// The ssh agents, likewise.
    pub ssh: Vec<(String, bool)>,
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
    /// A build of this request needs it.
    pub is_needed: bool,
    /// What it starts from: an image, `scratch`, or an earlier stage's name.
    pub base: String,
    /// What the comment above it says of it: `# NAME says this`.
    pub description: Option<String>,
    /// Its instructions, the FROM first.
    pub instructions: Vec<Summary>,
}

/// An instruction of a [`Stage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// In capitals.
    pub keyword: &'static str,
    /// Counted from 1.
    pub line: usize,
    /// As written, continuation lines joined.
    pub text: String,
}

/// An ARG of a [`Recipe`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// What it is worth where nobody says else, as written.
    pub default: Option<String>,
    /// What the comment above it says of it: `# NAME says this`.
    pub description: Option<String>,
    /// Counted from 1.
    pub line: usize,
}

/// Reads and checks a recipe: errors as of a build, what it holds, and the warnings a build would give – those that need
/// the configs of the base images only with an engine, which has them or asks their registries.
pub fn check(engine: Option<&engine::Engine>, request: &BuildRequest) -> Result<Recipe, BuildError> {
    let (plan, mut warnings) = crate::understand(request)?;
    if let Some(engine) = engine {
        warnings.extend(crate::execute::Build::new(engine, request, &plan, &|_| {}, None).rehearse()?);
    }
    let needed: BTreeSet<usize> = plan.reachable().into_iter().collect();
    let stage = |(index, stage): (usize, &StagePlan)| {
        let name = stage.name.clone().unwrap_or_else(|| index.to_string());
        let summary = |located: &crate::instruction::Located| Summary {
            keyword: located.instruction.keyword(),
            line: located.span.first,
            text: located.text.clone(),
        };
        Stage {
            is_target: index == plan.target,
            is_needed: needed.contains(&index),
            base: base_name(&plan, stage),
            description: description(&plan.source, stage.from.span, &name),
            instructions: std::iter::once(&stage.from).chain(&stage.steps).map(summary).collect(),
            name,
        }
    };
    let stages = plan.stages.iter().enumerate().map(stage).collect();
    let (secrets, ssh) = (asked_for(&plan, &needed, MountKind::Secret), asked_for(&plan, &needed, MountKind::Ssh));
    Ok(Recipe { stages, arguments: arguments(&plan, &needed), secrets, ssh, warnings })
}

fn base_name(plan: &Plan, stage: &StagePlan) -> String {
    match &stage.base {
        Base::Scratch => "scratch".to_owned(),
        Base::Image(name) => name.clone(),
        Base::Context(index) => plan.context_name(*index).to_owned(),
        Base::Stage(index) => {
            plan.stages.get(*index).and_then(|stage| stage.name.clone()).unwrap_or_else(|| index.to_string())
        }
    }
}

/// The ARGs before the first FROM, and of the stages that are needed; each name once.
fn arguments(plan: &Plan, needed: &BTreeSet<usize>) -> Vec<Argument> {
    let mut found: Vec<Argument> = Vec::new();
    let of_stages = plan.stages.iter().enumerate().filter(|(index, _)| needed.contains(index));
    let located = plan.global_steps.iter().chain(of_stages.flat_map(|(_, stage)| &stage.steps));
    for located in located {
        let Instruction::Arg(names) = &located.instruction else { continue };
        for (name, default) in names {
            if found.iter().any(|known| known.name == *name) {
                continue;
            }
            found.push(Argument {
                name: name.clone(),
                default: default.clone(),
                description: description(&plan.source, located.span, name),
                line: located.span.first,
            });
        }
    }
    found
}

fn asked_for(plan: &Plan, needed: &BTreeSet<usize>, kind: MountKind) -> Vec<(String, bool)> {
    let mut found: Vec<(String, bool)> = Vec::new();
    let stages = plan.stages.iter().enumerate().filter(|(index, _)| needed.contains(index));
    for located in stages.flat_map(|(_, stage)| &stage.steps) {
        let Instruction::Run(run) = &located.instruction else { continue };
        for mount in run.mounts.iter().filter(|mount| mount.kind == kind) {
            let named = mount.id.clone().or_else(|| mount.source.clone());
            let by_target = || mount.target.as_deref().and_then(|path| path.rsplit('/').next()).map(str::to_owned);
            let id = match kind {
                MountKind::Ssh => named.unwrap_or_else(|| "default".to_owned()),
                _ => named.or_else(by_target).unwrap_or_default(),
            };
            match found.iter_mut().find(|(known, _)| *known == id) {
                Some((_, required)) => *required |= mount.required,
                None => found.push((id, mount.required)),
            }
        }
    }
    found
}

/// The comment just above a line, where it begins with the name of what the line is about.
fn description(source: &Source, span: Span, name: &str) -> Option<String> {
    let above = source.lines.get(span.first.checked_sub(2)?)?;
    let text = above.trim().strip_prefix('#')?.trim();
    let rest = text.get(..name.len()).filter(|word| word.eq_ignore_ascii_case(name)).map(|_| &text[name.len()..])?;
    let rest = rest.strip_prefix([' ', '\t', ':'])?.trim();
    (!rest.is_empty()).then(|| rest.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::request::Containerfile;

    #[test]
    fn a_recipe_says_what_it_wants() {
        let text = "# V is the version\nARG V=1\nFROM scratch AS unused\nARG HIDDEN\n# app is what you want\nFROM a:$V AS app\n\
                    ARG V\nARG MORE=x\nRUN --mount=type=secret,id=s,required --mount=type=ssh --mount=type=secret,target=/x/t y\n";
        let file = Containerfile::from_text("Containerfile", text);
        let recipe = check(None, &BuildRequest::new("/nowhere", file)).unwrap();
        let arguments: Vec<_> =
            recipe.arguments.iter().map(|a| (a.name.as_str(), a.default.as_deref(), a.line)).collect();
        assert_eq!(arguments, [("V", Some("1"), 2), ("MORE", Some("x"), 8)]);
        assert_eq!(recipe.arguments[0].description.as_deref(), Some("is the version"));
        let stage = &recipe.stages[1];
        assert_eq!((stage.base.as_str(), stage.description.as_deref()), ("a:1", Some("is what you want")));
        assert_eq!((recipe.stages[0].is_needed, stage.is_target, stage.instructions[3].keyword), (false, true, "RUN"));
        assert_eq!(recipe.secrets, [("s".to_owned(), true), ("t".to_owned(), false)]);
        assert_eq!(recipe.ssh, [("default".to_owned(), false)]);
    }
}
