//! Arguments, by hand: a runtime is started for every container, and an argument parser costs more than the rest of its start.

use super::CliError;
use std::collections::HashMap;

/// A command's arguments, sorted: options may stand before and after words.
#[derive(Debug, Default)]
pub(crate) struct Args {
    values: HashMap<&'static str, Vec<String>>,
    pub(crate) words: Vec<String>,
}

/// An option: its long name, its one-letter name, and whether it takes a value.
pub(crate) type OptionSpec = (&'static str, Option<char>, bool);

impl Args {
    /// Sorts arguments. `--` ends the options, and so does the word number `until` (the command among the global options,
    /// exec's program): whatever follows is a word.
    pub(crate) fn parse(args: &[String], known: &[OptionSpec], until: usize) -> Result<Args, CliError> {
        let mut parsed = Args::default();
        let mut rest = args.iter();
        while parsed.words.len() < until
            && let Some(arg) = rest.next()
        {
            if arg == "--" {
                break;
            }
            match arg.strip_prefix('-').filter(|name| !name.is_empty()) {
                None => parsed.words.push(arg.clone()),
                Some(name) => parsed.option(name.strip_prefix('-').unwrap_or(name), arg, known, &mut rest)?,
            }
        }
        parsed.words.extend(rest.cloned());
        Ok(parsed)
    }

    fn option(
        &mut self,
        name: &str,
        arg: &str,
        known: &[OptionSpec],
        rest: &mut std::slice::Iter<'_, String>,
    ) -> Result<(), CliError> {
        let (name, inline) = name.split_once('=').map_or((name, None), |(name, value)| (name, Some(value.to_owned())));
        let is_it = |spec: &&OptionSpec| spec.0 == name || spec.1.is_some_and(|short| name.chars().eq([short]));
        let Some((long, _, takes_value)) = known.iter().find(is_it) else {
            return Err(CliError::new(format!("flag provided but not defined: {arg}")));
        };
        let value = match (takes_value, inline) {
            (false, None) => "true".to_owned(),
            (_, Some(value)) => value,
            (true, None) => {
                let value = rest.next().ok_or_else(|| CliError::new(format!("flag needs an argument: {arg}")))?;
                value.clone()
            }
        };
        self.values.entry(long).or_default().push(value);
        Ok(())
    }

    /// The last value of an option.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.all(name).last().map(String::as_str)
    }

    pub(crate) fn all(&self, name: &str) -> &[String] {
        self.values.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| value != "false")
    }

    /// The value of an option that takes a number.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, CliError> {
        let wrong = |value| CliError::new(format!("invalid value {value:?} for --{name}: a number is expected"));
        self.value(name).map(|value| value.parse().map_err(|_| wrong(value))).transpose()
    }

    /// The only word: a container's id.
    pub(crate) fn id(&self) -> Result<&str, CliError> {
        match self.words.as_slice() {
            [id] => Ok(id),
            [] => Err(CliError::new("container id cannot be empty")),
            words => Err(CliError::new(format!("expected one container id, got {}", words.join(" ")))),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn options_stand_before_and_after_words() {
        let known: &[OptionSpec] =
            &[("bundle", Some('b'), true), ("detach", Some('d'), false), ("tty", Some('t'), false)];
        let parse = |text: &str, until: usize| {
            Args::parse(&text.split(' ').map(str::to_owned).collect::<Vec<_>>(), known, until)
        };
        let parsed = parse("-b /x id --detach", usize::MAX).unwrap();
        assert_eq!((parsed.value("bundle"), parsed.flag("detach"), parsed.id().unwrap()), (Some("/x"), true, "id"));
        let parsed = parse("--bundle=/x id -t sh -c x", 2).unwrap();
        assert_eq!((parsed.value("bundle"), parsed.flag("tty")), (Some("/x"), true));
        assert_eq!(parsed.words, ["id", "sh", "-c", "x"]);
        assert_eq!(parse("id -t -- -x --", 2).unwrap().words, ["id", "-x", "--"]);
        assert!(!parse("--detach=false id", 1).unwrap().flag("detach"));
        assert!(parse("--bogus", 1).is_err());
        assert!(parse("id --bundle", usize::MAX).is_err());
    }
}
