//! From the first words of the line to a command's `run`: global options, groups, aliases, help.

use crate::arguments::{closest, normalise, truth};
use crate::commands::{COMMANDS, CommandEntry, GROUPS};
use crate::context::Context;
use crate::error::CliError;
use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs the command that `words` (without the program's name) ask for.
pub(crate) fn run(words: &[OsString], context: &mut Context) -> Result<ExitCode, CliError> {
    let words = match globals(words, context)? {
        Globals::Command(words) => words,
        Globals::Help => return help(&[], context),
        Globals::Version => {
            context.print(format_args!("ctr version {}", env!("CARGO_PKG_VERSION")))?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let Some(first) = words.first() else {
        return help(&[], context);
    };
    let first = first.to_string_lossy();
    if first == "help" {
        return help(&words[1..], context);
    }
    if GROUPS.iter().any(|(name, _)| *name == first) {
        return match words.get(1).map(|w| w.to_string_lossy()) {
            None => group_help(&first, context),
            Some(word) if word == "--help" || word == "-h" => group_help(&first, context),
            Some(word) => {
                let name = format!("{first} {word}");
                match find(&name) {
                    Some(entry) => run_entry(entry, &name, &words[2..], context),
                    None => Err(unknown_command(&name, &first)),
                }
            }
        };
    }
    match find(&first) {
        Some(entry) => run_entry(entry, &first, &words[1..], context),
        None => Err(unknown_command(&first, "")),
    }
}

enum Globals<'a> {
    Command(&'a [OsString]),
    Help,
    Version,
}

/// The options in front of the command.
fn globals<'a>(mut words: &'a [OsString], context: &mut Context) -> Result<Globals<'a>, CliError> {
    while let Some(word) = words.first() {
        let text = word.to_string_lossy();
        if !text.starts_with('-') {
            break;
        }
        words = &words[1..];
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (&*text, None),
        };
        match name {
            "-h" | "--help" => return Ok(Globals::Help),
            "-v" | "--version" => return Ok(Globals::Version),
            "--keep-blobs" => context.set_keep_blobs(truth(name, value.as_deref().unwrap_or("true"))?),
            "--root" | "--state" | "--additional-store" => {
                let value = match (value, words.first()) {
                    (Some(value), _) => OsString::from(value),
                    (None, Some(next)) => {
                        words = &words[1..];
                        next.clone()
                    }
                    (None, None) => return Err(CliError::flag(format!("flag needs an argument: {name}"))),
                };
                if value.is_empty() {
                    return Err(CliError::flag(format!("{name} needs a folder, but its value is empty")));
                }
                let path = PathBuf::from(value);
                match name {
                    "--root" => context.set_root(path),
                    "--state" => context.set_state(path),
                    _ => context.add_store(path),
                }
            }
            _ => {
                let known = ["root", "state", "additional-store", "keep-blobs", "help", "version"];
                let hint = match closest(name.trim_start_matches('-'), known.into_iter()) {
                    Some(near) => format!("did you mean --{near}? See 'ctr --help'."),
                    None => "See 'ctr --help'.".to_owned(),
                };
                return Err(CliError::flag(format!("unknown flag: {text}")).with_hint(hint));
            }
        }
    }
    Ok(Globals::Command(words))
}

fn find(name: &str) -> Option<&'static CommandEntry> {
    COMMANDS.iter().find(|entry| entry.names.contains(&name))
}

fn unknown_command(name: &str, group: &str) -> CliError {
    let error = CliError::new(format!("unknown command: ctr {name}"));
    let names = COMMANDS.iter().flat_map(|entry| entry.names.iter().copied());
    let groups = GROUPS.iter().map(|(name, _)| *name);
    let space = if group.is_empty() { String::new() } else { format!(" {group}") };
    match closest(name, names.chain(groups).filter(|known| known.contains(' ') == name.contains(' '))) {
        Some(near) => error.with_hint(format!("did you mean 'ctr {near}'? See 'ctr{space} --help'.")),
        None => error.with_hint(format!("See 'ctr{space} --help'.")),
    }
}

/// A command's definition under the name it was called by.
pub(crate) fn definition(entry: &CommandEntry, name: &str) -> Command {
    let known = entry.names.iter().find(|known| **known == name).copied().unwrap_or(entry.names[0]);
    (entry.build)().name(known).bin_name(format!("ctr {known}")).args_override_self(true)
}

