//! Ignore files: which of the context's paths COPY and ADD see.
//!
//! Not gitignore's rules: a pattern is always anchored at the context's root, `*` stops at `/`, `**` does not, and
//! the last match wins. What lies under a matched folder is matched with it, unless a later `!` re-admits it.

use crate::context_file;
use crate::step_error::{StepError, StepResult};
use std::path::{Path, PathBuf};

/// More rules than any real ignore file has.
const MAX_RULES: usize = 10_000;
/// The longest ignore file read, in bytes.
const MAX_IGNORE_FILE_BYTES: u64 = 1 << 20;

/// Why an ignore file is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum IgnoreError {
    #[error("line {0}: {1:?} excludes nothing: a pattern must follow the !")]
    LoneBang(usize, String),
    #[error("line {0}: {1:?}: {2}")]
    Pattern(usize, String, &'static str),
    #[error("more than {MAX_RULES} rules")]
    TooMany,
}

/// A parsed ignore file.
#[derive(Clone, Debug, Default)]
pub(crate) struct IgnoreRules {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    readmits: bool,
    components: Vec<Component>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Component {
    /// `**`: any number of components.
    Any,
    Glob(Glob),
}

impl IgnoreRules {
    /// Parses an ignore file's text.
    pub(crate) fn parse(text: &str) -> Result<IgnoreRules, IgnoreError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rules = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.starts_with('#') {
                continue;
            }
            let pattern = line.trim();
            if pattern.is_empty() {
                continue;
            }
            if let Some(rule) = Rule::parse(pattern, index + 1)? {
                rules.push(rule);
            }
            if rules.len() > MAX_RULES {
                return Err(IgnoreError::TooMany);
            }
        }
        Ok(IgnoreRules { rules })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether `path` (relative to the context, clean) is ignored.
    pub(crate) fn ignores(&self, path: &Path) -> bool {
        let parts = components(path);
        let last_match = self.rules.iter().rev().find(|rule| rule.matches_or_covers(&parts));
        !parts.is_empty() && last_match.is_some_and(|rule| !rule.readmits)
    }

    /// Whether an ignored folder need not even be read: nothing in it can be re-admitted.
    pub(crate) fn prunes(&self, folder: &Path) -> bool {
        self.ignores(folder) && !self.rules.iter().any(|rule| rule.readmits)
    }
}

fn components(path: &Path) -> Vec<&str> {
    path.iter().map(|part| part.to_str().unwrap_or("\u{fffd}")).collect()
}

impl Rule {
    fn parse(pattern: &str, line: usize) -> Result<Option<Rule>, IgnoreError> {
        let (readmits, pattern) = match pattern.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, pattern),
        };
        if readmits && pattern.is_empty() {
            return Err(IgnoreError::LoneBang(line, "!".to_owned()));
        }
        let mut parts: Vec<Component> = Vec::new();
        for part in pattern.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                "**" => parts.push(Component::Any),
                part => {
                    let glob = Glob::parse(part).map_err(|why| IgnoreError::Pattern(line, pattern.to_owned(), why))?;
                    parts.push(Component::Glob(glob));
                }
            }
        }
        parts.dedup_by(|a, b| *a == Component::Any && *b == Component::Any);
        // `.` alone cleans to nothing: it matches no path of the context.
        Ok((!parts.is_empty()).then_some(Rule { readmits, components: parts }))
    }

    /// Whether the rule matches `path` or one of the folders above it.
    fn matches_or_covers(&self, path: &[&str]) -> bool {
        // reach[n]: the components so far match the first n parts of the path.
        let mut reach = vec![false; path.len() + 1];
        reach[0] = true;
        for (index, component) in self.components.iter().enumerate() {
            let mut next = vec![false; path.len() + 1];
            let mut before = false;
            // `a/**` is what lies in a, not a itself.
            let at_least_one = index + 1 == self.components.len();
            for n in 0..=path.len() {
                next[n] = match component {
                    Component::Any if at_least_one => before,
                    Component::Any => before || reach[n],
                    Component::Glob(glob) => n > 0 && reach[n - 1] && glob.matches(path[n - 1]),
                };
                before |= reach[n];
            }
            reach = next;
        }
        reach.iter().skip(1).any(|reached| *reached)
    }
}

/// One path component's pattern: `*`, `?`, `[a-z]`, `\` escapes – Go's filepath.Match, which COPY uses too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob {
    items: Vec<GlobItem>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum GlobItem {
    Literal(char),
    Any,
    Many,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Glob {
    pub(crate) fn parse(text: &str) -> Result<Glob, &'static str> {
        let mut items: Vec<GlobItem> = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            items.push(match c {
                '*' if items.last() == Some(&GlobItem::Many) => continue,
                '*' => GlobItem::Many,
                '?' => GlobItem::Any,
                '\\' => GlobItem::Literal(chars.next().ok_or("a pattern may not end in a backslash")?),
                '[' => parse_class(&mut chars)?,
                c => GlobItem::Literal(c),
            });
        }
        Ok(Glob { items })
    }

    /// The text the pattern matches, where it is only one.
    pub(crate) fn literal(&self) -> Option<String> {
        self.items.iter().map(|item| if let GlobItem::Literal(c) = item { Some(*c) } else { None }).collect()
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        // The classic two-pointer walk: on a mismatch, the last `*` takes one character more.
        let (mut item, mut at) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while at < text.len() {
            match self.items.get(item) {
                Some(GlobItem::Many) => {
                    star = Some((item, at));
                    item += 1;
                }
                Some(one) if one.matches(text[at]) => (item, at) = (item + 1, at + 1),
                _ => match star {
                    Some((star_item, star_at)) => {
                        star = Some((star_item, star_at + 1));
                        (item, at) = (star_item + 1, star_at + 1);
                    }
                    None => return false,
                },
            }
        }
        self.items[item..].iter().all(|rest| *rest == GlobItem::Many)
    }
}

