//! Substitution of variables as the builder does it (the shell of a RUN does its own): `$v`, `${v}`, the
//! `:-`, `:+`, `:?` families, `#`, `%` and `/` patterns; quotes and escapes are undone on the way.

mod pattern;

use pattern::Pattern;
use std::cell::RefCell;
use std::collections::BTreeSet;

/// The longest text a substitution may make, in bytes: `ENV a=$a$a` repeated must not eat the memory.
const MAX_EXPANDED_BYTES: usize = 1 << 20;
/// The longest that all texts of a stage may be together.
pub(crate) const MAX_ALL_BYTES: usize = 64 << 20;
/// How deep `${a:-${b:-…}}` may nest.
const MAX_DEPTH: usize = 50;

/// Why a text cannot be expanded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ExpandError {
    #[error("missing '}}' in {0:?}")]
    MissingBrace(String),
    #[error("bad substitution in {0:?}")]
    BadSubstitution(String),
    #[error("unsupported modifier ({0}) in substitution")]
    Modifier(String),
    #[error("{0}: {1}")]
    Required(String, String),
    #[error("unexpected end of text: a {0} quote is not closed")]
    Quote(&'static str),
    #[error("the substituted text is longer than {MAX_EXPANDED_BYTES} bytes")]
    TooLong,
    #[error("all substituted texts together are longer than {MAX_ALL_BYTES} bytes")]
    AllTooLong,
    #[error("substitutions are nested more than {MAX_DEPTH} deep")]
    TooDeep,
}

/// Expands texts against one snapshot of the variables.
pub(crate) struct Expander<'a> {
    escape: char,
    lookup: &'a dyn Fn(&str) -> Option<String>,
    /// Leave `$x` alone where x is unset.
    keep_unset: bool,
    /// Quotes and escapes are ordinary text (heredoc bodies).
    raw_quotes: bool,
    unset: RefCell<BTreeSet<String>>,
}

/// The text being read, and what has come of it.
struct Cursor {
    chars: Vec<char>,
    at: usize,
    depth: usize,
}

impl Cursor {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += usize::from(c.is_some());
        c
    }

    fn text(&self) -> String {
        self.chars.iter().take(200).collect()
    }
}

/// Collects the words of an expansion; white space separates them only where it may.
struct Words {
    done: Vec<String>,
    current: String,
    /// An empty quoted word is a word.
    started: bool,
    split: bool,
    bytes: usize,
}

impl Words {
    fn raw(&mut self, text: &str) -> Result<(), ExpandError> {
        self.bytes += text.len();
        if self.bytes > MAX_EXPANDED_BYTES {
            return Err(ExpandError::TooLong);
        }
        self.current.push_str(text);
        self.started = true;
        Ok(())
    }

    fn splitting(&mut self, text: &str) -> Result<(), ExpandError> {
        for c in text.chars() {
            if self.split && c.is_whitespace() {
                self.end_word();
            } else {
                self.raw(c.encode_utf8(&mut [0; 4]))?;
            }
        }
        Ok(())
    }

    fn end_word(&mut self) {
        if std::mem::take(&mut self.started) {
            self.done.push(std::mem::take(&mut self.current));
        }
    }
}

impl<'a> Expander<'a> {
    /// An expander that takes unset variables as empty.
    pub(crate) fn new(escape: char, lookup: &'a dyn Fn(&str) -> Option<String>) -> Expander<'a> {
        Expander { escape, lookup, keep_unset: false, raw_quotes: false, unset: RefCell::default() }
    }

    /// For heredoc bodies: quotes stay.
    pub(crate) fn keeping_quotes(self) -> Expander<'a> {
        Expander { raw_quotes: true, ..self }
    }

