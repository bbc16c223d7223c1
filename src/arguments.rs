//! From the words of the command line to what clap parses, by the rules users' fingers know.
//!
//! clap's own rules differ from those of docker's flag library in ways that scripts trip over: a value may start
//! with `-` (`--tail -1`), a switch may be switched off (`--rm=false`), flags of `run` and `exec` end at
//! the first positional word. So each word is looked up in the command's definition first and written in the one
//! form that cannot be misread – every value attached to its flag by `=`. Unknown flags are found here too,
//! which gives one clear line for them.

use crate::error::CliError;
use clap::{Arg, ArgAction, Command};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Whether flags may follow positional words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flags {
    /// Anywhere on the line.
    Anywhere,
    /// Up to the first positional word; what follows is the container's command.
    First,
}

/// Rewrites `words` for `command` into a form without ambiguity.
pub(crate) fn normalise(command: &Command, words: &[OsString], flags: Flags) -> Result<Vec<OsString>, CliError> {
    let mut made = Vec::with_capacity(words.len() + 1);
    let mut positionals = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let bytes = word.as_bytes();
        if bytes == b"--" {
            positionals.extend(words.by_ref().cloned());
        } else if bytes.starts_with(b"--") {
            made.extend(long(command, word, &mut words)?);
        } else if bytes.len() > 1 && bytes[0] == b'-' {
            made.extend(shorts(command, word, &mut words)?);
        } else {
            positionals.push(word.clone());
            if flags == Flags::First {
                positionals.extend(words.by_ref().cloned());
            }
        }
    }
    if !positionals.is_empty() {
        made.push("--".into());
        made.append(&mut positionals);
    }
    Ok(made)
}

/// `--name`, `--name=value` or `--name value`.
fn long<'a>(
    command: &Command,
    word: &OsStr,
    rest: &mut impl Iterator<Item = &'a OsString>,
) -> Result<Option<OsString>, CliError> {
    let bytes = &word.as_bytes()[2..];
    let (name, value) = match bytes.iter().position(|b| *b == b'=') {
        Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
        None => (bytes, None),
    };
    let name = String::from_utf8_lossy(name);
    let Some(arg) = find_long(command, &name) else {
        return Err(unknown_flag(command, &name));
    };
    let flag = format!("--{}", arg.get_long().unwrap_or(&name));
    match (takes_value(arg), value) {
        (false, None) => Ok(Some(flag.into())),
        (false, Some(value)) => switch(&flag, &String::from_utf8_lossy(value)),
        (true, Some(value)) => Ok(Some(attach(&flag, OsStr::from_bytes(value)))),
        (true, None) if value_is_optional(arg) => Ok(Some(flag.into())),
        (true, None) => match rest.next() {
            Some(value) => Ok(Some(attach(&flag, value))),
            None => Err(CliError::flag(format!("flag needs an argument: {flag}"))),
        },
    }
}

/// `-d`, `-dit`, `-p80:80`, `-p=80:80`, `-p 80:80`, `-itp 80:80`.
fn shorts<'a>(
    command: &Command,
    word: &OsStr,
    rest: &mut impl Iterator<Item = &'a OsString>,
) -> Result<Vec<OsString>, CliError> {
    let shown = word.to_string_lossy();
    let mut made = Vec::new();
    let mut bytes = &word.as_bytes()[1..];
    while let Some((first, after)) = bytes.split_first() {
        let letter = char::from(*first);
        let Some(arg) = command.get_arguments().find(|a| a.get_short() == Some(letter)) else {
            let letter = shown.chars().nth(shown.len().saturating_sub(bytes.len())).unwrap_or(letter);
            return Err(CliError::flag(format!("unknown shorthand flag: '{letter}' in {shown}")));
        };
        let flag = format!("-{letter}");
        bytes = after;
        let value = after.strip_prefix(b"=");
        match (takes_value(arg), value, after.is_empty()) {
            (false, Some(value), _) => {
                made.extend(switch(&flag, &String::from_utf8_lossy(value))?);
                break;
            }
            (false, None, _) => made.push(flag.into()),
            (true, _, false) => {
                made.push(attach(&flag, OsStr::from_bytes(value.unwrap_or(after))));
                break;
            }
            (true, _, true) if value_is_optional(arg) => made.push(flag.into()),
            (true, _, true) => match rest.next() {
                Some(value) => made.push(attach(&flag, value)),
                None => return Err(CliError::flag(format!("flag needs an argument: '{letter}' in {shown}"))),
            },
        }
    }
    Ok(made)
}

