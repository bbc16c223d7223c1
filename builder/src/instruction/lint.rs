//! Lint: what a Containerfile may say but better did not. One function a rule group, rule names as docker's.

use super::parse::quoted_words;
use super::{Instruction, Located};
use crate::event::Warning;
use crate::ignore::IgnoreRules;
use crate::parser::{Document, Node, Source};
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// All findings that need nothing but the text, in the order of their lines, without the rules a `check` directive
/// skips.
pub(crate) fn lint(document: &Document, instructions: &[Located]) -> Vec<Warning> {
    let mut found = document.warnings.clone();
    casing(document, &mut found);
    stages(&document.source, instructions, document, &mut found);
    repeated(&document.source, instructions, &mut found);
    workdirs(&document.source, instructions, &mut found);
    for (node, located) in document.nodes.iter().zip(instructions) {
        single(&document.source, node, located, document.directives.escape, &mut found);
    }
    let skipped = |rule: &str| document.directives.skipped_rules.iter().any(|skip| skip == rule || skip == "all");
    found.retain(|warning| !skipped(warning.rule));
    found.sort_by_key(|warning| {
        let line = warning.location.as_deref().and_then(|place| place.rsplit_once(':'));
        line.and_then(|(_, line)| line.parse::<usize>().ok())
    });
    found
}

/// Keywords should all be of one case, that of the majority.
fn casing(document: &Document, found: &mut Vec<Warning>) {
    let is_upper = |node: &Node| node.keyword == node.keyword.to_uppercase();
    let is_lower = |node: &Node| node.keyword == node.keyword.to_lowercase();
    let upper = document.nodes.iter().filter(|node| is_upper(node)).count();
    let lower = document.nodes.iter().filter(|node| is_lower(node)).count();
    let wants_lower = lower > upper;
    for node in &document.nodes {
        if !(if wants_lower { is_lower(node) } else { is_upper(node) }) {
            let case = if wants_lower { "lowercase" } else { "uppercase" };
            let message = format!("Command '{}' should match the case of the command majority ({case})", node.keyword);
            found.push(document.source.warning("ConsistentInstructionCasing", node.span, message));
        }
    }
}

fn stages(source: &Source, instructions: &[Located], document: &Document, found: &mut Vec<Warning>) {
    let mut names = BTreeSet::new();
    for (node, located) in document.nodes.iter().zip(instructions) {
        let Instruction::From(from) = &located.instruction else { continue };
        let words: Vec<&str> = node.arguments.split_whitespace().collect();
        let Some(name) = &from.name else { continue };
        let mut warn = |rule, message: String| found.push(source.warning(rule, node.span, message));
        if let [_, keyword, written] = words.as_slice() {
            if *written != name {
                warn("StageNameCasing", format!("Stage name '{written}' should be lowercase"));
            }
            let (from_lower, as_lower) =
                (node.keyword == node.keyword.to_lowercase(), *keyword == keyword.to_lowercase());
            if from_lower != as_lower {
                warn("FromAsCasing", format!("'{keyword}' and '{}' keywords' casing do not match", node.keyword));
            }
        }
        if matches!(name.as_str(), "scratch" | "context") {
            warn("ReservedStageName", format!("Stage name should not use the same name as reserved stage {name:?}"));
        }
        if !names.insert(name.clone()) {
            warn("DuplicateStageName", format!("Duplicate stage name {name:?}, stage names should be unique"));
        }
    }
}

/// Of several CMD, ENTRYPOINT or HEALTHCHECK in a stage only the last counts.
fn repeated(source: &Source, instructions: &[Located], found: &mut Vec<Warning>) {
    for keyword in ["CMD", "ENTRYPOINT", "HEALTHCHECK"] {
        let mut before: Option<&Located> = None;
        for located in instructions {
            match &located.instruction {
                Instruction::From(_) => before = None,
                other if other.keyword() == keyword => {
                    if let Some(earlier) = before.replace(located) {
                        let message = format!(
                            "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
                        );
                        found.push(source.warning("MultipleInstructionsDisallowed", earlier.span, message));
                    }
                }
                _ => {}
            }
        }
    }
}