    /// Leaves `$x` as it is where x is unset.
    #[cfg(test)]
    pub(crate) fn keeping_unset(self) -> Expander<'a> {
        Expander { keep_unset: true, ..self }
    }

    /// The variables asked for that were not set, without the ones a default stood in for.
    pub(crate) fn unset(&self) -> BTreeSet<String> {
        self.unset.borrow().clone()
    }

    /// Expands `text` to one word, white space and all.
    pub(crate) fn word(&self, text: &str) -> Result<String, ExpandError> {
        Ok(self.run(text, false)?.into_iter().next().unwrap_or_default())
    }

    /// Expands `text` to words, separated by unquoted white space, also by that of variables' values.
    pub(crate) fn words(&self, text: &str) -> Result<Vec<String>, ExpandError> {
        self.run(text, true)
    }

    fn run(&self, text: &str, split: bool) -> Result<Vec<String>, ExpandError> {
        let mut cursor = Cursor { chars: text.chars().collect(), at: 0, depth: 0 };
        let mut words = Words { done: Vec::new(), current: String::new(), started: false, split, bytes: 0 };
        self.until(&mut cursor, &[], &mut words)?;
        words.end_word();
        Ok(words.done)
    }

    /// Expands up to one of `stops` (not taken) or the end.
    fn until(&self, cursor: &mut Cursor, stops: &[char], words: &mut Words) -> Result<(), ExpandError> {
        while let Some(c) = cursor.peek() {
            if stops.contains(&c) {
                return Ok(());
            }
            cursor.at += 1;
            match c {
                '\'' if !self.raw_quotes => words.raw(&single_quoted(cursor)?)?,
                '"' if !self.raw_quotes => self.double_quoted(cursor, words)?,
                '$' => words.splitting(&self.dollar(cursor)?)?,
                c if c == self.escape && self.raw_quotes => match cursor.peek() {
                    Some(next) if next == '$' || next == self.escape => {
                        cursor.at += 1;
                        words.raw(next.encode_utf8(&mut [0; 4]))?;
                    }
                    _ => words.raw(c.encode_utf8(&mut [0; 4]))?,
                },
                c if c == self.escape => {
                    let literal = cursor.next().unwrap_or(c);
                    words.raw(literal.encode_utf8(&mut [0; 4]))?;
                }
                c => words.splitting(c.encode_utf8(&mut [0; 4]))?,
            }
        }
        Ok(())
    }

    fn double_quoted(&self, cursor: &mut Cursor, words: &mut Words) -> Result<(), ExpandError> {
        words.raw("")?;
        loop {
            match cursor.next().ok_or(ExpandError::Quote("double"))? {
                '"' => return Ok(()),
                '$' => words.raw(&self.dollar(cursor)?)?,
                c if c == self.escape => {
                    let next = cursor.next().ok_or(ExpandError::Quote("double"))?;
                    if !(next == '"' || next == '$' || next == self.escape) {
                        words.raw(c.encode_utf8(&mut [0; 4]))?;
                    }
                    words.raw(next.encode_utf8(&mut [0; 4]))?;
                }
                c => words.raw(c.encode_utf8(&mut [0; 4]))?,
            }
        }
    }

    /// What stands for the `$…` just begun.
    fn dollar(&self, cursor: &mut Cursor) -> Result<String, ExpandError> {
        if cursor.peek() == Some('{') {
            cursor.at += 1;
            cursor.depth += 1;
            if cursor.depth > MAX_DEPTH {
                return Err(ExpandError::TooDeep);
            }
            let value = self.braced(cursor)?;
            cursor.depth -= 1;
            return Ok(value);
        }
        let name = variable_name(cursor);
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        Ok(self.value(&name, || format!("${name}")))
    }

    fn value(&self, name: &str, as_written: impl Fn() -> String) -> String {
        (self.lookup)(name).unwrap_or_else(|| {
            self.unset.borrow_mut().insert(name.to_owned());
            if self.keep_unset { as_written() } else { String::new() }
        })
    }

    /// `${…}`, behind its opening brace.
    fn braced(&self, cursor: &mut Cursor) -> Result<String, ExpandError> {
        let missing = |cursor: &Cursor| ExpandError::MissingBrace(cursor.text());
        let name = variable_name(cursor);
        let next = cursor.next().ok_or_else(|| missing(cursor))?;
        if name.is_empty() {
            return Err(ExpandError::BadSubstitution(cursor.text()));
        }
        let set = (self.lookup)(&name);
        match next {
            '}' => Ok(self.value(&name, || format!("${{{name}}}"))),
            ':' => {
                let modifier = cursor.next().ok_or_else(|| missing(cursor))?;
                self.conditional(cursor, &name, set.filter(|value| !value.is_empty()), modifier, ":")
            }
            '+' | '-' | '?' => self.conditional(cursor, &name, set, next, ""),
            '#' | '%' => {
                let greedy = cursor.peek() == Some(next);
                cursor.at += usize::from(greedy);
                let pattern = Pattern::parse(&self.operand(cursor, &['}'])?);
                self.close(cursor)?;
                let value = self.value(&name, String::new);
                Ok(if next == '#' {
                    pattern.strip_prefix(&value, greedy)
                } else {
                    pattern.strip_suffix(&value, greedy)
                })
            }
            '/' => {
                let all = cursor.peek() == Some('/');
                cursor.at += usize::from(all);
                let pattern = Pattern::parse(&self.operand(cursor, &['/', '}'])?);
                let mut replacement = String::new();
                if cursor.peek() == Some('/') {
                    cursor.at += 1;
                    replacement = self.nested(cursor, &['}'])?;
                }
                self.close(cursor)?;
                pattern
                    .replace(&self.value(&name, String::new), &replacement, all, MAX_EXPANDED_BYTES)
                    .ok_or(ExpandError::TooLong)
            }
            other => Err(ExpandError::Modifier(other.to_string())),
        }
    }

    /// `-w`, `+w`, `?w` with `set` already judged by the colon rule.
    fn conditional(
        &self,
        cursor: &mut Cursor,
        name: &str,
        set: Option<String>,
        modifier: char,
        colon: &str,
    ) -> Result<String, ExpandError> {
        if !matches!(modifier, '-' | '+' | '?') {
            return Err(ExpandError::Modifier(format!("{colon}{modifier}")));
        }
        // What is not used must not be missed.
        let unset_before = self.unset.borrow().clone();
        let word = self.nested(cursor, &['}'])?;
        self.close(cursor)?;
        let uses_word = match modifier {
            '+' => set.is_some(),
            _ => set.is_none(),
        };
        if !uses_word {
            *self.unset.borrow_mut() = unset_before;
        }
        match (modifier, set) {
            ('-', Some(value)) | ('?', Some(value)) => Ok(value),
            ('-', None) | ('+', Some(_)) => Ok(word),
            ('?', None) => {
                let message = if word.is_empty() { "is not allowed to be unset".to_owned() } else { word };
                Err(ExpandError::Required(name.to_owned(), message))
            }
            _ => Ok(String::new()),
        }
    }

    fn nested(&self, cursor: &mut Cursor, stops: &[char]) -> Result<String, ExpandError> {
        let mut words = Words { done: Vec::new(), current: String::new(), started: false, split: false, bytes: 0 };
        self.until(cursor, stops, &mut words)?;
        Ok(words.current)
    }

    /// A pattern: expanded, but its escapes stay, since they make `*` and `?` literal.
    fn operand(&self, cursor: &mut Cursor, stops: &[char]) -> Result<String, ExpandError> {
        let mut text = String::new();
        while let Some(c) = cursor.peek() {
            if stops.contains(&c) {
                break;
            }
            cursor.at += 1;
            match c {
                '$' => text.push_str(&self.dollar(cursor)?),
                '\'' if !self.raw_quotes => text.push_str(&pattern::literal(&single_quoted(cursor)?)),
                c if c == self.escape => {
                    text.push('\\');
                    text.push(cursor.next().unwrap_or('\\'));
                }
                c => text.push(c),
            }
            if text.len() > MAX_EXPANDED_BYTES {
                return Err(ExpandError::TooLong);
            }
        }
        Ok(text)
    }

    fn close(&self, cursor: &mut Cursor) -> Result<(), ExpandError> {
        match cursor.next() {
            Some('}') => Ok(()),
            _ => Err(ExpandError::MissingBrace(cursor.text())),
        }
    }
}

fn single_quoted(cursor: &mut Cursor) -> Result<String, ExpandError> {
    let mut text = String::new();
    loop {
        match cursor.next().ok_or(ExpandError::Quote("single"))? {
            '\'' => return Ok(text),
            c => text.push(c),
        }
    }
}

/// A name, or one digit or special parameter (which are never set).
fn variable_name(cursor: &mut Cursor) -> String {
    let mut name = String::new();
    match cursor.peek() {
        Some(c) if c.is_ascii_digit() || "@*#?-$!".contains(c) => {
            // `${#` and `${-` begin no modifier: they have no name in front.
            cursor.at += 1;
            name.push(c);
        }
        _ => {
            while let Some(c) = cursor.peek().filter(|c| c.is_alphanumeric() || *c == '_') {
                cursor.at += 1;
                name.push(c);
            }
        }
    }
    name
}

#[cfg(test)]
mod tests;
