//! Text → syntax tree: directives, comments, continuation lines, flags, JSON forms and heredocs. What an
//! instruction means is not known here.

mod heredoc;
mod lines;

pub(crate) use heredoc::Heredoc;

use crate::error::{BuildError, SourceLine};
use crate::event::Warning;
use crate::request::Containerfile;
use lines::Lines;

/// A range of lines, both ends included, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: usize,
    pub(crate) last: usize,
}

/// The recipe's lines, kept to be shown in messages.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) lines: Vec<String>,
}

impl Source {
    /// The first line of `span`, for an error.
    pub(crate) fn line(&self, span: Span) -> SourceLine {
        let text = self.lines.get(span.first.saturating_sub(1)).cloned().unwrap_or_default();
        SourceLine { file: self.name.clone(), line: span.first, text }
    }

    pub(crate) fn error(&self, span: Span, message: impl Into<String>) -> BuildError {
        BuildError::Containerfile { message: message.into(), at: Some(self.line(span)), hint: None }
    }

    pub(crate) fn error_with_hint(&self, span: Span, message: impl Into<String>, hint: Option<String>) -> BuildError {
        BuildError::Containerfile { message: message.into(), at: Some(self.line(span)), hint }
    }

    pub(crate) fn warning(&self, rule: &'static str, span: Span, message: impl Into<String>) -> Warning {
        Warning { rule, message: message.into(), location: Some(format!("{}:{}", self.name, span.first)) }
    }
}

/// `# key=value` lines at the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directives {
    /// What escapes and continues lines: `\` or `` ` ``.
    pub(crate) escape: char,
    /// `check=skip=…`: lint rules not wanted.
    pub(crate) skipped_rules: Vec<String>,
    /// `check=error=true`: a warning is an error.
    pub(crate) warnings_fail: bool,
}

/// A `--name[=value]` between the keyword and the arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flag {
    pub(crate) name: String,
    pub(crate) value: Option<String>,
}

/// One instruction, not yet understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// As written: `run`, `RUN`.
    pub(crate) keyword: String,
    pub(crate) flags: Vec<Flag>,
    /// What follows the flags, continuation lines joined.
    pub(crate) arguments: String,
    /// [`Node::arguments`] where they are a JSON list of strings.
    pub(crate) json: Option<Vec<String>>,
    pub(crate) heredocs: Vec<Heredoc>,
    /// The logical line, for messages.
    pub(crate) text: String,
    pub(crate) span: Span,
}

/// A whole recipe.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) source: Source,
    pub(crate) directives: Directives,
    pub(crate) nodes: Vec<Node>,
    pub(crate) warnings: Vec<Warning>,
}

/// More instructions than any real recipe has; a limit so that nothing later grows without one.
const MAX_INSTRUCTIONS: usize = 10_000;

/// Parses a recipe. Nothing is looked at but syntax.
pub(crate) fn parse(file: &Containerfile) -> Result<Document, BuildError> {
    let text = decode(file)?;
    let source = Source { name: file.name.clone(), lines: text.lines().map(str::to_owned).collect() };
    let directives = parse_directives(&source)?;
    let mut lines = Lines::new(&source, directives.escape);
    let mut nodes = Vec::new();
    while let Some(logical) = lines.next_logical() {
        let mut node = parse_node(&logical.text, logical.span, directives.escape, &source)?;
        for heredoc in &mut node.heredocs {
            *heredoc = lines.read_heredoc(heredoc, logical.span)?;
            node.span.last = lines.line_number();
        }
        nodes.push(node);
        if nodes.len() > MAX_INSTRUCTIONS {
            return Err(source.error(logical.span, format!("more than {MAX_INSTRUCTIONS} instructions")));
        }
    }
    let warnings = lines.into_warnings();
    Ok(Document { source, directives, nodes, warnings })
}

/// Parses the text of an ONBUILD trigger, which is one instruction on one line.
pub(crate) fn parse_trigger(text: &str, span: Span, escape: char, source: &Source) -> Result<Node, BuildError> {
    let (first, body) = text.split_once('\n').unwrap_or((text, ""));
    let mut node = parse_node(first.trim(), span, escape, source)?;
    let body = Source { name: source.name.clone(), lines: body.lines().map(str::to_owned).collect() };
    let mut lines = Lines::new(&body, escape);
    for heredoc in &mut node.heredocs {
        *heredoc = lines.read_heredoc(heredoc, span).map_err(|_| source.error(span, "unterminated heredoc"))?;
    }
    Ok(node)
}

