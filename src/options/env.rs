//! `-e`, `--env-file`, `-l` and `--label-file`: lists of NAME=VALUE from the line and from files.

use crate::error::CliError;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// The longest line of an env file, in bytes.
const MAX_LINE_BYTES: usize = 64 << 10;
/// The largest env file read, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// A variable and its value; no value means the variable of that name is taken out of the image's.
pub(crate) type Variable = (String, Option<String>);

/// Files first, in their order, then `-e`; what comes later wins. `lookup` knows the caller's environment.
pub(crate) fn variables(
    files: &[String],
    list: &[String],
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Variable>, CliError> {
    let mut made = Vec::new();
    for file in files {
        for (name, value) in read_file(file, "env", lookup)? {
            set(&mut made, name, Some(value));
        }
    }
    for text in list {
        match text.split_once('=') {
            Some(("", _)) | None if text.is_empty() || text.starts_with('=') => {
                return Err(CliError::flag(format!("invalid environment variable: {text}: no name before '='")));
            }
            Some((name, value)) => set(&mut made, name.to_owned(), Some(value.to_owned())),
            None => set(&mut made, text.clone(), lookup(text)),
        }
    }
    Ok(made)
}

/// `--label-file` first, then `-l`. A label without `=` is empty.
pub(crate) fn labels(files: &[String], list: &[String]) -> Result<Vec<(String, String)>, CliError> {
    let mut made = Vec::new();
    for file in files {
        made.extend(read_file(file, "label", &|_| Some(String::new()))?);
    }
    for text in list {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        if name.is_empty() {
            return Err(CliError::flag(format!("invalid label {text:?}: no name before '='")));
        }
        made.push((name.to_owned(), value.to_owned()));
    }
    Ok(made)
}

fn set(list: &mut Vec<Variable>, name: String, value: Option<String>) {
    list.retain(|(n, _)| *n != name);
    list.push((name, value));
}

fn read_file(
    file: &str,
    kind: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<(String, String)>, CliError> {
    let wrong = |why: String| CliError::flag(format!("invalid {kind} file ({file}): {why}"));
    let open = |path: &str| std::fs::File::open(Path::new(path));
    let reader = open(file).map_err(|e| CliError::flag(format!("open {file}: {}", e.to_string().to_lowercase())))?;
    if reader.metadata().is_ok_and(|m| m.is_dir()) {
        return Err(CliError::flag(format!("read {file}: is a directory")));
    }
    parse(reader.take(MAX_FILE_BYTES), lookup).map_err(wrong)
}

fn parse(reader: impl Read, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Vec<(String, String)>, String> {
    let mut reader = BufReader::new(reader);
    let mut made = Vec::new();
    for number in 1.. {
        let mut line = Vec::new();
        let limit = MAX_LINE_BYTES as u64 + 1;
        let got = reader.by_ref().take(limit).read_until(b'\n', &mut line).map_err(|e| e.to_string())?;
        if got == 0 {
            break;
        }
        if line.len() > MAX_LINE_BYTES {
            return Err(format!("line {number} is longer than {} KiB", MAX_LINE_BYTES >> 10));
        }
        if line.ends_with(b"\n") {
            line.pop();
        }
        if line.ends_with(b"\r") {
            line.pop();
        }
        let text = std::str::from_utf8(&line)
            .map_err(|_| format!("invalid utf8 bytes at line {number}: {}", String::from_utf8_lossy(&line)))?;
        let text = if number == 1 { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text };
        made.extend(parse_line(text, lookup)?);
    }
    Ok(made)
}

fn parse_line(line: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Option<(String, String)>, String> {
    let line = line.trim_start();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (name, value) = match line.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (line, None),
    };
    // Docker allows white space behind the last name of a line without `=`, and nowhere else.
    let name = if value.is_none() { name.trim_end() } else { name };
    if name.is_empty() {
        return Err(format!("no variable name on line '{line}'"));
    }
    if name.contains(char::is_whitespace) {
        return Err(format!("variable '{name}' contains whitespaces"));
    }
    Ok(value.or_else(|| lookup(name)).map(|value| (name.to_owned(), value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        (name == "HOME").then(|| "/root".to_owned())
    }

    fn check(text: &[u8], expected: Result<&[(&str, &str)], &str>) {
        let made = parse(text, &lookup);
        let expected = expected
            .map(|list| list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect::<Vec<_>>())
            .map_err(str::to_owned);
        assert_eq!(made, expected, "{:?}", String::from_utf8_lossy(text));
    }

    #[test]
    fn env_files_have_few_rules() {
        check(b"A=1\nB=2\n", Ok(&[("A", "1"), ("B", "2")]));
        check(b"\xef\xbb\xbfA=1", Ok(&[("A", "1")]));
        check(b"  A=1  \r\n\tB=\r\n", Ok(&[("A", "1  "), ("B", "")]));
        check(b"# no\n  # no\nA=#yes\n\n", Ok(&[("A", "#yes")]));
        check(b"A=\"q\"\nB='q'\nC=a=b", Ok(&[("A", "\"q\""), ("B", "'q'"), ("C", "a=b")]));
        check(b"HOME\nNOT_SET\n", Ok(&[("HOME", "/root")]));
        check(b"=x", Err("no variable name on line '=x'"));
        check(b"a b=c", Err("variable 'a b' contains whitespaces"));
        check(b"A =c", Err("variable 'A ' contains whitespaces"));
        check(b"A=1\nB=\xff\xfe", Err("invalid utf8 bytes at line 2: B=\u{fffd}\u{fffd}"));
        check(&[b'a'; MAX_LINE_BYTES + 1], Err("line 1 is longer than 64 KiB"));
    }

    #[test]
    fn the_last_variable_wins() -> Result<(), CliError> {
        let list: Vec<String> = ["A=1", "HOME", "UNSET", "A=2"].map(str::to_owned).into();
        let made = variables(&[], &list, &lookup)?;
        let expected: Vec<Variable> =
            vec![("HOME".into(), Some("/root".into())), ("UNSET".into(), None), ("A".into(), Some("2".into()))];
        assert_eq!(made, expected);
        assert!(variables(&[], &["=x".to_owned()], &lookup).is_err());
        assert!(variables(&[], &[String::new()], &lookup).is_err());
        let missing = variables(&["/nonexistent".to_owned()], &[], &lookup).err().map(|e| e.to_string());
        assert_eq!(missing.as_deref(), Some("open /nonexistent: no such file or directory"));
        Ok(())
    }
}