/// A switch with an explicit value: the flag itself, or nothing.
fn switch(flag: &str, value: &str) -> Result<Option<OsString>, CliError> {
    Ok(truth(&format!("\"{flag}\" flag"), value)?.then(|| flag.into()))
}

/// Yes or no, in all the words that docker's flags take for it.
pub(crate) fn truth(name: &str, value: &str) -> Result<bool, CliError> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(CliError::flag(format!("invalid argument {value:?} for {name}: expected true or false"))),
    }
}

fn attach(flag: &str, value: &OsStr) -> OsString {
    let mut bytes = flag.as_bytes().to_vec();
    bytes.push(b'=');
    bytes.extend_from_slice(value.as_bytes());
    OsString::from_vec(bytes)
}

fn find_long<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| {
        arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
    })
}

fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

fn value_is_optional(arg: &Arg) -> bool {
    arg.get_num_args().is_some_and(|range| range.min_values() == 0)
}

fn unknown_flag(command: &Command, name: &str) -> CliError {
    let error = CliError::flag(format!("unknown flag: --{name}"));
    let known = command.get_arguments().filter(|a| !a.is_hide_set()).filter_map(Arg::get_long);
    match closest(name, known) {
        Some(near) => error.with_hint(format!("did you mean --{near}?")),
        None => error,
    }
}

/// The word among `known` that `name` was most likely meant to be.
pub(crate) fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).clamp(1, 3);
    known.map(|word| (distance(name, word), word)).filter(|(d, _)| *d <= limit).min().map(|(_, word)| word)
}

/// Damerau-Levenshtein distance (adjacent swaps count once): how many slips of the finger apart.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut before = vec![0; b.len() + 1];
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let changed = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (previous[j] + 1).min(row[j - 1] + 1).min(previous[j - 1] + changed);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut previous, row);
    }
    previous[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let switch = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
        Command::new("t")
            .arg(switch("detach").short('d'))
            .arg(switch("interactive").short('i'))
            .arg(Arg::new("env").long("env").short('e').action(ArgAction::Append))
            .arg(Arg::new("network").long("network").alias("net"))
            .arg(Arg::new("proxy").long("sig-proxy").num_args(0..=1).require_equals(true))
            .arg(Arg::new("args").num_args(0..))
    }

    fn check(line: &str, expected: &str) {
        check_flags(line, expected, Flags::First);
    }

    fn check_flags(line: &str, expected: &str, flags: Flags) {
        let words: Vec<OsString> = line.split(' ').filter(|w| !w.is_empty()).map(OsString::from).collect();
        let made = match normalise(&command(), &words, flags) {
            Ok(made) => made.iter().map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" "),
            Err(error) => format!("{error}"),
        };
        assert_eq!(made, expected, "{line}");
    }

    #[test]
    fn values_are_attached() {
        check("-e A=1 --env B=2 --env=C -eD", "-e=A=1 --env=B=2 --env=C -e=D");
        check("-e -x --env --net", "-e=-x --env=--net");
        check("-die A=1 x", "-d -i -e=A=1 -- x");
        check("--net host", "--network=host");
        check("--sig-proxy --sig-proxy=false", "--sig-proxy --sig-proxy=false");
    }

    #[test]
    fn switches_may_be_switched_off() {
        check("--detach=false -d=true --detach=1", "-d --detach");
        check("--detach=maybe", "invalid argument \"maybe\" for \"--detach\" flag: expected true or false");
    }

    #[test]
    fn flags_end_at_the_first_word_where_asked() {
        check("-d image -d --net x", "-d -- image -d --net x");
        check("image -- -d", "-- image -- -d");
        check("-d -- -i", "-d -- -i");
        check_flags("a -d b -e X c", "-d -e=X -- a b c", Flags::Anywhere);
        check_flags("a - b", "-- a - b", Flags::Anywhere);
    }

    #[test]
    fn unknown_flags_are_one_line() {
        check("--nope", "unknown flag: --nope");
        check("-dx", "unknown shorthand flag: 'x' in -dx");
        check("--env", "flag needs an argument: --env");
        check("-de", "flag needs an argument: 'e' in -de");
        let error = normalise(&command(), &["--netwrok".into()], Flags::First).err();
        assert_eq!(error.and_then(|e| e.hint().map(str::to_owned)), Some("did you mean --network?".to_owned()));
    }

    #[test]
    fn slips_of_the_finger_are_recognised() {
        let known = ["run", "rm", "ps", "push", "pull", "images"];
        for (typed, meant) in [("rnu", Some("run")), ("psuh", Some("push")), ("imags", Some("images")), ("xyzzy", None)]
        {
            assert_eq!(closest(typed, known.into_iter()), meant, "{typed}");
        }
    }
}