/// A relative WORKDIR is relative to what the base image says, which may change.
fn workdirs(source: &Source, instructions: &[Located], found: &mut Vec<Warning>) {
    // Stages by name, and whether they have a folder of their own.
    let mut settled: BTreeSet<String> = BTreeSet::new();
    let (mut name, mut is_settled) = (None, false);
    for located in instructions {
        match &located.instruction {
            Instruction::From(from) => {
                is_settled = settled.contains(&from.image.to_lowercase());
                name.clone_from(&from.name);
            }
            Instruction::Workdir(path) => {
                if !is_settled && !path.starts_with(['/', '$', '"', '\'']) {
                    let message =
                        format!("Relative workdir {path:?} can have unexpected results if the base image changes");
                    found.push(source.warning("WorkdirRelativePath", located.span, message));
                }
                is_settled = true;
            }
            _ => {}
        }
        if let Some(name) = name.as_ref().filter(|_| is_settled) {
            settled.insert(name.clone());
        }
    }
}

/// COPY and ADD of what the ignore file hides.
pub(crate) fn ignored(
    source: &Source,
    instructions: &[Located],
    rules: &IgnoreRules,
    skipped: &[String],
) -> Vec<Warning> {
    let mut found = Vec::new();
    if skipped.iter().any(|rule| rule == "all" || rule == "CopyIgnoredFile") {
        return found;
    }
    for located in instructions {
        let Instruction::Copy(copy) = &located.instruction else { continue };
        let is_plain = |text: &&String| !text.contains(['$', '*', '?', '[', ':']) && !text.starts_with("<<");
        for text in copy.sources.iter().filter(is_plain).filter(|_| copy.from.is_none()) {
            let clean: PathBuf = Path::new(text).components().filter(|c| matches!(c, Component::Normal(_))).collect();
            if rules.prunes(&clean) {
                let keyword = if copy.is_add { "Add" } else { "Copy" };
                let message = format!("Attempting to {keyword} file {text:?} that is excluded by .dockerignore");
                found.push(source.warning("CopyIgnoredFile", located.span, message));
            }
        }
    }
    found
}

/// Rules about one instruction alone.
fn single(source: &Source, node: &Node, located: &Located, escape: char, found: &mut Vec<Warning>) {
    let mut warn = |rule, message: String| found.push(source.warning(rule, node.span, message));
    match &located.instruction {
        Instruction::Maintainer(_) => {
            warn("MaintainerDeprecated", "Maintainer instruction is deprecated in favor of using label".to_owned())
        }
        Instruction::Cmd(_) | Instruction::Entrypoint(_) if node.json.is_none() => warn(
            "JSONArgsRecommended",
            format!(
                "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
                located.instruction.keyword()
            ),
        ),
        Instruction::Env(pairs) | Instruction::Label(pairs) => {
            if quoted_words(&node.arguments, escape).first().is_some_and(|word| !word.contains('=')) {
                let keyword = located.instruction.keyword();
                warn(
                    "LegacyKeyValueFormat",
                    format!("\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"),
                );
            }
            if matches!(located.instruction, Instruction::Env(_)) {
                for (name, _) in pairs.iter().filter(|(name, _)| looks_secret(name)) {
                    warn("SecretsUsedInArgOrEnv", secret_message("ENV", name));
                }
            }
        }
        Instruction::Arg(names) => {
            for (name, _) in names.iter().filter(|(name, _)| looks_secret(name)) {
                warn("SecretsUsedInArgOrEnv", secret_message("ARG", name));
            }
        }
        Instruction::Expose(ports) => {
            for port in ports {
                match port.split_once('/') {
                    Some((_, protocol)) if protocol != protocol.to_lowercase() => warn(
                        "ExposeProtoCasing",
                        format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase"),
                    ),
                    _ if port.contains(':') => warn(
                        "ExposeInvalidFormat",
                        format!(
                            "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
                        ),
                    ),
                    _ => {}
                }
            }
        }
        Instruction::From(from) => {
            if let Some(platform) = &from.platform {
                match platform.as_str() {
                    "$TARGETPLATFORM" | "${TARGETPLATFORM}" => warn(
                        "RedundantTargetPlatform",
                        format!(
                            "Setting platform to predefined {platform} in FROM is redundant as this is the default behavior"
                        ),
                    ),
                    text if !text.contains('$') => warn(
                        "FromPlatformFlagConstDisallowed",
                        format!("FROM --platform flag should not use constant value {text:?}"),
                    ),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

fn secret_message(keyword: &str, name: &str) -> String {
    format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {name:?}): use RUN --mount=type=secret")
}

/// A word of the name says what it holds; `PUBLIC` takes the suspicion away.
fn looks_secret(name: &str) -> bool {
    let lower = name.to_lowercase();
    let words: Vec<&str> = lower.split('_').collect();
    let secret =
        ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
    words.iter().any(|word| secret.contains(word)) && !words.contains(&"public")
}
