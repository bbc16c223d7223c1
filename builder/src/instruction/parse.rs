//! One syntax node → one instruction; the errors a user meets first.

use super::flags::Flags;
use super::suggest::nearest;
use super::{Command, FromInstruction, HealthcheckSpec, Instruction, Located, duration, file, run};
use crate::error::BuildError;
use crate::parser::{Node, Source, Span, parse_json, parse_trigger, split_keyword};

const KEYWORDS: [&str; 18] = [
    "FROM",
    "ARG",
    "ENV",
    "LABEL",
    "RUN",
    "COPY",
    "ADD",
    "WORKDIR",
    "USER",
    "CMD",
    "ENTRYPOINT",
    "EXPOSE",
    "VOLUME",
    "STOPSIGNAL",
    "SHELL",
    "HEALTHCHECK",
    "ONBUILD",
    "MAINTAINER",
];

/// Understands one node.
pub(crate) fn from_node(node: &Node, escape: char, source: &Source) -> Result<Located, BuildError> {
    let instruction = parse(node, escape, source)?;
    Ok(Located { instruction, text: node.text.clone(), span: node.span })
}

/// Understands the text of a base image's ONBUILD trigger; `span` is the FROM's.
pub(crate) fn trigger(text: &str, span: Span, escape: char, source: &Source) -> Result<Located, BuildError> {
    from_node(&parse_trigger(text, span, escape, source)?, escape, source)
}

fn parse(node: &Node, escape: char, source: &Source) -> Result<Instruction, BuildError> {
    let keyword = node.keyword.to_ascii_uppercase();
    match keyword.as_str() {
        "FROM" => return parse_from(node, source),
        "RUN" => return Ok(Instruction::Run(run::parse(node, source)?)),
        "COPY" => return Ok(Instruction::Copy(file::parse(node, source, escape, false)?)),
        "ADD" => return Ok(Instruction::Copy(file::parse(node, source, escape, true)?)),
        "HEALTHCHECK" => return parse_healthcheck(node, source),
        _ => {}
    }
    if !KEYWORDS.contains(&keyword.as_str()) {
        let hint = nearest(&keyword, KEYWORDS).map(|near| format!("did you mean {near}?"));
        return Err(source.error_with_hint(node.span, format!("unknown instruction: {}", node.keyword), hint));
    }
    Flags::new(node, source).finish()?;
    let list = || match &node.json {
        Some(list) => list.clone(),
        None => node.arguments.split_whitespace().map(str::to_owned).collect(),
    };
    // An empty command is one, as docker sees it.
    if node.arguments.is_empty() && !matches!(keyword.as_str(), "CMD" | "ENTRYPOINT") {
        return Err(source.error(node.span, format!("{keyword} requires {}", wanted(&keyword))));
    }
    Ok(match keyword.as_str() {
        "ARG" => Instruction::Arg(parse_arg(node, escape, source)?),
        "ENV" => Instruction::Env(parse_pairs(node, escape, source)?),
        "LABEL" => Instruction::Label(parse_pairs(node, escape, source)?),
        "WORKDIR" => Instruction::Workdir(node.arguments.clone()),
        "USER" => Instruction::User(node.arguments.clone()),
        "CMD" => Instruction::Cmd(command(node)),
        "ENTRYPOINT" => Instruction::Entrypoint(command(node)),
        "EXPOSE" => Instruction::Expose(node.arguments.split_whitespace().map(str::to_owned).collect()),
        "VOLUME" => Instruction::Volume(list()),
        "STOPSIGNAL" => Instruction::StopSignal(node.arguments.clone()),
        "SHELL" => match &node.json {
            Some(list) if !list.is_empty() => Instruction::Shell(list.clone()),
            _ => return Err(source.error(node.span, "SHELL requires the arguments to be in JSON form")),
        },
        "ONBUILD" => parse_onbuild(node, escape, source)?,
        _ => Instruction::Maintainer(node.arguments.clone()),
    })
}

fn wanted(keyword: &str) -> &'static str {
    match keyword {
        "ARG" | "ENV" | "LABEL" | "EXPOSE" | "VOLUME" => "at least one argument",
        "ONBUILD" => "an instruction",
        _ => "exactly one argument",
    }
}

fn command(node: &Node) -> Command {
    match &node.json {
        Some(list) => Command::Exec(list.clone()),
        None => Command::Shell(node.arguments.clone()),
    }
}

fn parse_from(node: &Node, source: &Source) -> Result<Instruction, BuildError> {
    let mut flags = Flags::new(node, source);
    let platform = flags.one("platform")?;
    flags.finish()?;
    let words: Vec<&str> = node.arguments.split_whitespace().collect();
    let (image, name) = match words.as_slice() {
        [image] => (*image, None),
        [image, keyword, name] if keyword.eq_ignore_ascii_case("AS") => (*image, Some(*name)),
        _ => return Err(source.error(node.span, "FROM requires either one or three arguments: FROM IMAGE [AS NAME]")),
    };
    let name = name.map(str::to_lowercase);
    if let Some(name) = name.as_deref().filter(|name| !is_stage_name(name)) {
        let message = format!("invalid name for build stage: {name:?}");
        let hint = "a name is a letter, then letters, digits, '-', '_' and '.'".to_owned();
        return Err(source.error_with_hint(node.span, message, Some(hint)));
    }
    Ok(Instruction::From(FromInstruction { image: image.to_owned(), platform, name }))
}

fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c))
}

/// `NAME`, `NAME=default`, several.
fn parse_arg(node: &Node, escape: char, source: &Source) -> Result<Vec<(String, Option<String>)>, BuildError> {
    let pair = |word: String| {
        let (name, default) = match word.split_once('=') {
            Some((name, default)) => (name.to_owned(), Some(default.to_owned())),
            None => (word, None),
        };
        match name.is_empty() {
            true => Err(source.error(node.span, "ARG names can not be blank")),
            false => Ok((name, default)),
        }
    };
    quoted_words(&node.arguments, escape).into_iter().map(pair).collect()
}

/// `k=v k=v`, or the legacy `k the rest`. Quotes stay for the expansion to undo.
fn parse_pairs(node: &Node, escape: char, source: &Source) -> Result<Vec<(String, String)>, BuildError> {
    let keyword = node.keyword.to_ascii_uppercase();
    let words = quoted_words(&node.arguments, escape);
    if words.first().is_some_and(|word| !word.contains('=')) {
        let (name, value) = split_keyword(&node.arguments);
        if value.is_empty() {
            return Err(source.error(node.span, format!("{keyword} must have two arguments: write {name}=VALUE")));
        }
        return Ok(vec![(name.to_owned(), value.to_owned())]);
    }
    let pair = |word: String| match word.split_once('=') {
        Some(("", _)) => Err(source.error(node.span, format!("{keyword} names can not be blank"))),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => {
            let message = format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value");
            Err(source.error(node.span, message))
        }
    };
    words.into_iter().map(pair).collect()
}

/// Words, where quotes and escapes keep white space in; they stay in the words.
pub(super) fn quoted_words(text: &str, escape: char) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, None) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => quote = Some(c),
            (c, open) if c == escape && open != Some('\'') => {
                word.push(c);
                word.extend(chars.next());
                continue;
            }
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

fn parse_healthcheck(node: &Node, source: &Source) -> Result<Instruction, BuildError> {
    let mut flags = Flags::new(node, source);
    let mut durations = [0; 4];
    for (slot, name) in durations.iter_mut().zip(["interval", "timeout", "start-period", "start-interval"]) {
        if let Some(text) = flags.one(name)? {
            let parsed = duration::parse_ns(&text).filter(|ns| *ns == 0 || *ns >= 1_000_000);
            *slot = parsed.ok_or_else(|| {
                source.error(node.span, format!("invalid --{name}={text}: expected a duration of at least 1ms, as 30s"))
            })?;
        }
    }
    let retries = match flags.one("retries")? {
        None => 0,
        Some(text) => i64::from(
            text.parse::<u32>()
                .map_err(|_| source.error(node.span, format!("invalid --retries={text}: expected a number")))?,
        ),
    };
    flags.finish()?;
    let (kind, rest) = split_keyword(&node.arguments);
    match kind.to_ascii_uppercase().as_str() {
        "NONE" if rest.is_empty() && node.flags.is_empty() => Ok(Instruction::Healthcheck(None)),
        "NONE" => Err(source.error(node.span, "HEALTHCHECK NONE takes no arguments and no flags")),
        "CMD" if rest.is_empty() => Err(source.error(node.span, "Missing command after HEALTHCHECK CMD")),
        "CMD" => {
            let command = parse_json(rest).map_or_else(|| Command::Shell(rest.to_owned()), Command::Exec);
            let [interval, timeout, start_period, start_interval] = durations;
            let spec = HealthcheckSpec { command, interval, timeout, start_period, start_interval, retries };
            Ok(Instruction::Healthcheck(Some(spec)))
        }
        _ => {
            let message = format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)");
            Err(source.error_with_hint(node.span, message, Some("write HEALTHCHECK CMD command, or NONE".into())))
        }
    }
}

fn parse_onbuild(node: &Node, escape: char, source: &Source) -> Result<Instruction, BuildError> {
    let (keyword, _) = split_keyword(&node.arguments);
    let keyword = keyword.to_ascii_uppercase();
    if matches!(keyword.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
        return Err(source.error(node.span, format!("{keyword} isn't allowed as an ONBUILD trigger")));
    }
    let mut text = node.arguments.clone();
    for heredoc in &node.heredocs {
        text.push('\n');
        text.push_str(&heredoc.content);
        text.push_str(&heredoc.name);
    }
    trigger(&text, node.span, escape, source)?;
    Ok(Instruction::Onbuild(text))
}