fn run_entry(
    entry: &CommandEntry,
    name: &str,
    words: &[OsString],
    context: &mut Context,
) -> Result<ExitCode, CliError> {
    let see = |error: CliError| {
        let see = format!("See 'ctr {name} --help'.");
        let hint = error.hint().map_or_else(|| see.clone(), |hint| format!("{hint} {see}"));
        error.with_hint(hint)
    };
    let mut command = definition(entry, name);
    command.build();
    let words = normalise(&command, words, entry.flags).map_err(see)?;
    let line = std::iter::once(OsString::from("ctr")).chain(words);
    match command.clone().try_get_matches_from(line) {
        Ok(matches) => (entry.run)(&matches, context),
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            context.print(error.to_string().trim_end())?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(see(explain(&command, name, &error))),
    }
}

/// clap's error in docker's words.
fn explain(command: &Command, name: &str, error: &clap::Error) -> CliError {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(list)) => list.join(", "),
        _ => String::new(),
    };
    match error.kind() {
        ErrorKind::MissingRequiredArgument | ErrorKind::UnknownArgument | ErrorKind::TooFewValues
            if text(ContextKind::InvalidArg).starts_with("--") =>
        {
            CliError::flag(format!("required flag missing: {}", text(ContextKind::InvalidArg)))
        }
        ErrorKind::MissingRequiredArgument | ErrorKind::UnknownArgument | ErrorKind::TooFewValues => {
            CliError::new(format!("'ctr {name}' {}", expected_arguments(command)))
        }
        ErrorKind::ArgumentConflict => CliError::flag(format!(
            "conflicting options: {} and {}",
            flag_name(&text(ContextKind::InvalidArg)),
            flag_name(&text(ContextKind::PriorArg))
        )),
        _ => {
            let (value, arg) = (text(ContextKind::InvalidValue), flag_name(&text(ContextKind::InvalidArg)));
            let reason = match std::error::Error::source(error) {
                Some(source) => source.to_string(),
                None => match text(ContextKind::ValidValue) {
                    valid if !valid.is_empty() => format!("expected one of {valid}"),
                    _ => "it is not valid".to_owned(),
                },
            };
            CliError::flag(format!("invalid argument {value:?} for {arg:?}: {reason}"))
        }
    }
}

/// `--ulimit <ULIMIT>` → `--ulimit`.
fn flag_name(text: &str) -> String {
    text.split([' ', '=']).next().unwrap_or(text).trim_matches(['<', '>', '[', ']', '.']).to_owned()
}

/// `requires exactly 1 argument`.
fn expected_arguments(command: &Command) -> String {
    let (mut least, mut most) = (0usize, Some(0usize));
    for arg in command.get_positionals() {
        let range = arg.get_num_args().unwrap_or_else(|| 1.into());
        least += if arg.is_required_set() { range.min_values().max(1) } else { 0 };
        most = match range.max_values() {
            usize::MAX => None,
            max => most.map(|n| n + max),
        };
    }
    let plural = |n: usize| if n == 1 { "argument" } else { "arguments" };
    match (least, most) {
        (0, Some(0)) => "accepts no arguments".to_owned(),
        (n, Some(m)) if n == m => format!("requires {n} {}", plural(n)),
        (0, Some(m)) => format!("accepts at most {m} {}", plural(m)),
        (n, Some(m)) => format!("requires at least {n} and at most {m} arguments"),
        (n, None) => format!("requires at least {n} {}", plural(n)),
    }
}

/// `ctr help [COMMAND…]`: of the whole program, of a group, of a command.
fn help(words: &[OsString], context: &mut Context) -> Result<ExitCode, CliError> {
    let name = words.iter().map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ");
    if name.is_empty() {
        return overview(context);
    }
    if GROUPS.iter().any(|(group, _)| *group == name) {
        return group_help(&name, context);
    }
    let entry = find(&name).ok_or_else(|| unknown_command(&name, ""))?;
    let text = definition(entry, &name).render_long_help();
    context.print(text.to_string().trim_end())?;
    Ok(ExitCode::SUCCESS)
}

fn about(entry: &CommandEntry) -> String {
    (entry.build)().get_about().map(|about| about.to_string()).unwrap_or_default()
}