impl GlobItem {
    fn matches(&self, c: char) -> bool {
        match self {
            GlobItem::Literal(literal) => *literal == c,
            GlobItem::Any => true,
            GlobItem::Many => false,
            GlobItem::Class { negated, ranges } => ranges.iter().any(|(lo, hi)| (*lo..=*hi).contains(&c)) != *negated,
        }
    }
}

fn parse_class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<GlobItem, &'static str> {
    const OPEN: &str = "a [ has no closing ]";
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let one = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| match chars.next() {
            Some('\\') => chars.next().ok_or(OPEN),
            other => other.ok_or(OPEN),
        };
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Ok(GlobItem::Class { negated, ranges });
        }
        let low = one(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { one(chars)? } else { low };
        ranges.push((low, high));
    }
}

/// Whether an ignore file of this text hides a path of its context; None where the text is no ignore file.
pub fn ignores(rules: &str, path: &Path) -> Option<bool> {
    let clean: PathBuf = path.components().filter(is_name).collect();
    IgnoreRules::parse(rules).ok().map(|rules| rules.ignores(&clean))
}

/// The rules of a context: of the file beside the recipe, else of the context's own.
pub(crate) fn ignore_rules(context: &Path, containerfile: Option<&Path>) -> StepResult<IgnoreRules> {
    let beside = containerfile.map(|path| {
        let mut name = path.to_owned().into_os_string();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    let in_context = [".containerignore", ".dockerignore"].map(|name| context.join(name));
    for path in beside.into_iter().chain(in_context) {
        // Beside a recipe that the user named it is his own file.
        let inner = path.strip_prefix(context).ok().filter(|inner| inner.components().all(|c| is_name(&c)));
        let text = match inner {
            Some(inner) => context_file::read_in(context, inner, MAX_IGNORE_FILE_BYTES),
            None => context_file::read(&path, MAX_IGNORE_FILE_BYTES),
        };
        let Some(text) = text.map_err(|e| StepError::io("read", &path, e))? else { continue };
        let rules = IgnoreRules::parse(&String::from_utf8_lossy(&text));
        return rules.map_err(|error| StepError::wrong(format!("{}: {error}", path.display())));
    }
    Ok(IgnoreRules::default())
}

fn is_name(component: &std::path::Component<'_>) -> bool {
    matches!(component, std::path::Component::Normal(_))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn ignored(rules: &str, path: &str) -> bool {
        IgnoreRules::parse(rules).unwrap().ignores(Path::new(path))
    }

    #[test]
    fn rules_match_as_docker_has_them() {
        for (rules, path, expected) in [
            ("a", "a", true),
            ("a", "a/b", true),
            ("a", "b/a", false),
            ("/a", "a", true),
            ("a/", "a", true),
            ("./a", "a", true),
            ("x/../a", "a", true),
            ("../a", "a", true),
            ("a/b", "a", false),
            ("*", "a", true),
            ("*", "a/b", true),
            (".", "a", false),
            ("*.md", "x.md", true),
            ("*.md", "d/x.md", false),
            ("*/*.md", "d/x.md", true),
            ("**/*.md", "x.md", true),
            ("**/*.md", "d/e/x.md", true),
            ("**", "a/b", true),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("**/a/**", "a/b", true),
            ("**/a/**", "x/a", false),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("**/node_modules", "p/node_modules/x", true),
            ("te?t", "test", true),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("#a", "#a", false),
            (" #a", "#a", true),
            ("a \n", "a", true),
            ("*\n!a", "a", false),
            ("*\n!a", "a/b", false),
            ("a\n!a/keep", "a/keep", false),
            ("a\n!a/keep", "a/other", true),
            ("!a\n*", "a", true),
            ("*\n!a\na/b", "a/b", true),
            ("! a\n*\n! a", "a", false),
            ("a\r\nb\r\n", "b", true),
        ] {
            assert_eq!(ignored(rules, path), expected, "{rules:?} on {path}");
        }
        assert!(IgnoreRules::parse("a\n!\n").is_err());
        assert!(IgnoreRules::parse("[a").is_err());
    }

    #[test]
    fn a_folder_is_read_only_where_something_in_it_may_be_readmitted() {
        assert!(IgnoreRules::parse("a").unwrap().prunes(Path::new("a")));
        assert!(!IgnoreRules::parse("a\n!a/b").unwrap().prunes(Path::new("a")));
        assert!(!IgnoreRules::parse("a").unwrap().prunes(Path::new("b")));
    }

    proptest! {
        #[test]
        fn matching_never_panics(rules in "([*?!/.\\[\\]^a-c\\\\-]|\n|\\PC){0,40}", path in "[a-c/.*]{0,20}") {
            if let Ok(rules) = IgnoreRules::parse(&rules) {
                let _ = rules.ignores(Path::new(&path));
            }
        }
    }
}