fn decode(file: &Containerfile) -> Result<&str, BuildError> {
    let bytes = file.text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&file.text);
    std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = before.split(|&b| b == b'\n').count();
        let start = before.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        let end = bytes[start..].iter().position(|&b| b == b'\n').map_or(bytes.len(), |at| start + at);
        let text = String::from_utf8_lossy(&bytes[start..end]).into_owned();
        BuildError::Containerfile {
            message: "not valid UTF-8".to_owned(),
            at: Some(SourceLine { file: file.name.clone(), line, text }),
            hint: Some("save the file as UTF-8 text".to_owned()),
        }
    })
}

/// Directives stand first, before any other comment, blank line or instruction; unknown ones are comments.
fn parse_directives(source: &Source) -> Result<Directives, BuildError> {
    let mut found = Directives { escape: '\\', skipped_rules: Vec::new(), warnings_fail: false };
    let mut seen: Vec<String> = Vec::new();
    for (index, line) in source.lines.iter().enumerate() {
        let span = Span { first: index + 1, last: index + 1 };
        let Some((key, value)) = line.trim().strip_prefix('#').and_then(|rest| rest.split_once('=')) else { break };
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
        if !matches!(key.as_str(), "escape" | "syntax" | "check") {
            break;
        }
        if seen.contains(&key) {
            return Err(source.error(span, format!("only one {key} parser directive can be used")));
        }
        match key.as_str() {
            "escape" => {
                found.escape = match value {
                    "\\" => '\\',
                    "`" => '`',
                    _ => return Err(source.error(span, format!("invalid escape token {value:?}: expected \\ or `"))),
                }
            }
            "check" => {
                found.skipped_rules = skipped_rules(value);
                found.warnings_fail = value.split(';').any(|option| option.trim().eq_ignore_ascii_case("error=true"));
            }
            _ => {}
        }
        seen.push(key);
    }
    Ok(found)
}

/// `skip=RULE,RULE;error=true`
fn skipped_rules(value: &str) -> Vec<String> {
    let skip = value.split(';').filter_map(|option| option.trim().strip_prefix("skip="));
    skip.flat_map(|rules| rules.split(',')).map(|rule| rule.trim().to_owned()).collect()
}

fn parse_node(text: &str, span: Span, escape: char, source: &Source) -> Result<Node, BuildError> {
    let (keyword, rest) = split_keyword(text);
    let (flags, arguments) = split_flags(rest, escape);
    let json = parse_json(arguments);
    let heredocs = heredoc_words(keyword, arguments, json.is_some(), escape)
        .ok_or_else(|| source.error(span, "too many heredocs in one instruction"))?;
    Ok(Node {
        keyword: keyword.to_owned(),
        flags,
        arguments: arguments.to_owned(),
        json,
        heredocs,
        text: text.to_owned(),
        span,
    })
}

pub(crate) fn split_keyword(text: &str) -> (&str, &str) {
    let text = text.trim();
    text.split_once(|c: char| c.is_ascii_whitespace())
        .map_or((text, ""), |(keyword, rest)| (keyword, rest.trim_start()))
}

/// The heredocs an instruction announces; ONBUILD's are those of its trigger. None: too many.
fn heredoc_words(keyword: &str, arguments: &str, is_json: bool, escape: char) -> Option<Vec<Heredoc>> {
    let is = |name: &str| keyword.eq_ignore_ascii_case(name);
    if is("ONBUILD") {
        let (trigger, rest) = split_keyword(arguments);
        let (_, rest) = split_flags(rest, escape);
        return match trigger.eq_ignore_ascii_case("ONBUILD") {
            true => Some(Vec::new()),
            false => heredoc_words(trigger, rest, parse_json(rest).is_some(), escape),
        };
    }
    if is_json || !(is("RUN") || is("COPY") || is("ADD")) {
        return Some(Vec::new());
    }
    heredoc::announced(arguments, escape)
}

/// Leading `--name[=value]` words, quotes and escapes undone; a bare `--` ends them.
fn split_flags(text: &str, escape: char) -> (Vec<Flag>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (word, after) = take_flag_word(rest, escape);
        rest = after.trim_start();
        let Some(word) = word.strip_prefix("--").filter(|word| !word.is_empty()) else { break };
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word, None),
        };
        flags.push(Flag { name: name.to_owned(), value });
    }
    (flags, rest.trim_end())
}

fn take_flag_word(text: &str, escape: char) -> (String, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (c, quote) {
            (c, None) if c.is_whitespace() => return (word, &text[at..]),
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => quote = Some(c),
            (c, _) if c == escape => match chars.next() {
                Some((_, next)) => word.push(next),
                None => word.push(c),
            },
            _ => word.push(c),
        }
    }
    (word, "")
}

/// The arguments as a JSON list of strings; anything else is shell form.
pub(crate) fn parse_json(arguments: &str) -> Option<Vec<String>> {
    let text = arguments.trim();
    if !text.starts_with('[') {
        return None;
    }
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests;