fn overview(context: &mut Context) -> Result<ExitCode, CliError> {
    context.print("Usage:  ctr [OPTIONS] COMMAND\n\nA daemonless container engine: builds, moves and runs images\n")?;
    let top = |entry: &&CommandEntry| !entry.names[0].contains(' ');
    context.print("Common commands:")?;
    for entry in COMMANDS.iter().filter(top).filter(|e| e.common) {
        context.print(format_args!("  {:<11} {}", entry.names[0], about(entry)))?;
    }
    context.print("\nGroups:")?;
    for (name, about) in GROUPS {
        context.print(format_args!("  {name:<11} {about}"))?;
    }
    context.print("\nCommands:")?;
    let mut others: Vec<_> = COMMANDS.iter().filter(top).filter(|e| !e.common).collect();
    others.sort_by_key(|entry| entry.names[0]);
    for entry in others {
        context.print(format_args!("  {:<11} {}", entry.names[0], about(entry)))?;
    }
    context.print(
        "\nOptions:
      --root DIR    Where images and containers are kept (CTR_ROOT; /var/lib/ctr)
      --state DIR   Where sockets and locks are kept (CTR_STATE; /run/ctr)
      --additional-store DIR
                    Another data root whose images are used too and never written to; may be given
                    several times (CTR_ADDITIONAL_STORES: folders with colons between)
      --keep-blobs=false
                    Drop what was pulled once it is unpacked; a push or save fetches it again
                    (CTR_KEEP_BLOBS)
  -h, --help        Show this help
  -v, --version     Show the version

See 'ctr COMMAND --help' for more about a command.",
    )?;
    Ok(ExitCode::SUCCESS)
}

fn group_help(group: &str, context: &mut Context) -> Result<ExitCode, CliError> {
    let summary = GROUPS.iter().find(|(name, _)| *name == group).map_or("", |(_, about)| about);
    context.print(format_args!("Usage:  ctr {group} COMMAND\n\n{summary}\n\nCommands:"))?;
    let prefix = format!("{group} ");
    for entry in COMMANDS {
        if let Some(name) = entry.names.iter().find_map(|name| name.strip_prefix(&prefix)) {
            context.print(format_args!("  {name:<11} {}", about(entry)))?;
        }
    }
    context.print(format_args!("\nSee 'ctr {group} COMMAND --help' for more about a command."))?;
    Ok(ExitCode::SUCCESS)
}

/// The whole tree, for completions and manual pages.
pub(crate) fn full_tree() -> Command {
    let mut root = Command::new("ctr")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A daemonless container engine: builds, moves and runs images")
        .arg(clap::Arg::new("root").long("root").value_hint(clap::ValueHint::DirPath))
        .arg(clap::Arg::new("state").long("state").value_hint(clap::ValueHint::DirPath))
        .arg(clap::Arg::new("keep-blobs").long("keep-blobs").num_args(0..=1).require_equals(true))
        .arg(
            clap::Arg::new("additional-store")
                .long("additional-store")
                .action(clap::ArgAction::Append)
                .value_hint(clap::ValueHint::DirPath),
        );
    for (group, about) in GROUPS {
        let prefix = format!("{group} ");
        let mut command = Command::new(*group).about(*about);
        for entry in COMMANDS {
            if let Some(name) = entry.names.iter().find_map(|name| name.strip_prefix(&prefix)) {
                command = command.subcommand((entry.build)().name(name));
            }
        }
        root = root.subcommand(command);
    }
    for entry in COMMANDS {
        if let Some(name) = entry.names.iter().find(|name| !name.contains(' ')) {
            root = root.subcommand((entry.build)().name(*name));
        }
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_commands_definition_is_sound() {
        for entry in COMMANDS {
            for name in entry.names {
                let mut command = definition(entry, name);
                command.build();
                command.clone().debug_assert();
                assert!(command.get_about().is_some(), "{name} has no help text");
                for arg in command.get_arguments() {
                    assert!(arg.get_help().is_some() || arg.is_positional(), "{name}: {} has no help", arg.get_id());
                }
            }
        }
        full_tree().debug_assert();
    }

    #[test]
    fn a_truth_value_is_taken_at_its_word() -> Result<(), String> {
        for (name, flag, words) in [
            ("run", "sig_proxy", "--sig-proxy=false x"),
            ("start", "sig_proxy", "--sig-proxy=false x"),
            ("attach", "sig_proxy", "--sig-proxy=false x"),
            ("history", "human", "-H=false x"),
            ("pull", "tls_verify", "--tls-verify=false x"),
            ("push", "tls_verify", "--tls-verify=false x"),
            ("login", "tls_verify", "--tls-verify=false x"),
        ] {
            let entry = find(name).ok_or("no such command")?;
            let mut command = definition(entry, name);
            command.build();
            let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
            let words = normalise(&command, &words, entry.flags).map_err(|e| e.to_string())?;
            let matches = command.try_get_matches_from(std::iter::once("ctr".into()).chain(words));
            let value = matches.map_err(|e| e.to_string())?.get_one::<bool>(flag).copied();
            assert_eq!(value, Some(false), "{name}");
        }
        Ok(())
    }

    #[test]
    fn no_two_commands_share_a_name() {
        let mut names: Vec<_> = COMMANDS.iter().flat_map(|entry| entry.names).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
